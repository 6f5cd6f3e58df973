"""Accuracy by epsilon, for `benchmarks.privacy`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import source
from benchmarks.secure_sums import Row, Silent
from retract.data import Interactions, Sharing, load
from retract.evaluation.ranking import evaluate
from retract.federation import Broadcast, Engine, LocalEngine, RoundResult, TaskSpec, Traffic, Update
from retract.federation.privacy import (
    Accountant,
    Clip,
    Keyed,
    PrivateEngine,
    ServerNoise,
    Shrink,
    Stage,
    staged,
)
from retract.federation.privacy.bounds import BELOW
from retract.models.gram import UNIT, rows, user_weights, weighted_gram
from retract.models.recommender import Scores
from retract.stores.devices import MemoryDevices
from retract.stores.local import reader_of
from retract.systems.registry import make_system

DELTA = 1e-5
MULTIPLIERS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Noise over a client's bound, of all rounds together; 0 is clipping alone."""


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


def noisy(
    engine: Engine, clip: Clip, multiplier: float, rounds: int, seed: int, shrink: bool = False
) -> tuple[Engine, Accountant]:
    """An engine whose rounds together have a noise multiplier; and who accounts for them."""
    accountant = Accountant(1e9, DELTA)
    if not multiplier:
        return Silent(engine, clip), accountant
    noise = ServerNoise(multiplier * rounds**0.5)
    stages: list[Stage] = [clip, Shrink(noise), noise] if shrink else [clip, noise]
    return PrivateEngine(engine, stages, accountant, Keyed(1000 + seed)), accountant


class ClippedTerms:
    """What `Replayed` gives for Exact, made of a weighted Gram matrix at once: clients' terms are too large one by one.

    A client's term has one value, ω, wherever it is not zero. So clipping scales ω, and the sum is the same to the last
    bit (see the test).
    """

    def __init__(self, train: Interactions, bound: float, exponent: float) -> None:
        self.users, self.traffic = train.active_users(), Traffic()
        degrees = train.user_degrees().astype(np.float64)
        weights = user_weights(train.user_degrees(), exponent)
        norms = weights * (degrees * (degrees + 1) / 2) ** 0.5
        scaled = np.trunc(weights * (BELOW * bound / np.maximum(norms, bound) / UNIT)) * UNIT
        self.gram = weighted_gram(rows(train), np.where(norms > bound, scaled, weights)).toarray()

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        return users

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        return RoundResult(Update(spec.update, {"gram": self.gram}, len(users)), users, users[:0], 0, 0)


def exact(name: str, exponent: float, seed: int) -> Iterator[Row]:
    """Exact's sum over clients, all private, with noise of the server; λ lifted to where the noise is."""
    train, test = load(source(name)).split(seed=seed)
    middle = float(np.median(train.user_degrees()[train.active_users()]))
    bound = round(middle**-exponent * (middle * (middle + 1) / 2) ** 0.5, 3)  # the norm of a triangle of such a user
    clip, settings = Clip({"gram": bound}), {"form": "ease", "count_private": True, "ease_exponent": exponent}
    devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
    engine: Engine = ClippedTerms(train, bound, exponent)
    if name == "ml-100k":
        engine = Replayed(LocalEngine(devices, staged(make_system("exact").device.tasks, [clip], Keyed(seed))))
    yield {"run": "exact", "form": "popularity", **evaluate(Counted(train), train, test).mean()}
    plain = 50.0 * middle ** (0.5 - exponent)
    for shrink, multiplier in [*product((False,), MULTIPLIERS), *product((True,), MULTIPLIERS[1:])]:
        # The spectral norm of a symmetric n x n matrix of such noise is about 2σ√n.
        ridge = plain if shrink else plain + 2.2 * multiplier * bound * train.n_items**0.5
        system = make_system("exact", {**settings, "ridge": ridge})
        private, accountant = noisy(engine, clip, multiplier, 1, seed, shrink)
        form = f"α = {exponent:g}, {'shrunk' if shrink else 'λ lifted'}"
        row = {"run": "exact", "form": form, "multiplier": multiplier, "ridge": round(ridge, 2)}
        trained = system.server.train(devices.sharing.shared, private, seed=seed)
        figures = evaluate(reader_of(system, trained, devices), train, test).mean()
        yield {**row, "epsilon": round(accountant.epsilon, 3) if multiplier else None, **figures}


