"""The backbones: time and memory of a minibatch step on a large graph, accuracy and time on ML-1M's fold.

    .venv/bin/python -m benchmarks.backbones steps                   Gowalla, batch 2048, d = 64, L = 3
    .venv/bin/python -m benchmarks.backbones accuracy --seeds 0,1,2
    .venv/bin/python -m benchmarks.backbones validation              on a tenth of the train fold, held out

Every row is one JSON line, printed and added to --out. A step's time stands beside that of 2 L sparse products, a
propagation of 2 L layers between the steps: whatever else the machine does, both have it to bear. Every row is measured
in a process of its own, so that the peak memory is its own; threads are those of OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import source
from retract.data import load
from retract.data.splits import split_per_user
from retract.evaluation.ranking import evaluate
from retract.models.learn.graph import BipartiteGraph
from retract.models.learn.pairwise import batches
from retract.models.recommender import DotProduct
from retract.systems import backbone_training
from retract.systems.backbone import BackboneConfig
from retract.systems.base import Stopwatch
from retract.systems.central import begun

NAMES = ("lightgcn", "sgl", "simgcl")
WARM_UP = 3
"""Steps before the clock counts: the graph's numbering, the views and the noise are made once."""


def main() -> None:
    """Measure what is asked for and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steps", "accuracy", "validation"))
    parser.add_argument("--backbones", default=",".join(NAMES))
    parser.add_argument("--data", help="file name in the data folder; gowalla for steps and ml-1m for accuracy")
    parser.add_argument("--seeds", default="0", help="of the trainings whose accuracy is measured")
    parser.add_argument("--steps", type=int, default=60, help="steps to time")
    parser.add_argument("--batch", type=int, default=2048, help="edges per step")
    parser.add_argument("--out", type=Path, help="also add the rows to this file")
    options = parser.parse_args()
    for name in options.backbones.split(","):
        tasks: list[tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]]
        if options.what == "steps":
            tasks = [(steps, (options.data or "gowalla", name, options.steps, options.batch))]
        else:
            seeds = [int(seed) for seed in options.seeds.split(",")]
            tasks = [(accuracy, (options.data or "ml-1m", name, seed, options.what)) for seed in seeds]
        for measure, arguments in tasks:
            with multiprocessing.get_context("spawn").Pool(1) as own_process:
                row = json.dumps(own_process.apply(measure, arguments))
            print(row, flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(row + "\n")


def steps(data: str, name: str, n_steps: int, size: int) -> dict[str, Any]:
    """Median seconds of a step, and of 2 L sparse products in the same run."""
    train, _ = load(source(data)).split(seed=0)
    config = BackboneConfig.model_validate({"backbone": name, "dimension": 64, "layers": 3, "batch": size})
    graph, loss = BipartiteGraph(train), backbone_training.make_loss(config)
    nodes = torch.from_numpy(backbone_training.start(config, train, 0)).requires_grad_()
    adam = backbone_training.optimiser(nodes, config.rate)
    taken, products = [], []
    for batch in islice(batches(train, size, 0, 0), WARM_UP + n_steps):
        watch = Stopwatch()
        backbone_training.descend(adam, loss.of_batch(graph, nodes, batch))
        taken.append(watch.seconds)
        watch = Stopwatch()
        graph.propagate(nodes.detach(), 2 * config.layers)
        products.append(watch.seconds)
    step, plain = (statistics.median(seconds[WARM_UP:]) for seconds in (taken, products))
    between = Stopwatch()
    list(batches(train, size, 0, 1))
    per_epoch = -(-len(train) // size)
    return {
        **_row("steps", data, name),
        "batch": size,
        "step_ms": round(1000 * step, 1),
        "two_l_products_ms": round(1000 * plain, 1),
        "ratio": round(step / plain, 2),
        "steps_per_epoch": per_epoch,
        "epoch_seconds": round(per_epoch * statistics.mean(taken[WARM_UP:]) + between.seconds, 1),
    }


def accuracy(data: str, name: str, seed: int, held_out: str) -> dict[str, Any]:
    """Training with the backbone's defaults, and what the held-out part says of it: the test fold, or one of train."""
    train, test = load(source(data)).split(seed=0)
    if held_out == "validation":
        train, test = split_per_user(train, 0.1, 123)
    config = BackboneConfig.model_validate({"backbone": name})
    watch = Stopwatch()
    nodes, _ = backbone_training.learn(config, train, begun(name, config, seed, None))
    seconds = watch.seconds
    tables = backbone_training.tables(config, train, nodes)
    figures = evaluate(DotProduct(tables["users"], tables["items"]), train, test).mean()
    figures = {metric: round(value, 4) for metric, value in figures.items()}
    return {**_row(held_out, data, name), "seed": seed, **figures, "train_seconds": round(seconds, 1)}


def _row(what: str, data: str, name: str) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    threads, load_before = torch.get_num_threads(), round(os.getloadavg()[0], 1)
    return {
        "run": what,
        "data": data,
        "backbone": name,
        "threads": threads,
        "load": load_before,
        "peak_mb": round(peak),
    }


if __name__ == "__main__":
    main()
