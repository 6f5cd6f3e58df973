"""PersonalFR: accuracy against joint and FedAvg, traffic, work, speed against one dense model per client, forgetting.

    .venv/bin/python -m benchmarks.personalfr explicit --seeds 0,1,2     ML-100K, 90 % to train on
    .venv/bin/python -m benchmarks.personalfr explicit --clients 100     … dealt among 100 clients
    .venv/bin/python -m benchmarks.personalfr small --seeds 0,1,2        MovieLens-small likewise
    .venv/bin/python -m benchmarks.personalfr thinned --seeds 0,1,2      ML-100K, 8 ratings of each user to train on
    .venv/bin/python -m benchmarks.personalfr implicit                   ML-1M's fold
    .venv/bin/python -m benchmarks.personalfr gowalla --modes closed
    .venv/bin/python -m benchmarks.personalfr speed                      paper form: 6,040 clients, together and alone
    .venv/bin/python -m benchmarks.personalfr forget --seeds 0,1,2       ML-100K, 5 % of the users erase everything
    .venv/bin/python -m benchmarks.personalfr forget-implicit            ML-1M likewise
    .venv/bin/python -m benchmarks.personalfr forget --modes personal    … the paper's form

Every row is one JSON line in --out, printed as it is measured, each from a process of its own so that peak memory is
its own; a second call skips what is there. Of the modes, `closed` is the usual form; `personal`, `fedavg` and `joint`
are of the paper's; `lightgcn` and, where scikit-surprise is installed, `biases`, `svd`, `svdpp` and `knn` learn from
pooled data. `thinned-implicit` leaves the ratings out. `--validation` holds out a tenth of the train part instead: what
settings were tuned on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import mean_and_spread, source, thinned
from retract.auditing.cell import Cell
from retract.data import Interactions, Sharing, load
from retract.data.splits import split_per_user
from retract.federation import Cohort, sample_clients
from retract.models.learn.autoencoder import initial
from retract.models.widths import ENCODER
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of
from retract.stores.measuring import measure
from retract.systems.base import Stopwatch
from retract.systems.personalfr import PERSONALFR, PersonalFRConfig
from retract.systems.personalfr.asking import census
from retract.systems.personalfr.encoding import Histories, Wanted, tensors
from retract.systems.personalfr.paper_rounds import RoundServer, training_spec
from retract.systems.registry import make_system
from tests.systems.personalfr_oracle import train_one_client

PAPER = ("personal", "fedavg", "joint")
MODES = ("closed", *PAPER)
POOLED = ("biases", "svd", "svdpp", "knn")
"""Models of scikit-surprise, with its own defaults."""
DATA = {
    "explicit": "ml-100k",
    "small": "movielens-small",
    "thinned": "ml-100k",
    "thinned-implicit": "ml-100k",
    "implicit": "ml-1m",
    "gowalla": "gowalla",
}
ONE_BY_ONE = 40
"""Clients given to the slow loop."""


def parts(what: str, seed: int, validation: bool) -> tuple[Interactions, Interactions]:
    """What is trained on and what is judged: a tenth of a file, or its own fold."""
    name = DATA[what]
    train, test = load(name if name.startswith("movielens") else source(name)).split(seed=seed, test=0.1)
    if validation:
        train, test = split_per_user(train, 0.1, 99)
    train = thinned(train, 8, seed) if what.startswith("thinned") else train
    return (_unrated(train), _unrated(test)) if what == "thinned-implicit" else (train, test)


def _unrated(data: Interactions) -> Interactions:
    return Interactions.of(data.catalog, data.users, data.items)


def settings_of(mode: str) -> dict[str, str]:
    """Of the system in a mode."""
    return {"form": "paper", "mode": mode} if mode in PAPER else {}


def pooled(mode: str, train: Interactions, test: Interactions, seed: int) -> dict[str, Any]:
    """RMSE of a model of scikit-surprise, which holds everybody's ratings."""
    import pandas as pd
    import surprise

    kinds = (surprise.BaselineOnly, surprise.SVD, surprise.SVDpp, surprise.KNNBaseline)
    makers = dict(zip(POOLED, kinds, strict=True))
    by_item = {"sim_options": {"name": "pearson_baseline", "user_based": False}} if mode == "knn" else {}
    seeded = {"random_state": seed} if mode.startswith("svd") else {}
    assert train.ratings is not None
    assert test.ratings is not None
    scale = float(train.ratings.min()), float(train.ratings.max())
    rows = pd.DataFrame({"user": train.users, "item": train.items, "rating": train.ratings})
    held = surprise.Dataset.load_from_df(rows, surprise.Reader(rating_scale=scale)).build_full_trainset()
    watch = Stopwatch()
    model = makers[mode](verbose=False, **by_item, **seeded).fit(held)
    said = [model.predict(*pair).est for pair in zip(test.users.tolist(), test.items.tolist(), strict=True)]
    return {"rmse": float(np.sqrt(np.mean((said - test.ratings) ** 2))), "train_seconds": round(watch.seconds, 1)}


