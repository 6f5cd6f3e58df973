"""What secure sums and stages cost in bytes, seconds and accuracy, for `benchmarks.privacy`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import source
from retract.data import Interactions, Sharing, load
from retract.evaluation.ranking import evaluate
from retract.federation import Broadcast, Engine, LocalEngine, RoundResult, TaskSpec
from retract.federation.privacy import (
    Buckets,
    ClientNoise,
    Clip,
    Keyed,
    Losses,
    Secret,
    SecureEngine,
    SecureSums,
    Stage,
    private_name,
    staged,
)
from retract.models.gram import rows
from retract.models.subspace import iterated
from retract.stores.devices import MemoryDevices
from retract.stores.local import reader_of
from retract.systems.base import Stopwatch, new_run, task_spec
from retract.systems.fedshare.config import EPOCH, FedShareConfig, epoch_update
from retract.systems.registry import make_system
from retract.systems.spectral.config import PROJECTION, projection_update
from retract.systems.spectral.subspace import Subspace

Row = dict[str, Any]


CLIENTS = 100
FORMS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "dense64": {"bits": 64},
    "dense32": {"bits": 32},
    "dense21": {"bits": 21},
    "buckets1000": {"bits": 21, "head": 750, "buckets": 250},
    "buckets500": {"bits": 21, "head": 375, "buckets": 125},
    "dense21lost": {"bits": 21, "lost": 0.3},
}
BOUNDS = {
    "projection": 0.2,
    "degrees": 50.0,
    "weights": 0.2,
    "item_gradient": 4.0,
    "weight": 50.0,
    "interactions": 2500,
}


def secure(form: str) -> Row:
    """Bytes and seconds of one round of each task, and the error of the sum against the plain one."""
    train, _ = load(source("ml-1m")).split()
    config, n_items = FedShareConfig(), train.n_items
    devices = MemoryDevices(Sharing.by_ratio(train, 0.5))
    users = np.sort(np.random.default_rng(0).permutation(devices.users)[:CLIENTS])
    system, settings = make_system("fedshare"), FORMS[form]
    draw = np.random.default_rng(0)
    subspace = Subspace(n_items, config, 0)
    basis = iterated(subspace, rows(train), 2).asked.astype(np.float32)  # as in all rounds but the first
    items = draw.normal(scale=0.1, size=(n_items, config.dimension)).astype(np.float32)
    tables = {"items": items, "coverage": np.asarray(0.5, dtype=np.float32)}
    asked = [
        (PROJECTION, projection_update(n_items, subspace.width), Broadcast(0, {"basis": basis})),
        (EPOCH, epoch_update(n_items, config.dimension), Broadcast(8, tables)),
    ]
    row: Row = {"clients": CLIENTS, "interactions_a_client": round(len(train.of_users(users)) / CLIENTS)}
    for task, update, broadcast in asked:
        spec = task_spec(config, "fedshare", task, new_run(), update)
        plain = LocalEngine(devices, system.device.tasks)
        engine = plain if form == "plain" else _secured(plain, train, settings)
        watch = Stopwatch()
        result = engine.run(spec, broadcast, users, seed=0)
        name = task.split()[-1]
        row[f"{name}_seconds"] = round(watch.seconds, 3)
        row[f"{name}_up"], row[f"{name}_down"] = (each // CLIENTS for each in (result.bytes_up, result.bytes_down))
        wanted = LocalEngine(devices, system.device.tasks).run(spec, broadcast, result.answered, seed=0)
        main = next(iter(update.tensors))
        mine, theirs = (np.asarray(each.update.tensors[main], dtype=np.float64) for each in (result, wanted))
        row[f"{name}_error"] = float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs))
        row[f"{name}_answered"] = len(result.answered)
    return row


def _secured(engine: Engine, train: Interactions, settings: Mapping[str, Any]) -> SecureEngine:
    return SecureEngine(engine, _sums(train, settings), losses=Losses(masked=settings.get("lost", 0.0)))


def _sums(train: Interactions, settings: Mapping[str, Any], group: int = 200) -> SecureSums:
    buckets = None
    if "head" in settings:
        head = np.argsort(-train.item_degrees(), kind="stable")[: settings["head"]]
        buckets = Buckets.head_and_hashed(head, train.n_items, settings["buckets"])
    threshold = 0.5 if "lost" in settings else 2 / 3
    return SecureSums(10, threshold, group, settings["bits"], BOUNDS, buckets)


class Gridded:
    """What secure sums in groups give, to the last bit, without masks: to see what a grid costs in accuracy."""

    def __init__(self, engine: Engine, settings: SecureSums) -> None:
        self.engine, self.traffic, self.settings = engine, engine.traffic, settings

    @property
    def users(self) -> NDArray[np.int64]:
        return self.engine.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.engine.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        total = spec.update.zeros()
        for group in self.settings.groups(users, broadcast.round, seed):
            grid = self.settings.grid(spec, len(group))
            words = np.zeros(grid.words, dtype=np.uint64)
            for user in group:
                words += grid.encode(self.engine.run(spec, broadcast, np.array([user]), seed=seed).update)
            total = total + grid.decode(words, len(group))
        return RoundResult(total, users, users[:0], 0, 0)


class Silent:
    """An engine that asks for the private task and adds no noise: what clipping alone does."""

    def __init__(self, engine: Engine, clip: Clip) -> None:
        self.engine, self.traffic, self.clip = engine, engine.traffic, clip

    @property
    def users(self) -> NDArray[np.int64]:
        return self.engine.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.engine.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        private = replace(spec, task=private_name(spec.task, [self.clip]))
        return self.engine.run(private, broadcast, users, seed=seed)


GRIDS: Mapping[str, Mapping[str, Any]] = {
    "dense32": {"bits": 32},
    "dense21": {"bits": 21},
    "rows of 27 %": {"bits": 21, "head": 0.2, "buckets": 0.07},
    "rows of 13 %": {"bits": 21, "head": 0.1, "buckets": 0.034},
}
"""As in FORMS, the parts of ML-1M's items being those of other data."""


