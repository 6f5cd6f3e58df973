"""Clients per second of the local engine against one client at a time, both on FedShare's client task.

    make bench

Uses ML-100K from ../shared/data (or RETRACT_DATA) where it is, else MovieLens-small from the demo extra.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

import numpy as np
import torch

from benchmarks.common import source
from retract.data import Sharing, load
from retract.federation import Broadcast, Clients, LocalEngine
from retract.systems.fedshare import FedShareConfig
from retract.systems.fedshare.client import LocalEpoch
from tests.systems.fedshare_oracle import run_one_client


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=10, help="rounds of the engine; the median is reported")
    parser.add_argument("--one-by-one", type=int, default=100, help="clients given to the slow loop")
    options = parser.parse_args()
    file = source("ml-100k")
    data = load(file if file.exists() else "movielens-small")
    train, _ = data.split(seed=0)
    config = FedShareConfig()
    tables = torch.randn(2, train.n_items, config.dimension, generator=torch.Generator().manual_seed(0)) * 0.1
    broadcast = Broadcast(0, {"items": tables[0], "global_items": tables[1], "coverage": torch.tensor(0.5)})
    engine, task = LocalEngine(Clients(Sharing.by_ratio(train, 0.5))), LocalEpoch(config)
    users = engine.users
    engine.run(task, broadcast, users, seed=0)
    seconds = []
    for _ in range(options.repeat):
        began = time.perf_counter()
        engine.run(task, broadcast, users, seed=0)
        seconds.append(time.perf_counter() - began)
    chosen = users[np.linspace(0, len(users) - 1, options.one_by_one).astype(int)]
    start = task.start(chosen, 0)
    began = time.perf_counter()
    for row, user in enumerate(chosen):
        state = {name: rows[row] for name, rows in start.items()}
        run_one_client(int(user), train.items_of(user), state, broadcast, config, 0)
    slow = len(chosen) / (time.perf_counter() - began)
    fast = len(users) / statistics.median(seconds)
    result = {
        "data": data.name,
        "clients": len(users),
        "positives": len(train),
        "dimension": config.dimension,
        "negatives_per_positive": config.negatives,
        "clients_per_second": round(fast),
        "one_at_a_time_per_second": round(slow, 1),
        "ratio": round(fast / slow, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
