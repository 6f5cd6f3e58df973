"""FedShare as a system: train, unlearn, recommend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from retract import streams
from retract.data import Interactions
from retract.errors import DataError
from retract.federation import Clients, Engine
from retract.models.recommender import Recommender
from retract.systems.base import Memory, Objective, Progress, Stopwatch, Trained, Withdrawal, no_progress
from retract.systems.fedshare.client import FedShareRecommender, LocalEpoch
from retract.systems.fedshare.config import FedShareConfig
from retract.systems.fedshare.server import Server, SharedGraph
from retract.systems.fedshare.unlearning import ContrastiveUnlearning


class FedShare:
    """Federated recommendation with user-chosen sharing (Qu et al., arXiv 2603.11610, 2026).

    Parameters
    ----------
    config
        Settings; the defaults fit MovieLens.
    """

    name = "fedshare"

    def __init__(self, config: FedShareConfig | None = None) -> None:
        self.config = config if config is not None else FedShareConfig()

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Alternate steps on the shared graph and rounds of the clients, from scratch.

        Raises
        ------
        DataError
            If fewer than two users hold an interaction.
        """
        if len(engine.users) < 2:
            raise DataError("fedshare learns from several users: the data has fewer than two with an interaction")
        engine.reset()
        config, task = self.config, LocalEpoch(self.config)
        server = Server(shared, config, seed)
        snapshots: list[dict[str, Tensor]] = []
        keep = snapshot_rounds(config.rounds, config.snapshots)
        log: list[dict[str, Any]] = []
        for number in range(config.rounds):
            watch = Stopwatch()
            run_round(server, engine, task, number, sample_clients(engine, config.participation, seed, number))
            if number in keep:
                snapshots.append(server.tables())
            log.append({"stage": "train", "round": number, "seconds": round(watch.seconds, 4)})
            progress("training", number + 1, config.rounds)
        return finish(self.name, server, shared, snapshots, tuple(log))

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Contrastive unlearning on the server, then a few rounds of the clients on what is left.

        The result keeps one snapshot, its own tables: the older ones were made with what is now withdrawn.
        """
        config, watch = self.config, Stopwatch()
        forget, retained = withdrawal.forget, trained.shared - withdrawal.forget
        tables = tables_of(trained)
        total = config.unlearn_steps + config.unlearn_rounds
        if len(forget) and len(retained):
            unlearning = ContrastiveUnlearning(retained, forget, tables, snapshots_of(trained), config, seed)
            for number in range(config.unlearn_steps):
                unlearning.step(number)
                progress("unlearning", number + 1, total)
            tables["nodes"] = unlearning.nodes.detach()
        server = self._continue(tables, retained, engine, config.unlearn_rounds, seed, progress, config.unlearn_steps)
        record = {"stage": "unlearn", "request": withdrawal.request_id, "seconds": round(watch.seconds, 4)}
        return finish(self.name, server, retained, [server.tables()], (*trained.log, record))

    def resume(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        rounds: int,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """More rounds at the rates of unlearning: those of training would jolt tables that have settled."""
        watch, tables = Stopwatch(), tables_of(trained)
        server = self._continue(tables, shared, engine, rounds, seed, progress)
        record = {"stage": "resume", "rounds": rounds, "seconds": round(watch.seconds, 4)}
        return finish(self.name, server, shared, [server.tables()], (*trained.log, record))

    def nodes(self, trained: Trained) -> Tensor:
        """The server's own table E."""
        return trained.memory.tensors["nodes"]

    def objective(self, shared: Interactions, *, seed: int, among: Interactions | None = None) -> Objective:
        """BPR on the shared graph, and L2; the contrast with Q is left out."""
        graph = SharedGraph(shared, self.config)
        mask = None if among is None else among.contains(shared)

        def loss(nodes: Tensor, step: int) -> Tensor:
            ranking = graph.ranking_loss(*graph.global_view(nodes), seed, step, mask)
            return ranking if among is not None else ranking + graph.penalty(nodes)

        return loss

    def with_nodes(self, trained: Trained, nodes: Tensor, shared: Interactions) -> Trained:
        """Q as it was, E replaced."""
        server = Server(shared, self.config, trained.seed, {"items": trained.model["items"], "nodes": nodes})
        server.coverage = float(trained.model["coverage"])
        return finish(self.name, server, shared, [server.tables()], trained.log)

    def _continue(
        self,
        tables: Mapping[str, Tensor],
        shared: Interactions,
        engine: Engine,
        rounds: int,
        seed: int,
        progress: Progress,
        done: int = 0,
    ) -> Server:
        """The server after more rounds from `tables`; `done` steps of other work count as progress."""
        config, task = self.config, LocalEpoch(self.config)
        quiet = config.model_copy(update={"item_rate": config.unlearn_item_rate, "server_rate": config.unlearn_rate})
        server = Server(shared, quiet, seed, tables)
        for number in range(rounds):
            later = config.rounds + number
            run_round(server, engine, task, later, sample_clients(engine, config.participation, seed, later))
            progress("unlearning", done + number + 1, done + rounds)
        return server

    def recommender(self, trained: Trained, clients: Clients) -> Recommender:
        """Local and global views, mixed on the clients."""
        return FedShareRecommender(trained.model, clients, self.config)


def tables_of(trained: Trained) -> dict[str, Tensor]:
    """Q and E as trained."""
    return {"items": trained.model["items"], "nodes": trained.memory.tensors["nodes"]}


def run_round(server: Server, engine: Engine, task: LocalEpoch, round: int, users: NDArray[np.int64]) -> None:
    """One round: server steps, broadcast, local epochs, aggregation."""
    server.learn_shared(round)
    broadcast = server.broadcast(round)
    server.apply(engine.run(task, broadcast, users, seed=server.seed), broadcast, users)


def sample_clients(engine: Engine, part: float, seed: int, round: int) -> NDArray[np.int64]:
    """The users of a round: each joins with probability `part` by a keyed draw, at least one does."""
    users = engine.users
    draw = streams.uniform(seed, round, users, "participation")
    return users[draw <= max(part, float(draw.min()))]


def snapshot_rounds(rounds: int, count: int) -> set[int]:
    """`count` evenly spaced rounds, the last one included."""
    return {int(r) for r in np.linspace(0, rounds - 1, count + 1).round()[1:]}


def snapshots_of(trained: Trained) -> list[dict[str, Tensor]]:
    """The snapshots in memory, oldest first."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in trained.memory.tensors.items():
        if name.startswith("snapshot."):
            _, number, part = name.split(".")
            found.setdefault(number, {})[part] = tensor
    return [found[number] for number in sorted(found, key=int)]


def finish(
    name: str, server: Server, shared: Interactions, snapshots: list[dict[str, Tensor]], log: tuple[Any, ...]
) -> Trained:
    """Pack the server's end state: Q and Z to publish, E and the snapshots as memory."""
    memory = {f"snapshot.{k}.{part}": table for k, tables in enumerate(snapshots) for part, table in tables.items()}
    memory["nodes"] = server.nodes.detach().clone()
    model = {name: table.clone() for name, table in server.broadcast(0).tensors.items()}
    return Trained(name, server.config, server.seed, model, Memory(memory), shared, log)
