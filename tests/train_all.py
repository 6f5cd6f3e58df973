"""Train every system of ours on a file, withdraw, and write down models and lists; `test_determinism` runs it.

How many threads it computes with and how Python hashes, the environment says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from retract.data import load
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import unlearn_folder
from retract.stores.reading import Opened
from retract.stores.requests import Wish, add_request
from retract.stores.training import TrainOptions, train_folder
from retract.systems.registry import make_system
from retract.threads import take, threads

SETTINGS: dict[str, dict[str, object]] = {
    "exact": {},
    "fedshare": {"dimension": 32, "rounds": 3, "start_rounds": 3},
    "lightgcn": {"dimension": 64, "steps": 5},
    "personalfr": {},
    "receraser": {"dimension": 32, "steps": 5, "shards": 2, "aggregation_steps": 3},
    "unlearnrec": {"dimension": 64, "epochs": 5, "pretrain_steps": 3},
}
"""Little to do, on tables wide enough for the libraries to deal them among threads."""


def main(data: Path, room: Path) -> None:
    """One folder for each system; what is found goes into ROOM/STAGE-SYSTEM.npz and ROOM/lists.json."""
    lists: dict[str, object] = {}
    for name, settings in SETTINGS.items():
        out = room / name
        train_folder(make_system(name, settings), load(str(data)), out, TrainOptions(seed=3))
        take(threads())
        folder = TrainedFolder(out)
        lists[f"trained {name}"] = found(folder, room / f"trained-{name}.npz")
        for kind, user in (("erase", "u7"), ("unshare", "u11")):
            add_request(folder, Wish(kind, user))  # type: ignore[arg-type]
        unlearn_folder(folder)
        lists[f"unlearned {name}"] = found(folder, room / f"unlearned-{name}.npz")
    (room / "lists.json").write_text(json.dumps(lists))


def found(folder: TrainedFolder, tables: Path) -> dict[str, list[str]]:
    """Every user's list; the model's tables go into a file."""
    held = folder.load()
    np.savez(tables, **held.trained.model)
    users = [user for user in held.catalog.user_ids.tolist() if user]
    return {one.user: [line.item for line in one.items] for one in Opened(held).lists(users, 10)}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
