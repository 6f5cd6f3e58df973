"""A federation without a network, and the same life on one machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retract.data import Catalog, Dataset, Interactions, Sharing
from retract.data.ids import sorted_ids
from retract.federation import LocalEngine
from retract.stores.devices import MemoryDevices
from retract.stores.federated import FederatedReport, FederateOptions, train_federated, unlearn_federated
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import UnlearnOptions
from retract.stores.local import reader_of, withdraw
from retract.stores.meeting import Wanted
from retract.stores.node import NodeChoice, NodeFolder
from retract.stores.recoding import recoded
from retract.stores.simulated import part_out, write_items
from retract.systems.registry import make_system
from tests.federation.grids import DirectLink
from tests.tiny import TINY_OF, tiny_dataset

SETTINGS: dict[str, dict[str, object]] = {
    "exact": {"form": "ease", "count_private": True, "ridge": 5.0},
    "fedshare": TINY_OF["fedshare"],
    "personalfr": TINY_OF["personalfr"],
}
SYSTEMS = [name if name == "exact" else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS]
NODES = 3


def dataset(share: float = 0.5) -> Dataset:
    """The tiny data under the codes that a federation gives, saying what is shared."""
    found = tiny_dataset()
    catalog = found.interactions.catalog
    names = Catalog(np.array(sorted_ids(catalog.user_ids.tolist())), catalog.item_ids, catalog.titles)
    held = recoded(found.interactions, names)
    shared = Sharing.by_ratio(held, share).shared
    return replace(found, interactions=held, is_shared=shared.contains(held))


class World:
    """Nodes with the data, and a server's folder."""

    def __init__(self, root: Path, name: str = "exact", data: Dataset | None = None, test: float | None = None) -> None:
        self.data, self.root, self.out = data or dataset(), root, root / "out"
        self.system = make_system(name, SETTINGS.get(name, {}))
        write_items(self.data, root / "items.tsv")
        self.places = part_out(self.data, root / "nodes", NODES, NodeChoice(test=test, draws="public"))
        self.link = DirectLink({})
        self.restart()

    def restart(self) -> None:
        """All nodes' processes anew."""
        self.link.there = {number: NodeFolder(place) for number, place in enumerate(self.places)}
        self.link.keys = {number: f"key {number}" for number in self.link.there}

    def options(self, **changes: Any) -> FederateOptions:
        return FederateOptions(self.root / "items.tsv", wanted=Wanted(1, 0.0, 5.0), **changes)

    def train(self, **changes: Any) -> FederatedReport:
        return train_federated(self.system, self.link, self.out, self.options(**changes))

    def unlearn(self, **options: Any) -> Any:
        return unlearn_federated(TrainedFolder(self.out), self.link, UnlearnOptions(**options), Wanted(1, 0.0, 5.0))

    def node_of(self, user: str) -> NodeFolder:
        nodes = (NodeFolder(place) for place in self.places)
        return next(node for node in nodes if user in node.devices.sharing.shared.catalog.known_users)

    def scores(self, users: list[str]) -> np.ndarray:
        """What the nodes score for their users."""
        rows = {}
        for place in self.places:
            node = NodeFolder(place)
            trained, held = node.published(), node.devices.in_memory()
            catalog = held.sharing.shared.catalog
            own = [user for user in users if user in catalog.known_users]
            codes = np.array([catalog.user(user) for user in own], dtype=np.int64)
            rows |= dict(zip(own, reader_of(self.system, trained, held).scores(codes, held.interactions), strict=True))
        return np.array([rows[user] for user in users])


class Local:
    """The same on one machine."""

    def __init__(self, world: World) -> None:
        self.system = world.system
        shared = world.data.shared
        assert shared is not None
        self.devices = MemoryDevices(Sharing(shared, world.data.interactions - shared))
        self.trained = self.system.server.train(shared, self.engine, seed=0)

    @property
    def engine(self) -> LocalEngine:
        return LocalEngine(self.devices, self.system.device.tasks)

    def withdraw(self, kind: Any, forget: Interactions) -> None:
        self.devices, withdrawal = withdraw(self.devices, kind, forget)
        self.trained = self.system.server.unlearn(self.trained, withdrawal, self.engine, seed=0)

    def scores(self, users: list[str]) -> np.ndarray:
        catalog = self.devices.interactions.catalog
        codes = np.array([catalog.user(user) for user in users], dtype=np.int64)
        return reader_of(self.system, self.trained, self.devices).scores(codes, self.devices.interactions)
