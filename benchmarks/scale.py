"""Exact where shops are large: training, withdrawals and lists on synthetic data of the anchors' shapes.

    .venv/bin/python -m benchmarks.scale --interactions 33000000
    .venv/bin/python -m benchmarks.scale --interactions 10000000 --json

Up to 50 M interactions users have 165 each, of 50,000 items (the shape of Snapcase's, VLDB 2024); beyond, 256 each, of
100,000 items (Caboose's, SIGIR 2023; the number of items is ours). Items are drawn by a power law, half of them from a
group's own order of items, so that there is taste; chunk by chunk, keyed by the seed. A withdrawal is measured from the
call until the model that is served next knows nothing of it; `unlearn_ms` is that and the new set of what is held.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract import workers
from retract.data import Catalog, Interactions
from retract.evaluation.ranking import evaluate
from retract.federation import Arrays
from retract.federation.local import NoDevices
from retract.models.recommender import recommend
from retract.systems.base import Stopwatch, Trained, Withdrawal
from retract.systems.exact.closed_form import solve
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.reading import recommender_of
from retract.systems.exact.settling import judges_of
from retract.systems.exact.unlearning import resolve
from retract.systems.registry import make_system
from retract.systems.system import System
from retract.threads import threads

CHUNK = 20_000
"""Users that are drawn at once."""
GROUPS, POWER = 50, 0.8
COMPARED = 50_000_000
"""Interactions up to which a model after withdrawals is compared with one that is trained anew."""
ASKERS, LOAD, PACE = 32, 1000, 100
"""Connections' worth of threads that ask for lists, lists they ask for in a second, and withdrawals beside them."""