def accuracy(about: Mapping[str, Any]) -> dict[str, Any]:
    """One training, its figures and its traffic; how well they are served who join later beside it."""
    seed = about["seed"]
    train, test = parts(about["run"], seed, about.get("validation", False))
    mode = about["mode"]
    if mode in POOLED:
        return pooled(mode, train, test, seed)
    given = {**settings_of(mode), **about["settings"]}
    system = make_system("lightgcn" if mode == "lightgcn" else "personalfr", given)
    sharing = Sharing.by_ratio(train, 1.0 if mode == "lightgcn" else 0.0)
    devices = MemoryDevices(sharing.held_by(about["clients"], seed) if "clients" in about else sharing)
    engine, watch = engine_of(system, devices), Stopwatch()
    trained = system.server.train(devices.sharing.shared, engine, seed=seed)
    seconds, traffic = watch.seconds, engine.traffic
    measured = measure(reader_of(system, trained, devices), train, test)
    if mode == "lightgcn":
        return {**measured, "train_seconds": round(seconds, 1)}
    joined = measure(reader_of(system, trained, MemoryDevices(devices.sharing)), train, test)
    return {
        **measured,
        **{f"{name} of who joins": value for name, value in joined.items()},
        "train_seconds": round(seconds, 1),
        "rounds": traffic.rounds,
        "mb_up_per_client": round(traffic.up / len(np.unique(engine.clients_of(engine.users))) / 1e6, 3),
        "updates_per_second": round(traffic.updates / traffic.seconds),
        "bytes_up_per_update": round(traffic.up / traffic.updates),
        "bytes_down_per_update": round(traffic.down / traffic.updates),
    }


def speed() -> dict[str, Any]:
    """The paper's form: updates per second of all users of ML-1M, and of a loop over some, a dense model each."""
    train, _ = load(source("ml-1m")).split()
    config = PersonalFRConfig(form="paper").resolved("implicit")
    engine = engine_of(PERSONALFR(config), MemoryDevices(Sharing.by_ratio(train, 0.0)))
    server = RoundServer(config, census(engine, config, train.n_items, "speed", 0), 0, "speed")
    broadcasts, spec = [server.broadcast(round, 1.0) for round in range(2)], training_spec(server, engine)
    engine.run(spec, broadcasts[0], engine.users, seed=0)  # makes the clients' state
    watch = Stopwatch()
    engine.run(spec, broadcasts[1], engine.users, seed=0)
    vectorised = len(engine.users) / watch.seconds
    chosen = sample_clients(engine, ONE_BY_ONE / len(engine.users), 0, 0)
    tables = {**initial(ENCODER, train.n_items, config.widths, 0), **tensors(server.tables)}
    watch = Stopwatch()
    for user in chosen:
        items = train.items_of(user)
        values = np.ones(len(items), dtype=np.float32)
        train_one_client(user, items, values, tables, config, train.n_items, rate=config.rate, seed=0, round=0)
    alone = len(chosen) / watch.seconds
    work = multiply_adds(config, train)
    return {
        "clients": len(engine.users),
        "updates_per_second": round(vectorised),
        "one_by_one_per_second": round(alone, 1),
        "times_faster": round(vectorised / alone, 1),
        **work,
    }


def multiply_adds(config: PersonalFRConfig, train: Interactions) -> dict[str, float]:
    """Multiply-adds of a mean client update on ML-1M: as done here, and dense as FedAvg does it."""
    cohort = Cohort.of(train, train.active_users())
    histories = Histories.of(cohort, explicit=False, mean=0.0)
    wanted = float(Wanted.of(cohort, histories, config, 0, 0).sizes.double().mean())
    held, hidden, code, steps = cohort.degrees.mean(), config.hidden, config.code, config.local_epochs
    inner, between = 2 * hidden * code, hidden + code
    corrections = steps * (steps - 1) // 2
    active = (
        held * hidden  # the first layer is read once
        + steps * (2 * inner + 2 * wanted * hidden)  # forward and back
        + corrections * (2 * 2 * between + 2 * hidden + 2 * wanted)  # what the steps before have moved
        + steps * (inner + wanted * hidden)  # the steps, written down
    )
    dense = steps * (3 * inner + 2 * train.n_items * hidden + 3 * train.n_items * hidden)
    return {"multiply_adds": round(active), "multiply_adds_dense": dense, "part": round(active / dense, 4)}