def grids(seed: int) -> Iterator[Row]:
    """What the forms of secure sums cost FedShare in accuracy, on ML-100K with nothing shared."""
    train, test = load(source("ml-100k")).split(seed=seed)
    system, clip = make_system("fedshare"), Clip(BOUNDS)
    for form, settings in {"plain": None, "clipped": {}, **GRIDS}.items():
        devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
        engine: Engine = LocalEngine(devices, system.device.tasks)
        if settings is not None:
            engine = LocalEngine(devices, staged(system.device.tasks, [clip], Keyed(seed)))
        if settings:
            parts = {name: round(settings[name] * train.n_items) for name in ("head", "buckets") if name in settings}
            engine = Gridded(engine, _sums(train, {**settings, **parts}, 100))
        engine = engine if settings is None else Silent(engine, clip)
        trained = system.server.train(devices.sharing.shared, engine, seed=seed)
        yield {"run": "grids", "form": form, **evaluate(reader_of(system, trained, devices), train, test).mean()}


def stages() -> Iterator[Row]:
    """Clients a second of each of FedShare's tasks on ML-100K, as one cohort and with stages for each client."""
    train, _ = load(source("ml-100k")).split()
    system, config = make_system("fedshare"), FedShareConfig()
    draw, users = np.random.default_rng(0), train.active_users()
    forms: Mapping[str, list[Stage] | None] = {
        "plain": None,
        "clip": [Clip(BOUNDS)],
        "clip and noise": [Clip(BOUNDS), ClientNoise(1.0)],
    }
    for form, chosen in forms.items():
        row: Row = {"run": "stages", "form": form, "clients": len(users)}
        for task, width in ((PROJECTION, config.dimension + config.oversampling), (EPOCH, config.dimension)):
            made = projection_update if task == PROJECTION else epoch_update
            spec = task_spec(config, "fedshare", task, new_run(), made(train.n_items, width))
            table = draw.normal(scale=0.1, size=(train.n_items, width)).astype(np.float32)
            public = {"basis": table, "items": table, "coverage": np.asarray(0.0, dtype=np.float32)}
            tasks = system.device.tasks if chosen is None else staged(system.device.tasks, chosen, Secret())
            engine = LocalEngine(MemoryDevices(Sharing.by_ratio(train, 0.0)), tasks)
            named = spec if chosen is None else replace(spec, task=private_name(task, chosen))
            engine.run(named, Broadcast(0, public), users[:50], seed=0)
            watch = Stopwatch()
            engine.run(named, Broadcast(1, public), users, seed=0)
            row[f"{task.split()[-1]}_per_second"] = round(len(users) / watch.seconds)
        yield row