def shape_of(interactions: int) -> tuple[int, int, int]:
    """Users, items, and how many items a user has."""
    mean, items = (165, 50_000) if interactions <= 50_000_000 else (256, 100_000)
    return max(1000, interactions // mean), items, mean


def chunks(users: int, items: int, mean: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Users and items, both ascending, some users at a time."""
    odds = np.cumsum(np.arange(1, items + 1) ** -POWER)
    odds /= odds[-1]
    orders = [np.random.default_rng([seed, 0, group]).permutation(items) for group in range(GROUPS)]
    for number, begin in enumerate(range(0, users, CHUNK)):
        draw = np.random.default_rng([seed, 1, number])
        some = np.arange(begin, min(begin + CHUNK, users))
        counts = np.maximum(1, np.rint(mean * 1.15 * draw.lognormal(-0.18, 0.6, len(some)))).astype(np.int64)
        owner, ranks = np.repeat(some, counts), np.searchsorted(odds, draw.random(int(counts.sum())))
        group, own = owner % GROUPS, draw.random(len(ranks)) < 0.5
        for place, order in enumerate(orders):
            mine = own & (group == place)
            ranks[mine] = order[ranks[mine]]
        keys = np.unique(owner * items + ranks)
        yield keys // items, keys % items


def made(interactions: int, seed: int) -> Interactions:
    """The data; of a few interactions more or less than were asked for."""
    users, items, mean = shape_of(interactions)
    parts = list(chunks(users, items, mean, seed))
    ids = [np.char.add(name, np.arange(count).astype(np.str_)) for name, count in (("u", users), ("i", items))]
    return Interactions(Catalog(*ids), *(np.concatenate(column) for column in zip(*parts, strict=True)))


class Scale:
    """A trained model and what is measured of it; a fifth of what 1,000 users have is held out to judge by."""

    def __init__(self, interactions: int, form: str, seed: int, engine: str = "local") -> None:
        self.draw, watch = np.random.default_rng(seed), Stopwatch()
        everything = made(interactions, seed)
        own, self.judge = judges_of(everything, 0.2, 1000, seed + 1)
        self.shared, self.history = everything - self.judge, own - self.judge
        self.made_seconds, everything = watch.seconds, self.shared
        system = make_system("exact", {"form": form})
        with workers.engine(engine):
            watch = Stopwatch()
            self.trained: Trained = system.server.train(self.shared, NoDevices(), seed=seed)
            self.train_seconds, self.peak = watch.seconds, peak_mb()
        self.system = System(system.type, self.trained.config)
        assert isinstance(self.trained.config, ExactConfig)
        self.config = self.trained.config

    def accuracy(self, model: Arrays) -> dict[str, float]:
        """Of what was held out."""
        return evaluate(recommender_of(model, self.config), self.history, self.judge).mean()

    def sequence(self, counts: tuple[int, ...] = (1, 10, 100, 1000)) -> dict[str, float]:
        """Users who go one after the other: accuracy after so many of them, and whether a training anew gives the same.

        How far it is from that is the greatest difference of any number in any table.
        """
        going = np.setdiff1d(self.shared.active_users(), self.judge.active_users())
        going = self.draw.choice(going, min(counts[-1], len(going)), replace=False)
        model, row = self.trained.model, {f"{name}": value for name, value in self.accuracy(self.trained.model).items()}
        for number, user in enumerate(going.tolist(), start=1):
            own = self.shared.of_users([user])
            left = partial(self._without, going[:number])
            model = resolve(model, own, own - own, left, self.config).model
            if number in counts:
                row |= {f"{name} after {number}": value for name, value in self.accuracy(model).items()}
                if len(self.shared) <= COMPARED:
                    anew = solve(left(), self.config).model
                    row[f"distance after {number}"] = max(_distance(model[name], anew[name]) for name in anew)
        return row

    def _without(self, users: NDArray[np.int64]) -> Interactions:
        return self.shared - self.shared.of_users(users)

    def withdrawals(self, count: int) -> dict[str, float]:
        """Users who withdraw everything, one after the other."""
        model, seconds, summed = self.trained.model, [], 0
        for user in self.draw.choice(self.shared.active_users(), count, replace=False):
            watch = Stopwatch()
            own = self.shared.of_users([user])
            solved = resolve(model, own, own - own, lambda: self.shared, self.config)
            seconds.append(1e3 * watch.seconds)
            model, summed = solved.model, summed + int(solved.how.get("summed anew", 0))
        return {
            "withdraw_p50_ms": float(np.median(seconds)),
            "withdraw_p99_ms": float(np.percentile(seconds, 99)),
            "withdraw_worst_ms": max(seconds),
            "lists_summed_anew": summed / count,
        }

    def batch(self, users: int) -> dict[str, float]:
        """Many users at once, and one with the new set of what is held."""
        found = {}
        for name, count in (("withdrawals_per_second", users), ("unlearn_ms", 1)):
            forget = self.shared.of_users(self.draw.choice(self.shared.active_users(), count, replace=False))
            withdrawal = Withdrawal("erase", forget, forget.active_users())
            watch = Stopwatch()
            self.system.server.unlearn(self.trained, withdrawal, NoDevices(), seed=0)
            found[name] = count / watch.seconds if count > 1 else 1e3 * watch.seconds
        return found

    def lists(self, count: int) -> dict[str, float]:
        """Lists of 20, each asked for by itself: as many as can be; 1,000 a second; and while 100 users withdraw."""
        served = Serving(self.trained, self.config)
        ask, users = partial(served.ask, self.shared), self.draw.choice(self.shared.active_users(), 3 * count)
        going = self.draw.permutation(self.shared.active_users())
        ask(int(users[0]))
        with ThreadPoolExecutor(threads()) as pool:
            watch = Stopwatch()
            list(pool.map(ask, users[:count].tolist()))
            most = count / watch.seconds
        alone = asked(ask, users[count : 2 * count])
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(served.withdraw, self.shared, going)
            beside = asked(ask, users[2 * count :])
            served.stop.set()
            withdrawn, seconds = done.result()
        return {
            "lists_per_second": most,
            "list_p90_ms": alone[1],
            "asked_per_second": alone[0],
            "lists_per_second_beside_withdrawals": beside[0],
            "list_p90_ms_beside_withdrawals": beside[1],
            "withdrawals_per_second_beside_lists": withdrawn / seconds,
        }


def asked(ask: Callable[[int], object], users: NDArray[np.int64]) -> tuple[float, float]:
    """Lists a second, and milliseconds that 90 % of them take at most, from when each was due at `LOAD` a second."""
    began, askers = time.perf_counter(), range(ASKERS)

    def run(asker: int) -> list[float]:
        seconds = []
        for number in range(asker, len(users), ASKERS):
            due = began + number / LOAD
            time.sleep(max(0.0, due - time.perf_counter()))
            ask(int(users[number]))
            seconds.append(time.perf_counter() - due)
        return seconds

    with ThreadPoolExecutor(ASKERS) as pool:
        found = [one for part in pool.map(run, askers) for one in part]
    return len(users) / (time.perf_counter() - began), 1e3 * float(np.percentile(found, 90))


class Serving:
    """A model that is asked while users withdraw from it."""

    def __init__(self, trained: Trained, config: ExactConfig) -> None:
        self.model, self.config, self.stop = trained.model, config, threading.Event()
        self.recommender = recommender_of(self.model, config)

    def ask(self, shared: Interactions, user: int) -> None:
        """A list of 20."""
        recommend(self.recommender, np.array([user]), shared, 20)

    def withdraw(self, shared: Interactions, users: NDArray[np.int64]) -> tuple[int, float]:
        """One user after the other, `PACE` in a second; how many they were, and seconds."""
        began = time.perf_counter()
        for number, user in enumerate(users.tolist()):
            time.sleep(max(0.0, began + number / PACE - time.perf_counter()))
            if self.stop.is_set():
                break
            own = shared.of_users([user])
            self.model = resolve(self.model, own, own - own, lambda: shared, self.config).model
            self.recommender = recommender_of(self.model, self.config)
        return number, time.perf_counter() - began


def digest(model: Arrays) -> str:
    """What a model's tables have in common if they are the same to the last bit."""
    found = hashlib.sha256()
    for name in sorted(model):
        found.update(name.encode() + np.ascontiguousarray(model[name]).tobytes())
    return found.hexdigest()[:16]


def _distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The greatest difference of any two numbers; infinite where there are not as many."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0))


def peak_mb() -> int:
    """Of this process."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(interactions: int, form: str, seed: int, engine: str) -> dict[str, Any]:
    """One size."""
    one = Scale(interactions, form, seed, engine)
    shared = one.shared
    row: dict[str, Any] = {
        "interactions": len(shared),
        "users": shared.n_users,
        "items": shared.n_items,
        "seed": seed,
        "threads": threads(),
        "engine": engine,
        "made_seconds": one.made_seconds,
        "form": one.trained.log[0]["form"],
        "why": one.trained.log[0]["why"],
        "neighbours": one.config.neighbours,
        "train_seconds": one.train_seconds,
        "peak_mb": one.peak,
        "model_mb": round(sum(table.nbytes for table in one.trained.model.values()) / 1e6),
        "digest": digest(one.trained.model),
    }
    if engine != "local":  # what follows is the same whoever has trained
        return row
    row |= one.withdrawals(300) | one.lists(5000) | one.batch(2000) | one.sequence()
    return {**row, "peak_mb_in_all": peak_mb()}


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--form", default="filter", help="filter, or auto: of up to some millions that is spectral")
    parser.add_argument("--engine", default="local", help="who trains: local, or ray with as many workers as threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object, kept nowhere")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale.jsonl"))
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as a service would: threads wait 5 ms for each other else
    row = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in measure(options.interactions, options.form, options.seed, options.engine).items()
    }
    if not options.json:
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
