"""Exact on MovieLens and Gowalla: accuracy and time, forgetting against retraining, recommending, shipping.

    .venv/bin/python -m benchmarks.exact

Every run has a process of its own and is one JSON line in --out, printed as it is measured; a second call skips what is
there. Exact draws nothing at random, so there is one seed; who withdraws is drawn by it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import source, thinned
from benchmarks.libraries import libraries
from retract.data import Sharing, load
from retract.evaluation.ranking import evaluate
from retract.federation import Arrays
from retract.models.recommender import recommend
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of
from retract.systems.base import Stopwatch, Trained, Withdrawal
from retract.systems.exact.closed_form import solve
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.reading import recommender_of
from retract.systems.exact.shipping import ShippedModel, ship
from retract.systems.registry import make_system
from retract.systems.system import System
from retract.threads import threads

Row = dict[str, Any]


class Bench:
    """One data set and one form, everything shared, trained; `thin` leaves so many interactions of each user."""

    def __init__(self, name: str, thin: int | None = None, **settings: Any) -> None:
        self.train, self.test = load(name if name.startswith("movielens") else source(name)).split(seed=0, test=0.1)
        self.train = self.train if thin is None else thinned(self.train, thin, 0)
        self.system = make_system("exact", settings)
        self.devices = MemoryDevices(Sharing.by_ratio(self.train, 1.0))
        self.engine, self.draw = engine_of(self.system, self.devices), np.random.default_rng(0)
        watch = Stopwatch()
        self.trained = self.system.server.train(self.train, self.engine, seed=0)
        self.seconds = watch.seconds
        self.system = System(self.system.type, self.trained.config)  # what it found by itself stays

    def accuracy(self) -> Row:
        """Accuracy, time and peak memory of training, and then of everything."""
        trained_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        means = evaluate(reader_of(self.system, self.trained, self.devices), self.train, self.test).mean()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = sum(table.nbytes for table in self.trained.model.values())
        return {
            **{name: self.trained.log[0].get(name) for name in ("form", "filter_beta", "blend")},
            **means,
            "seconds": self.seconds,
            "peak_mb_training": round(trained_mb),
            "peak_mb": round(peak),
            "model_bytes": size,
            "memory_bytes": self.trained.memory.nbytes,
        }

    def forget(self, trained: Trained, users: Any) -> tuple[Trained, float]:
        """The model without some users, and seconds."""
        forget = trained.shared.of_users(users)
        withdrawal = Withdrawal("erase", forget, forget.active_users())
        watch = Stopwatch()
        return self.system.server.unlearn(trained, withdrawal, self.engine, seed=0), watch.seconds

    def retrained(self, trained: Trained) -> tuple[Trained, float]:
        """The oracle of a model, and seconds."""
        watch = Stopwatch()
        return self.system.server.train(trained.shared, self.engine, seed=0), watch.seconds

    def against_grid(self) -> Row:
        """What training finds by itself, against the best on the test part of a wide grid over all forms."""
        row, best = self.accuracy(), (0.0, "")
        for form, values in WIDE.items():
            for chosen in product(*values.values()):
                settings = {"form": form, **dict(zip(values, chosen, strict=True))}
                config = ExactConfig.model_validate(settings)
                model = recommender_of(solve(self.train, config).model, config)
                best = max(best, (float(evaluate(model, self.train, self.test).ndcg.mean()), str(settings)))
        return {**row, "best_ndcg@20": best[0], "best": best[1], "ratio": row["ndcg@20"] / best[0]}

    def one_user(self, count: int = 31) -> Row:
        """Random users who withdraw everything, one after the other from the full model."""
        seconds, distances, oracles = [], [], []
        for number, user in enumerate(self.draw.choice(self.train.active_users(), count)):
            after, took = self.forget(self.trained, [user])
            seconds.append(took)
            if number % 10 == 0:
                oracle, took = self.retrained(after)
                oracles.append(took)
                distances.append(distance(after.model, oracle.model))
        return {
            "median_ms": 1e3 * np.median(seconds),
            "worst_ms": 1e3 * max(seconds),
            "retrain_seconds": float(np.median(oracles)),
            "speedup": float(np.median(oracles) / np.median(seconds)),
            "distance": max(distances),
        }

    def many_users(self, part: float) -> Row:
        """A part of all users at once."""
        users = self.draw.choice(self.train.active_users(), round(part * self.train.n_users), replace=False)
        after, seconds = self.forget(self.trained, users)
        oracle, retrain = self.retrained(after)
        return {
            "users": len(users),
            "seconds": seconds,
            "retrain_seconds": retrain,
            "method": after.log[-1]["method"],
            "distance": distance(after.model, oracle.model),
        }

    def successive(self, count: int = 1000) -> Row:
        """Random parts of random users, withdrawn one after the other."""
        trained, seconds, usable = self.trained, 0.0, True
        for _ in range(count):
            own = trained.shared.of_users([self.draw.choice(trained.shared.active_users())])
            forget = own.where(self.draw.random(len(own)) < self.draw.choice([0.05, 0.5, 1.0]))
            withdrawal = Withdrawal("erase", forget, forget.active_users())
            watch = Stopwatch()
            trained = self.system.server.unlearn(trained, withdrawal, self.engine, seed=0)
            seconds += watch.seconds
            scores = self.system.server.recommender(trained).scores(own.active_users(), self.train)
            usable = usable and bool(np.isfinite(scores).all())
        oracle, _ = self.retrained(trained)
        methods = [record["method"] for record in trained.log[1:]]
        return {
            "withdrawals": count,
            "left": len(trained.shared),
            "seconds": seconds,
            "factorised_anew": methods.count("closed form"),
            "every_model_usable": usable,
            "distance": distance(trained.model, oracle.model),
        }

    def against_libraries(self, k: int = 20) -> Row:
        """Accuracy, training time, size, and all users' lists in a second, beside other libraries' as they come."""
        users, row = np.arange(self.train.n_users), self.accuracy()
        reader = reader_of(self.system, self.trained, self.devices)
        row["lists_per_second"] = len(users) / least(lambda: recommend(reader, users, self.train, k))
        for name, fit in libraries(self.train).items():
            watch = Stopwatch()
            theirs = fit(self.train)
            row |= {f"{name}_seconds": watch.seconds, f"{name}_bytes": theirs.nbytes}
            row[f"{name}_lists_per_second"] = len(users) / least(partial(theirs.lists, k))
            means = evaluate(theirs.recommender, self.train, self.test).mean()
            row |= {f"{name}_{metric}": value for metric, value in means.items()}
        return row

    def shipping(self) -> Row:
        """Bytes and accuracy of the shipped model."""
        full = evaluate(reader_of(self.system, self.trained, self.devices), self.train, self.test).mean()["recall@20"]
        row: Row = {"full_recall@20": full}
        for limit in (1_000_000, 2_000_000, 5_000_000):
            content = ship(self.trained, max_bytes=limit)
            found = evaluate(ShippedModel.from_bytes(content), self.train, self.test).mean()["recall@20"]
            row |= {f"bytes_{limit}": len(content), f"recall_ratio_{limit}": found / full}
        return row

    def noise(self) -> Row:
        """Accuracy of models shipped with noise for whole users, delta = 1e-6."""
        row: Row = {}
        for epsilon in (4.0, 16.0, 64.0):
            model = ShippedModel.from_bytes(ship(self.trained, epsilon=epsilon))
            means = evaluate(model, self.train, self.test).mean()
            row |= {f"{name}_epsilon_{epsilon:g}": value for name, value in means.items()}
        return row


def distance(one: Arrays, other: Arrays) -> float:
    """The largest relative distance of two models' tables."""
    largest = 0.0
    for name, table in one.items():
        if table.shape != other[name].shape:
            return float("inf")
        own, theirs = table.astype(np.float64), other[name].astype(np.float64)
        largest = max(largest, float(np.linalg.norm(own - theirs) / max(np.linalg.norm(theirs), 1e-300)))
    return largest