SMALL = {"dimension": 16, "oversampling": 4, "start_rounds": 3, "rounds": 1}
"""As few rounds and columns as still say something: every one of them takes noise."""
PROJECTIONS = {"ml-100k": 0.045, "ml-1m": 0.013}
"""About the median norm of a client's product, after the first round."""


def medians(name: str, train: Interactions) -> Clip:
    """Bounds of about the medians of what clients send, as if known; products and gradients get the most."""
    degrees = train.user_degrees()[train.active_users()]
    middle = float(np.median(degrees))
    bounds = {"projection": PROJECTIONS[name], "degrees": middle**0.5, "weights": 0.1}
    bounds |= {"item_gradient": 1.5, "weight": middle**0.5, "interactions": middle}
    return Clip(bounds, {"projection": 8.0, "item_gradient": 8.0})


def fedshare(name: str, seed: int) -> Iterator[Row]:
    """FedShare's rounds, nothing shared, with noise of the server in each."""
    train, test = load(source(name)).split(seed=seed)
    whole = make_system("fedshare")
    devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
    yield {"run": "fedshare", "form": "popularity", **evaluate(Counted(train), train, test).mean()}
    trained = whole.server.train(devices.sharing.shared, LocalEngine(devices, whole.device.tasks), seed=seed)
    figures = evaluate(reader_of(whole, trained, devices), train, test).mean()
    yield {"run": "fedshare", "form": "defaults, neither clipped nor noised", **figures}
    system, clip = make_system("fedshare", SMALL), medians(name, train)
    tasks = staged(system.device.tasks, [clip], Keyed(seed))
    for multiplier in MULTIPLIERS:
        devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
        rounds = SMALL["start_rounds"] + SMALL["rounds"]
        private, accountant = noisy(LocalEngine(devices, tasks), clip, multiplier, rounds, seed)
        trained = system.server.train(devices.sharing.shared, private, seed=seed)
        figures = evaluate(reader_of(system, trained, devices), train, test).mean()
        epsilon = round(accountant.epsilon, 3) if multiplier else None
        row = {"run": "fedshare", "form": "d = 16, 3 + 1 rounds", "multiplier": multiplier, "epsilon": epsilon}
        yield {**row, **figures}


def plot(measured: list[Row], path: Path) -> None:
    """Recall@20 by epsilon, a line for each study, dotted where popularity alone is."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "retract"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
    for data, part in zip(("ml-100k", "ml-1m"), axes, strict=True):
        of_data = [row for row in measured if row["run"] in ("exact", "fedshare") and data in row["study"]]
        for run, form in dict.fromkeys((row["run"], row["form"]) for row in of_data if row.get("epsilon")):
            points = [row for row in of_data if (row["run"], row["form"]) == (run, form) and row["epsilon"]]
            label = f"{run}, {form}"
            part.plot([row["epsilon"] for row in points], [row["recall@20"] for row in points], "o-", label=label)
        known = {row["form"]: row["recall@20"] for row in of_data if "multiplier" not in row}
        for (form, height), style in zip(known.items(), (":", "--"), strict=True):
            part.axhline(height, color="gray", linestyle=style, label="FedShare without noise" if "," in form else form)
        part.set(xscale="log", xlabel=f"ε at δ = {DELTA:g}", title=data)
        part.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    axes[0].set_ylabel("Recall@20")
    figure.savefig(path, metadata={"Date": None})