def forget(name: str, seed: int, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One in twenty users erases everything: by our own way and by naive deletion, against the oracle."""
    dataset = load(source(name))
    if dataset.is_test is None:
        train, _ = dataset.split(seed=seed, test=0.1)
        dataset = replace(dataset, is_test=~train.contains(dataset.interactions))
    given = {key: str(value) for key, value in settings.items()}
    cell = Cell("personalfr", given, "users:0.05", "erase", 0.5, seed)
    return list(cell.run(dataset, ("own", "naive")))


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*DATA, "speed", "forget", "forget-implicit", "show"))
    parser.add_argument("--modes", default="", help="Of data sets the forms; of speed the paper's; else closed.")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings other than defaults")
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--clients", type=int, help="deal the users among so many; every user is one unless given")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/personalfr.jsonl"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.what == "show":
        show(rows)
        return
    settings = dict(part.split("=", 1) for part in options.set)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for seed in seeds:
        usual = MODES if options.what in DATA else ("personal" if options.what == "speed" else "closed",)
        for mode in options.modes.split(",") if options.modes else usual:
            about = {"run": options.what, "mode": mode, "seed": seed, "settings": settings}
            about |= {"validation": True} if options.validation else {}
            about |= {"clients": options.clients} if options.clients else {}
            if any(_about(row) == about for row in rows):
                continue
            with multiprocessing.get_context("spawn").Pool(1) as own_process:
                for row in own_process.apply(measured, (about,)):
                    print(json.dumps(row), flush=True)
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")


def _about(row: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for in a row."""
    return {key: row[key] for key in ("run", "mode", "seed", "settings", "validation", "clients") if key in row}


def measured(about: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one run, with what the process took."""
    what, seed = about["run"], about["seed"]
    settings = {**settings_of(about["mode"]), **about["settings"]}
    if what in DATA:
        found = [accuracy(about)]
    elif what == "speed":
        found = [speed()]
    else:
        found = forget(DATA["implicit" if what == "forget-implicit" else "explicit"], seed, settings)
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return [{**about, "threads": torch.get_num_threads(), **row, "peak_mb": peak} for row in found]


def _kind(row: Mapping[str, Any]) -> str:
    """A row's mode, and what else it was asked for."""
    return " ".join(
        [row["mode"], *(f"{key}={row[key]}" for key in ("settings", "validation", "clients") if row.get(key))]
    )


def show(rows: list[dict[str, Any]]) -> None:
    """Print mean ± deviation over the seeds as Markdown tables."""
    plain = [row for row in rows if not (row["settings"] or "validation" in row or "clients" in row)]
    for what in DATA:
        names = ["rmse", "rmse of who joins", "recall@20", "ndcg@20", "ndcg@20 of who joins", "rounds"]
        names += ["mb_up_per_client", "train_seconds", "updates_per_second", "peak_mb"]
        print(f"\n| {what} | seeds | {' | '.join(names)} |\n|{'---|' * (2 + len(names))}")
        for key in dict.fromkeys(_kind(row) for row in rows if row["run"] == what):
            of = [row for row in rows if row["run"] == what and _kind(row) == key]
            found = ([row[name] for row in of if name in row] for name in names)
            cells = [key, str(len(of)), *(mean_and_spread(values) if values else "" for values in found)]
            print(f"| {' | '.join(cells)} |")
    for what, metric in (("forget", "rmse"), ("forget-implicit", "ndcg@20")):
        names = [f"attack_auc_{when}" for when in ("before", "after", "oracle")]
        names += [f"{metric}_before", f"{metric}_after", f"{metric}_oracle", "seconds", "oracle_seconds", "speedup"]
        print(f"\n| {what} | seeds | {' | '.join(names)} | worst gap | kept |\n|{'---|' * (4 + len(names))}")
        for mode, method in [(mode, method) for mode in MODES for method in ("own", "naive")]:
            asked = (what, mode, method)
            if of := [row for row in plain if (row["run"], row["mode"], row.get("method")) == asked]:
                worst = max(abs(row["attack_auc_after"] - row["attack_auc_oracle"]) for row in of)
                cells = [
                    f"{mode} {method}",
                    str(len(of)),
                    *(mean_and_spread([row[name] for row in of]) for name in names),
                ]
                print(f"| {' | '.join(cells)} | {worst:.4f} | {of[0]['memory_bytes']} B |")
    for row in (row for row in plain if row["run"] == "speed"):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