WIDE: Mapping[str, Mapping[str, Any]] = {
    "ease": {"ease_exponent": (0.25, 0.5, 0.75), "ridge": (5, 20, 50, 200, 500)},
    "filter": {"filter_prior": (0, 5, 10, 20), "filter_beta": (0, 0.1, 0.2, 0.3, 0.4, 0.5)},
    "spectral": {
        "degree_prior": (5, 10, 20, 50),
        "popularity": (0.1, 0.25, 0.4),
        "dimension": (0, 16, 64, 256),
        "filter_beta": (0.1, 0.4),
        "blend": (0, 1),
    },
}
ML_1M, GOWALLA, EASE, SPECTRAL = {"name": "ml-1m"}, {"name": "gowalla"}, {"form": "ease"}, {"form": "spectral"}


def least(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of some tries."""
    seconds = []
    for _ in range(times):
        watch = Stopwatch()
        work()
        seconds.append(watch.seconds)
    return min(seconds)


RUNS: Mapping[str, tuple[Mapping[str, Any], Callable[[Bench], Row]]] = {
    "ml-1m accuracy": (ML_1M, Bench.accuracy),
    "ml-1m one user": (ML_1M, Bench.one_user),
    "ml-1m shipping": (ML_1M, Bench.shipping),
    "ml-1m noise": (ML_1M, Bench.noise),
    "ml-1m ease accuracy": (ML_1M | EASE, Bench.accuracy),
    "ml-1m ease one user": (ML_1M | EASE, Bench.one_user),
    "ml-1m ease 1 % of the users": (ML_1M | EASE, partial(Bench.many_users, part=0.01)),
    "ml-1m ease 1000 withdrawals": (ML_1M | EASE, Bench.successive),
    "ml-1m against libraries": (ML_1M, Bench.against_libraries),
    "ml-1m ease against libraries": (ML_1M | EASE, Bench.against_libraries),
    "gowalla against libraries": (GOWALLA, Bench.against_libraries),
    "gowalla accuracy": (GOWALLA, Bench.accuracy),
    "gowalla one user": (GOWALLA, partial(Bench.one_user, count=11)),
    "gowalla spectral accuracy": (GOWALLA | SPECTRAL, Bench.accuracy),
    "gowalla spectral one user": (GOWALLA | SPECTRAL, partial(Bench.one_user, count=3)),
    "gowalla filter accuracy": (GOWALLA | {"form": "filter"}, Bench.accuracy),
    "gowalla filter one user": (GOWALLA | {"form": "filter"}, Bench.one_user),
    "ml-100k against the grid": ({"name": "ml-100k"}, Bench.against_grid),
    "ml-1m thinned against the grid": (ML_1M | {"thin": 8}, Bench.against_grid),
    "movielens-small against the grid": ({"name": "movielens-small"}, Bench.against_grid),
}


def measure(name: str) -> Row:
    """One run."""
    settings, run = RUNS[name]
    row = {"run": name, "threads": threads(), **run(Bench(**settings))}
    return {key: float(value) if isinstance(value, np.floating) else value for key, value in row.items()}


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(RUNS), help="runs, by commas")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/exact.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["run"] for line in options.out.read_text().splitlines()} if options.out.exists() else set()
    wanted = options.only.split(",")
    for name in RUNS:
        if name in done or name not in wanted:
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own:
            row = own.submit(measure, name).result()
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
