"""Nodes of a simulated federation: a data set dealt out among folders, each of which is a node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from retract.data import Dataset, load
from retract.errors import ConfigError, FolderError
from retract.stores.federated import FederateOptions
from retract.stores.node import FACTS, NodeChoice, NodeFolder

ITEMS = "items.tsv"


def deal(
    data: str, root: Path, nodes: int, options: FederateOptions, *, share: float | None, test: float | None
) -> tuple[list[Path], FederateOptions]:
    """Nodes with the users of a data set, dealt out in turn; the options then name the items. Those there stay.

    Raises
    ------
    ConfigError
        If there are more nodes than users, or another number of nodes is there already.
    FolderError
        If the folder holds something else.
    """
    if root.exists():
        if len(places := dealt(root)) != nodes:
            raise ConfigError(f"{root} has {len(places)} node(s), and --simulate asks for {nodes}: delete it, or agree")
        return places, replace(options, items=root / ITEMS)
    dataset = load(data)
    write_items(dataset, root / ITEMS)
    return part_out(dataset, root, nodes, NodeChoice(share, test, "public", options.seed)), replace(
        options, items=root / ITEMS
    )


def dealt(root: Path) -> list[Path]:
    """The nodes that `deal` made.

    Raises
    ------
    FolderError
        If there are none.
    """
    found = sorted((path.parent for path in root.glob(f"*/{FACTS}")), key=lambda path: int(path.name))
    if not found:
        raise FolderError(f"{root} holds no simulated nodes: `retract federate run --simulate N` makes them")
    return found


def part_out(dataset: Dataset, root: Path, nodes: int, choice: NodeChoice) -> list[Path]:
    """Make nodes of a data set's users, dealt out in turn; errors as of `deal`."""
    users = dataset.interactions.active_users()
    if nodes > len(users):
        raise ConfigError(f"{nodes} nodes are more than the {len(users)} users: each node needs one at least")
    places = []
    for number in range(nodes):
        stays = np.isin(dataset.interactions.users, users[number::nodes])
        places.append(root / str(number))
        NodeFolder.create(places[-1], dataset.only(stays), choice)
    return places


def write_items(dataset: Dataset, path: Path) -> None:
    """Write a data set's items as `Members.of_items` reads them."""
    catalog = dataset.interactions.catalog
    path.parent.mkdir(parents=True, exist_ok=True)
    names = catalog.item_ids.tolist()
    lines = [
        f"{name}\t{' '.join(catalog.title(code).split())}" if catalog.titles is not None else name
        for code, name in enumerate(names)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
