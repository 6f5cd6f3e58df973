"""Looking at a training from outside, and at a model with the server's eyes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.evaluation.ranking import evaluate
from retract.federation import Arrays, Broadcast, Kept, LocalEngine, RoundResult, TaskSpec
from retract.report.facts import CurvePoint
from retract.stores.devices import MemoryDevices
from retract.systems.base import Published, Trained
from retract.systems.fedshare.config import EPOCH, FedShareConfig
from retract.systems.system import System


@dataclass(frozen=True)
class Snapshot:
    """What was published at the start of a round, and what the devices kept then."""

    round: int
    tables: Arrays
    kept: Kept


class ObservedEngine:
    """An engine that keeps what passes through it at some rounds of local epochs; the training is the same.

    Parameters
    ----------
    inner
        The engine that does the work.
    devices
        Those that it reaches.
    rounds
        The rounds to keep.
    """

    def __init__(self, inner: LocalEngine, devices: MemoryDevices, rounds: Collection[int]) -> None:
        self.inner, self.devices, self.rounds, self.traffic = inner, devices, rounds, inner.traffic
        self.snapshots: list[Snapshot] = []

    @property
    def users(self) -> NDArray[np.int64]:
        """The user codes that can be asked, ascending."""
        return self.inner.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user."""
        return self.inner.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Keep the round's start if it is one to keep, and run the task."""
        if spec.task == EPOCH and broadcast.round in self.rounds:
            tables = {name: np.array(table) for name, table in broadcast.tables.items()}
            self.snapshots.append(Snapshot(broadcast.round, tables, self.devices.copy().kept(spec.run)))
        return self.inner.run(spec, broadcast, users, seed=seed)


def checkpoints(config: FedShareConfig, count: int = 8) -> tuple[int, ...]:
    """At most `count` rounds of local epochs, the first one among them, denser where a curve bends most."""
    spaced = np.linspace(0, 1, count, endpoint=False) ** 1.6 * config.rounds
    return tuple(sorted({config.first_epoch + int(round) for round in spaced.round()}))


def training_curve(
    system: System,
    trained: Trained,
    snapshots: list[Snapshot],
    history: Interactions,
    test: Interactions,
    k: int,
) -> tuple[CurvePoint, ...]:
    """NDCG@k of what the devices had at the kept rounds, beside what the server makes of what is shared."""
    points = []
    for one in snapshots:
        tables = {**trained.model, "items": one.tables["items"]}
        model = Published(trained.system, trained.config, trained.seed, trained.run, tables)
        found = evaluate(system.device.reader(model, one.kept), history, test, k)
        points.append(CurvePoint(one.round, found.mean()[f"ndcg@{k}"]))
    return tuple(points)
