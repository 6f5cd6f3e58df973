"""Looking at a training from outside, and at a model with the server's eyes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions
from retract.evaluation.ranking import evaluate
from retract.federation import Broadcast, Clients, ClientTask, LocalEngine, Update
from retract.models.recommender import read_history
from retract.report.facts import CurvePoint
from retract.systems.base import System, Trained
from retract.systems.fedshare import FedShareConfig
from retract.systems.fedshare.server import SharedGraph


@dataclass(frozen=True)
class Moment:
    """What was published at the start of a round, and what the clients kept then."""

    round: int
    published: Mapping[str, Tensor]
    clients: Clients


class ObservedEngine(LocalEngine):
    """A local engine that keeps what passes through it at some rounds; the training is the same.

    Parameters
    ----------
    clients
        The devices to run on.
    rounds
        The rounds to keep.
    """

    def __init__(self, clients: Clients, rounds: Collection[int]) -> None:
        super().__init__(clients)
        self.rounds = rounds
        self.moments: list[Moment] = []

    def run(self, task: ClientTask, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> Update:
        """Keep the moment if it is one to keep, and run the task."""
        if broadcast.round in self.rounds:
            published = {name: table.detach().clone() for name, table in broadcast.tensors.items()}
            state = {name: rows.clone() for name, rows in self.clients.state.items()}
            kept = Clients(self.clients.sharing, state, self.clients.started.clone())
            self.moments.append(Moment(broadcast.round, published, kept))
        return super().run(task, broadcast, users, seed=seed)


def checkpoints(rounds: int, count: int = 8) -> tuple[int, ...]:
    """At most `count` rounds in [1, rounds), denser at the start, where a curve bends most."""
    spaced = np.linspace(0, 1, count + 1)[1:-1] ** 1.6 * rounds
    return tuple(sorted({max(1, int(r)) for r in spaced.round()} - set(range(rounds, rounds + 2))))


def training_curve(
    system: System, trained: Trained, engine: ObservedEngine, history: Interactions, test: Interactions, k: int
) -> tuple[CurvePoint, ...]:
    """NDCG@k of what the clients had at the kept rounds."""
    points = []
    for moment in engine.moments:
        recommender = system.recommender(replace(trained, model=moment.published), moment.clients)
        points.append(CurvePoint(moment.round, evaluate(recommender, history, test, k).mean()[f"ndcg@{k}"]))
    return tuple(points)


class ServerView:
    """What the server alone could recommend: its own table read through the graph of what it holds.

    A user u scores item i by <z_u + |S_u|^{-1/2} Σ_{j in S_u} z_j, z_i>, as in the server's own training; `history`
    is S, what the server holds.

    Parameters
    ----------
    trained
        A FedShare model with something shared.
    """

    def __init__(self, trained: Trained) -> None:
        assert isinstance(trained.config, FedShareConfig)
        graph = SharedGraph(trained.shared, trained.config)
        self.users, self.items = graph.global_view(trained.memory.tensors["nodes"])

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), n_items]."""
        rows = self.users[torch.from_numpy(users)] + read_history(users, history, self.items)
        return rows @ self.items.T
