"""A federation over real processes beside the local engine: the same model, and what passes over the wire.

    python -m benchmarks.federation [--json] [--systems exact,fedshare,personalfr]

Everything runs on this machine: a SuperLink with TLS and node authentication, three SuperNodes with a third of the
users each, and between them a forwarder that counts bytes.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federations import Federation, with_shared
from retract.data import Dataset, Interactions, load
from retract.federation import LocalEngine
from retract.stores.devices import MemoryDevices
from retract.stores.folder import TrainedFolder
from retract.stores.local import reader_of, withdraw
from retract.stores.node import NodeFolder
from retract.systems.base import Trained
from retract.systems.registry import make_system
from retract.systems.system import System

NODES, SHARE, SEED = 3, 0.5, 0
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "fedshare": {},
    "personalfr": {},
    "exact": {"form": "ease", "count_private": "true"},
}
AT_LEAST = {"exact": 10}
"""Of Exact's sums over private data, which are dense: the items that so many users hold."""


class Forwarder:
    """Counts what passes between a port of its own and another one of this machine."""

    def __init__(self, port: int) -> None:
        self.target, self.up, self.down = port, 0, 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._door.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def reset(self) -> None:
        self.up = self.down = 0

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            for source, sink, name in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=self._pass, args=(source, sink, name), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        try:
            while content := source.recv(1 << 16):
                sink.sendall(content)
                setattr(self, name, getattr(self, name) + len(content))
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()

    def close(self) -> None:
        self._door.close()


class Local:
    """The same life on one machine, by the local engine."""

    def __init__(self, system: System, dataset: Dataset) -> None:
        from retract.data import sharing_of

        self.system = system
        self.devices = MemoryDevices(sharing_of(dataset.interactions, None, dataset.shared, None))
        self.trained = system.server.train(self.devices.sharing.shared, self.engine, seed=SEED)

    @property
    def engine(self) -> LocalEngine:
        return LocalEngine(self.devices, self.system.device.tasks)

    def withdraw(self, kind: str, forget: Interactions) -> None:
        self.devices, withdrawal = withdraw(self.devices, kind, forget)  # type: ignore[arg-type]
        self.trained = self.system.server.unlearn(self.trained, withdrawal, self.engine, seed=SEED)
        self.devices.forget_runs(but=self.trained.run)

    def scores(self, users: np.ndarray) -> np.ndarray:
        model = reader_of(self.system, self.trained, self.devices)
        return model.scores(users, self.devices.interactions)


def remote_scores(federation: Federation, users: list[str]) -> np.ndarray:
    """What the nodes score for their own users, in the order of `users`."""
    rows = {}
    for name in federation.names:
        node = NodeFolder(federation.node(name))
        held = node.devices.in_memory()
        catalog = held.sharing.shared.catalog
        own = [user for user in users if user in catalog.known_users]
        trained = node.published()
        model = reader_of(make_system(trained.system, trained.config.model_dump()), trained, held)
        codes = np.array([catalog.user(user) for user in own], dtype=np.int64)
        rows |= dict(zip(own, model.scores(codes, held.interactions), strict=True))
    return np.array([rows[user] for user in users])


def same_tables(mine: Trained, theirs: Trained) -> bool:
    """Whether two models are the same, bit for bit."""
    return mine.model.keys() == theirs.model.keys() and all(
        np.array_equal(mine.model[name], theirs.model[name]) for name in mine.model
    )


def without_rare(dataset: Dataset, at_least: int) -> Dataset:
    """The part of a data set whose items so many users hold."""
    held = dataset.interactions
    return dataset.only((held.item_degrees() >= at_least)[held.items])


def measure(name: str, dataset: Dataset, root: Path, settings: Mapping[str, object] | None = None) -> dict[str, Any]:
    """One system: training, unshare and erase over the network, each beside the local engine."""
    chosen = SETTINGS[name] if settings is None else settings
    dataset = with_shared(without_rare(dataset, AT_LEAST.get(name, 0)), SHARE)
    local, told = Local(make_system(name, dict(chosen)), dataset), list[dict[str, Any]]()
    catalog = dataset.interactions.catalog
    sharers = local.devices.sharing.shared.active_users()
    asking, erasing = (str(catalog.user_ids[code]) for code in sharers[:2])
    everyone = [user for user in catalog.user_ids.tolist() if user != erasing]
    with Federation(root, NODES) as federation:
        federation.deal(dataset)
        federation.start_server()
        wire = Forwarder(federation.port)
        for node in federation.names:
            federation.start_node(node, address=f"127.0.0.1:{wire.port}")
        out = root / "model"

        def step(kind: str, report: Mapping[str, Any]) -> None:
            users = everyone
            codes = np.array([catalog.user(user) for user in users], dtype=np.int64)
            gap = float(np.abs(local.scores(codes) - remote_scores(federation, users)).max())
            served = TrainedFolder(out).load_server()
            told.append(
                {
                    "system": name,
                    "step": kind,
                    "scores_gap": gap,
                    "equal": same_tables(local.trained, served),
                    "seconds": report["seconds"],
                    "rounds": report["rounds"],
                    "reported_up": report.get("all_up"),
                    "reported_down": report.get("all_down"),
                    "rounds_up": report.get("bytes_up"),
                    "rounds_down": report.get("bytes_down"),
                    "wire_up": wire.up,
                    "wire_down": wire.down,
                }
            )

        began = time.perf_counter()
        report = federation.train(name, out, chosen)
        told_seconds = time.perf_counter() - began
        step("train", report)
        told[-1]["whole_seconds"] = round(told_seconds, 1)
        for kind, user in (("unshare", asking), ("erase", erasing)):
            wire.reset()
            node = next(each for each in federation.names if _holds(federation.node(each), user))
            federation.json("federate", kind, federation.node(node), "--user", user)
            within = local.devices.sharing.shared if kind == "unshare" else local.devices.interactions
            local.withdraw(kind, within.of_users([catalog.user(user)]))
            step(kind, federation.unlearn(out))
        wire.close()
    return {"rows": told, "items": dataset.interactions.n_items}


def _holds(node: Path, user: str) -> bool:
    return user in NodeFolder(node).devices.sharing.shared.catalog.known_users


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--systems", default="exact,fedshare,personalfr")
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    dataset, rows = load("movielens-small"), list[dict[str, Any]]()
    for name in options.systems.split(","):
        with tempfile.TemporaryDirectory() as room:
            found = measure(name, dataset, Path(room))
        rows += found["rows"]
        for row in found["rows"]:
            print(row, file=sys.stderr)
    trained = [row for row in rows if row["step"] == "train"]
    ratios = [
        (row["wire_up"] + row["wire_down"]) / (row["reported_up"] + row["reported_down"])
        for row in trained
        if row["reported_up"]
    ]
    exact = [row["equal"] for row in rows if row["system"] == "exact"]
    summary = {
        "scores_gap": max(row["scores_gap"] for row in rows),
        "exact_equal": all(exact) if exact else None,
        "bytes_ratio": max(ratios, key=lambda ratio: abs(ratio - 1)),
        "rows": rows,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
