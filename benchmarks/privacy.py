"""Privacy of rounds: what secure sums cost, accuracy by epsilon, and what a norm bound does against poison.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.privacy

Every run is one JSON line in --out, printed as it is measured; a second call skips what is there.

secure      FedShare on ML-1M, 100 clients: one round of each task, plain and under masks, dense and in buckets
grids       FedShare on ML-100K trained by the sums that these forms give
exact       Exact's sums on ML-100K with noise of the server: Recall@20 and NDCG@20 by epsilon
fedshare    FedShare's rounds likewise, on ML-100K and on ML-1M
poisoning   FedShare on MovieLens-small, 5 % of the clients send a hundred times their update, with and without a bound
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import source
from benchmarks.poisoning import poisoned
from retract.data import Interactions, Sharing, load
from retract.evaluation.ranking import evaluate
from retract.federation import Broadcast, Engine, LocalEngine, RoundResult, TaskSpec
from retract.federation.privacy import (
    Accountant,
    Buckets,
    Clip,
    Keyed,
    Losses,
    NormBound,
    PrivateEngine,
    RobustEngine,
    SecureEngine,
    SecureSums,
    ServerNoise,
    TrimmedMean,
    private_name,
    staged,
)
from retract.models.gram import rows
from retract.models.recommender import Scores
from retract.models.subspace import iterated
from retract.stores.devices import MemoryDevices
from retract.stores.local import reader_of
from retract.systems.base import Stopwatch, new_run, task_spec
from retract.systems.fedshare.config import EPOCH, FedShareConfig, epoch_update
from retract.systems.registry import make_system
from retract.systems.spectral.config import PROJECTION, projection_update
from retract.systems.spectral.subspace import Subspace

Row = dict[str, Any]
Run = Callable[[], Row]
DELTA = 1e-5
MULTIPLIERS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Noise over a client's bound, of all rounds together; 0 is clipping alone."""


# --- the cost of secure sums ------------------------------------------------------------------------------------------

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


# --- accuracy by epsilon ----------------------------------------------------------------------------------------------


class Counted:
    """What most hold comes first: what needs no model, and what noise must not fall below."""

    def __init__(self, train: Interactions) -> None:
        self.degrees = train.item_degrees().astype(np.float32)

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        return np.tile(self.degrees, (len(users), 1))


class Replayed:
    """An engine that asks its devices once and gives the same sum again: the noise on it differs, the sum does not."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.traffic, self._known = engine, engine.traffic, dict[tuple[str, int], RoundResult]()

    @property
    def users(self) -> NDArray[np.int64]:
        return self.engine.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.engine.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        key = spec.task, broadcast.round
        if key not in self._known:
            self._known[key] = self.engine.run(spec, broadcast, users, seed=seed)
        return self._known[key]


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


def noisy(engine: Engine, clip: Clip, multiplier: float, rounds: int, seed: int) -> tuple[Engine, Accountant]:
    """An engine whose rounds together have a noise multiplier; and who accounts for them."""
    accountant = Accountant(1e9, DELTA)
    if not multiplier:
        return Silent(engine, clip), accountant
    stages = [clip, ServerNoise(multiplier * rounds**0.5)]
    return PrivateEngine(engine, stages, accountant, Keyed(1000 + seed)), accountant


def exact(exponent: float, seed: int) -> Iterator[Row]:
    """Exact's sum over clients, all private, with noise of the server; λ lifted to where the noise is."""
    train, test = load(source("ml-100k")).split(seed=seed)
    bound = float(np.median(train.user_degrees()[train.active_users()])) ** (1 - exponent)
    clip, settings = Clip({"gram": bound}), {"form": "ease", "count_private": True, "ease_exponent": exponent}
    devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
    engine = Replayed(LocalEngine(devices, staged(make_system("exact").device.tasks, [clip], Keyed(seed))))
    users = train.active_users()
    yield {"run": "exact", "form": "popularity", **evaluate(Counted(train), train, test).mean()}
    for multiplier in MULTIPLIERS:
        # The spectral norm of a symmetric n x n matrix of such noise is about 2σ√n.
        ridge = 50.0 * float(np.median(train.user_degrees()[users])) ** (0.5 - exponent)
        ridge += 2.2 * multiplier * bound * train.n_items**0.5
        system = make_system("exact", {**settings, "ridge": ridge})
        private, accountant = noisy(engine, clip, multiplier, 1, seed)
        row = {"run": "exact", "form": f"exponent {exponent:g}", "multiplier": multiplier, "ridge": round(ridge, 2)}
        trained = system.server.train(devices.sharing.shared, private, seed=seed)
        figures = evaluate(reader_of(system, trained, devices), train, test).mean()
        yield {**row, "epsilon": round(accountant.epsilon, 3) if multiplier else None, **figures}


