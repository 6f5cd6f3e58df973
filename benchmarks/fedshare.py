"""FedShare on ML-1M's fold: accuracy by sharing ratio, who gains, cost, and unlearning against the oracle.

Beside it the same on data of other kinds, Exact and centralised LightGCN on everything, and the paper's form (seed 0).

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.fedshare --seeds 0,1,2

Every run is one JSON line in --out, printed as it is measured; a second call skips what is there.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import source, thinned
from retract.data import Interactions, Sharing, load
from retract.evaluation.ranking import PerUser, evaluate, percentile_ranks
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.base import Stopwatch, Trained
from retract.systems.registry import make_method, make_system
from retract.systems.system import System

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
OTHERS = ("movielens-small", "ml-100k", "thinned")


class Bench:
    """One seed's runs on one data set."""

    def __init__(self, train: Interactions, test: Interactions, seed: int) -> None:
        self.train, self.test, self.seed, self.system = train, test, seed, make_system("fedshare")

    def fit(self, ratio: Any, system: System | None = None) -> tuple[Trained, MemoryDevices, PerUser, dict[str, Any]]:
        """Train at a ratio; also the figures: megabytes of one client both ways, with what is published at last."""
        system = system or self.system
        devices = MemoryDevices(Sharing.by_ratio(self.train, ratio, seed=self.seed))
        engine, watch = engine_of(system, devices), Stopwatch()
        trained = system.server.train(devices.sharing.shared, engine, seed=self.seed)
        seconds, passed = watch.seconds, engine.traffic
        figures = evaluate(reader_of(system, trained, devices), self.train, self.test)
        published = sum(table.nbytes for table in trained.model.values())
        sent = (passed.up + passed.down) / max(len(devices.users), 1) + published
        cost = {"rounds": passed.rounds, "client_mb": round(sent / 1e6, 2), "seconds": round(seconds, 1)}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return trained, devices, figures, {**figures.mean(), **cost, "peak_mb": round(peak)}

    def sharing(self, ratio: float) -> dict[str, Any]:
        """Accuracy and cost at one ratio."""
        return self.fit(ratio)[3]

    def central(self) -> dict[str, Any]:
        """Centralised LightGCN on everything."""
        return self.fit(1.0, make_system("lightgcn"))[3]

    def exact(self) -> dict[str, Any]:
        """Exact on everything."""
        return self.fit(1.0, make_system("exact"))[3]

    def paper(self) -> dict[str, Any]:
        """The paper's form with nothing, half and everything shared."""
        system, found = make_system("fedshare", {"form": "paper"}), {}
        for ratio in (0.0, 0.5, 1.0):
            found |= {f"{name}_{ratio:g}": value for name, value in self.fit(ratio, system)[3].items()}
        return found

    def other(self, name: str) -> dict[str, Any]:
        """FedShare, and Exact on what is shared, on other data."""
        if name == "thinned":
            bench = Bench(thinned(self.train, 8, self.seed), self.test, self.seed)
        else:
            data = name if name.startswith("movielens") else source(name)
            bench = Bench(*load(data).split(seed=self.seed), self.seed)
        found: dict[str, Any] = {}
        for ratio in (0.0, 0.5, 1.0):
            cost = bench.fit(ratio)[3]
            found |= {f"{key}_{ratio:g}": cost[key] for key in ("recall@20", "ndcg@20", "rounds", "seconds")}
            if ratio:
                found[f"exact_ndcg@20_{ratio:g}"] = bench.fit(ratio, make_system("exact"))[3]["ndcg@20"]
        return found

    def halves(self) -> dict[str, Any]:
        """A random half shares all, then the other half: every user's gain over nobody sharing, as sharer and not."""
        first = np.random.default_rng(self.seed).permutation(self.train.n_users) < self.train.n_users // 2
        nobody = self.fit(0.0)[2]
        gains: dict[str, list[float]] = {}
        for sharers in (first, ~first):
            some = self.fit(sharers.astype(float))[2]
            for who, users in (("sharers", np.flatnonzero(sharers)), ("others", np.flatnonzero(~sharers))):
                for name, value in some.mean(users).items():
                    gains.setdefault(f"{who}_gain_{name}", []).append(value - nobody.mean(users)[name])
        return {name: float(np.mean(values)) for name, values in gains.items()}

    def unlearning(self) -> dict[str, Any]:
        """10 % of the users unshare all they shared; ratio 0.5 before."""
        trained, devices, _, cost = self.fit(0.5)
        users = np.random.default_rng(self.seed).permutation(self.train.active_users())[: self.train.n_users // 10]
        forget = devices.sharing.shared.of_users(users)
        out: dict[str, Any] = {"users": len(users), "forgotten": len(forget), "train_seconds": cost["seconds"]}
        out |= self._figures("before", trained, devices, forget)
        for name, way in (("naive", "naive"), ("oracle", "retrain"), ("after", "own")):
            method = make_method(way, self.system)
            after, withdrawal = withdraw(devices, "unshare", forget)
            engine, watch = engine_of(method, after), Stopwatch()
            result = method.server.unlearn(trained, withdrawal, engine, seed=self.seed)
            out[f"seconds_{name}"] = round(watch.seconds, 2)
            out[f"bytes_{name}"] = engine.traffic.up + engine.traffic.down
            out[f"rounds_{name}"] = engine.traffic.rounds
            out |= self._figures(name, result, after, forget)
            if name == "oracle":
                out["fru_log_bytes"] = engine.traffic.up
        out["memory_bytes"] = trained.memory.nbytes
        gap = out["rank_oracle"] - out["rank_before"]
        out["gap"], out["closed"] = gap, (out["rank_after"] - out["rank_before"]) / gap
        out["recall_ratio"] = out["recall@20_after"] / out["recall@20_oracle"]
        out["speedup"] = out["seconds_oracle"] / out["seconds_after"]
        out["memory_of_fru"] = out["memory_bytes"] / out["fru_log_bytes"]
        return out

    def _figures(self, name: str, trained: Trained, devices: MemoryDevices, forget: Interactions) -> dict[str, float]:
        model = reader_of(self.system, trained, devices)
        found = evaluate(model, self.train, self.test).mean()
        rank = float(percentile_ranks(model, self.train, forget).mean())
        return {f"{key}_{name}": value for key, value in {**found, "rank": rank}.items()}


def main() -> None:
    """Run what is missing and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    usual = [*(f"share{r:g}" for r in RATIOS), "halves", "unlearning", *OTHERS, "exact", "central", "paper"]
    parser.add_argument("--only", default=",".join(usual))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fedshare-ml-1m.jsonl"))
    options = parser.parse_args()
    train, test = load(source("ml-1m")).split()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for seed in (int(part) for part in options.seeds.split(",")):
        bench = Bench(train, test, seed)
        runs: dict[str, Callable[[], dict[str, Any]]] = {
            "unlearning": bench.unlearning,
            "halves": bench.halves,
            "central": bench.central,
            "exact": bench.exact,
            "paper": bench.paper,
            **{name: lambda name=name, bench=bench: bench.other(name) for name in OTHERS},  # type: ignore[misc]
            **{f"share{ratio:g}": lambda ratio=ratio, bench=bench: bench.sharing(ratio) for ratio in RATIOS},  # type: ignore[misc]
        }
        for name in options.only.split(","):
            known = any(row["run"] == name and row["seed"] == seed for row in done)
            if known or (name == "paper" and seed):
                continue
            row = {"run": name, "seed": seed, "threads": torch.get_num_threads(), **runs[name]()}
            done.append(row)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    summarise(done)


def summarise(rows: list[dict[str, Any]]) -> None:
    """Print mean ± deviation over the seeds of every figure."""
    for name in dict.fromkeys(row["run"] for row in rows):
        same = [row for row in rows if row["run"] == name]
        print(f"\n{name} ({len(same)} seeds)")
        for key in same[0]:
            if key not in ("run", "seed", "threads"):
                values = np.array([row[key] for row in same], dtype=float)
                print(f"  {key:24s} {values.mean():.6g} ± {values.std(ddof=1) if len(values) > 1 else 0:.2g}")


if __name__ == "__main__":
    main()
