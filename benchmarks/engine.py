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
from retract.federation import Broadcast
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of
from retract.systems.base import new_run, task_spec
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.fedshare.config import EPOCH, NAME, epoch_update
from retract.systems.fedshare.local_epoch import LocalEpoch
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
    items = np.random.default_rng(0).normal(scale=0.1, size=(train.n_items, config.dimension)).astype(np.float32)
    public = {"items": items, "coverage": np.asarray(0.5, dtype=np.float32)}
    engine = engine_of(FEDSHARE(config), MemoryDevices(Sharing.by_ratio(train, 0.5)))
    spec = task_spec(config, NAME, EPOCH, new_run(), epoch_update(train.n_items, config.dimension))
    users = engine.users
    engine.run(spec, Broadcast(0, public), users, seed=0)
    seconds = []
    for number in range(1, options.repeat + 1):
        began = time.perf_counter()
        engine.run(spec, Broadcast(number, public), users, seed=0)
        seconds.append(time.perf_counter() - began)
    chosen = users[np.linspace(0, len(users) - 1, options.one_by_one).astype(int)]
    start, broadcast = LocalEpoch(spec).start(chosen, train.n_items, 0), Broadcast(0, public)
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
