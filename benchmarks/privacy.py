"""Privacy of rounds: what secure sums cost, accuracy by epsilon, and what a norm bound does against poison.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.privacy

Every run is one JSON line in --out, printed as it is measured; a second call skips what is there.

secure      FedShare on ML-1M, 100 clients: one round of each task, plain and under masks, dense and in buckets
stages      clients a second with and without stages
grids       FedShare on ML-100K trained by the sums that these forms give
exact       Exact's sums on ML-100K and ML-1M with noise of the server: Recall@20 and NDCG@20 by epsilon
fedshare    FedShare's rounds likewise, on ML-100K and on ML-1M
poisoning   FedShare on MovieLens-small, 5 % of the clients send a hundred times their update, with and without a bound
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.noise import exact, fedshare, plot
from benchmarks.poisoning import poisoned
from benchmarks.secure_sums import FORMS, Row, grids, secure, stages
from retract.data import Sharing, load
from retract.evaluation.ranking import evaluate
from retract.federation import Engine, LocalEngine
from retract.federation.privacy import (
    NormBound,
    RobustEngine,
    TrimmedMean,
)
from retract.stores.devices import MemoryDevices
from retract.stores.local import reader_of
from retract.systems.base import Stopwatch
from retract.systems.registry import make_system

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


def studies(seeds: list[int]) -> dict[str, Callable[[], Iterator[Row]]]:
    """All studies by name, each giving its rows."""

    def secured() -> Iterator[Row]:
        for form in FORMS:
            yield {"run": "secure", "form": form, **secure(form)}

    def attacked(seed: int) -> Iterator[Row]:
        for attack in ATTACKS:
            yield {"run": "poisoning", "form": attack, **poisoning(attack, seed)}

    found: dict[str, Callable[[], Iterator[Row]]] = {"secure": secured, "stages": stages}
    for seed in seeds:
        for name, exponent in (("ml-100k", 0.5), ("ml-100k", 1.0), ("ml-1m", 1.0)):
            found[f"exact-{name}-{exponent:g}-{seed}"] = partial(exact, name, exponent, seed)
        found |= {f"fedshare-{name}-{seed}": partial(fedshare, name, seed) for name in ("ml-100k", "ml-1m")}
        found[f"grids-{seed}"] = partial(grids, seed)
        found[f"poisoning-{seed}"] = partial(attacked, seed)
    return found


def main() -> None:
    """Run the studies that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", default="", help="studies whose names begin with one of these, comma-separated")
    parser.add_argument("--plot", type=Path, help="draw accuracy by epsilon of what was measured into this SVG file")
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
    if options.plot is not None:
        plot([json.loads(line) for line in options.out.read_text().splitlines()], options.plot)


if __name__ == "__main__":
    main()