SMALL = {"dimension": 8, "oversampling": 4, "start_rounds": 3, "rounds": 1}
"""As few rounds and columns as still say something: every one of them takes noise."""
FEDSHARE_CLIP = Clip(
    {
        "projection": 0.05,
        "degrees": 8.0,
        "weights": 0.11,
        "item_gradient": 1.5,
        "weight": 8.0,
        "interactions": 64.0,
    },
    {"projection": 8.0, "item_gradient": 8.0},
)
"""About the medians of what clients send on ML-100K."""


def fedshare(name: str, seed: int) -> Iterator[Row]:
    """FedShare's rounds, nothing shared, with noise of the server in each."""
    train, test = load(source(name)).split(seed=seed)
    whole = make_system("fedshare")
    devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
    yield {"run": "fedshare", "form": "popularity", **evaluate(Counted(train), train, test).mean()}
    trained = whole.server.train(devices.sharing.shared, LocalEngine(devices, whole.device.tasks), seed=seed)
    figures = evaluate(reader_of(whole, trained, devices), train, test).mean()
    yield {"run": "fedshare", "form": "defaults, neither clipped nor noised", **figures}
    system = make_system("fedshare", SMALL)
    tasks = staged(system.device.tasks, [FEDSHARE_CLIP], Keyed(seed))
    for multiplier in MULTIPLIERS:
        devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
        rounds = SMALL["start_rounds"] + SMALL["rounds"]
        private, accountant = noisy(LocalEngine(devices, tasks), FEDSHARE_CLIP, multiplier, rounds, seed)
        trained = system.server.train(devices.sharing.shared, private, seed=seed)
        figures = evaluate(reader_of(system, trained, devices), train, test).mean()
        epsilon = round(accountant.epsilon, 3) if multiplier else None
        row = {"run": "fedshare", "form": "d = 8, 3 + 1 rounds", "multiplier": multiplier, "epsilon": epsilon}
        yield {**row, **figures}


# --- poisoning --------------------------------------------------------------------------------------------------------

ATTACKS: Mapping[str, tuple[float, Any]] = {
    "clean": (1, None),
    "clean, norm bound": (1, NormBound()),
    "clean, trimmed mean": (1, TrimmedMean()),
    "x100": (100, None),
    "x100, norm bound": (100, NormBound()),
    "x100, trimmed mean": (100, TrimmedMean()),
    "x-100": (-100, None),
    "x-100, norm bound": (-100, NormBound()),
    "x-100, trimmed mean": (-100, TrimmedMean()),
}


def poisoning(attack: str, seed: int) -> Row:
    """FedShare on MovieLens-small with 5 % of the clients sending so many times their update."""
    train, test = load("movielens-small").split(seed=seed)
    system, active = make_system("fedshare"), train.active_users()
    attackers = np.random.default_rng(seed).permutation(active)[: round(0.05 * len(active))]
    factor, rule = ATTACKS[attack]
    devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
    engine: Engine = LocalEngine(devices, poisoned(system.device.tasks, attackers, factor), cohort_interactions=1)
    engine = engine if rule is None else RobustEngine(engine, rule)
    watch = Stopwatch()
    trained = system.server.train(devices.sharing.shared, engine, seed=seed)
    seconds = round(watch.seconds, 1)
    return {**evaluate(reader_of(system, trained, devices), train, test).mean(), "seconds": seconds}


# --- all of it --------------------------------------------------------------------------------------------------------


def studies(seeds: list[int]) -> dict[str, Callable[[], Iterator[Row]]]:
    """All studies by name, each giving its rows."""

    def secured() -> Iterator[Row]:
        for form in FORMS:
            yield {"run": "secure", "form": form, **secure(form)}

    def attacked(seed: int) -> Iterator[Row]:
        for attack in ATTACKS:
            yield {"run": "poisoning", "form": attack, **poisoning(attack, seed)}

    found: dict[str, Callable[[], Iterator[Row]]] = {"secure": secured}
    for seed in seeds:
        found |= {f"exact-{exponent:g}-{seed}": partial(exact, exponent, seed) for exponent in (0.5, 1.0)}
        found |= {f"fedshare-{name}-{seed}": partial(fedshare, name, seed) for name in ("ml-100k", "ml-1m")}
        found[f"grids-{seed}"] = partial(grids, seed)
        found[f"poisoning-{seed}"] = partial(attacked, seed)
    return found


def main() -> None:
    """Run the studies that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", default="", help="studies whose names begin with one of these, comma-separated")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/privacy.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {row["study"] for row in done}
    for name, study in studies([int(part) for part in options.seeds.split(",")]).items():
        if name in known or not name.startswith(tuple(options.only.split(","))):
            continue
        measured = []
        for row in study():
            measured.append(json.dumps({"study": name, **row}) + "\n")
            print(measured[-1], end="", flush=True)
        with options.out.open("a") as file:
            file.writelines(measured)


if __name__ == "__main__":
    main()
