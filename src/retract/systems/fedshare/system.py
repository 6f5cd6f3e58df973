"""FedShare as a system: train, unlearn, recommend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retract.data import Interactions
from retract.federation import Clients, Engine, sample_clients
from retract.models.lightgcn import DotProduct
from retract.models.recommender import HistoryReader, Recommender
from retract.systems.base import (
    Kind,
    Learnt,
    Memory,
    Objective,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    no_progress,
    require_one_user_each,
    require_several,
)
from retract.systems.fedshare.client import FedShareRecommender, LocalEpoch
from retract.systems.fedshare.config import FedShareConfig
from retract.systems.fedshare.server import Server, SharedGraph
from retract.systems.fedshare.unlearning import ContrastiveUnlearning

_SNAPSHOT = "snapshot."


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
        require_several(self.name, engine)
        require_one_user_each(self.name, engine)
        engine.reset()
        watch = Stopwatch()
        nodes, snapshots = fit(shared, self.config, seed, progress)
        log: list[dict[str, Any]] = [{"stage": "shared graph", "seconds": round(watch.seconds, 4)}]
        server = Server(shared, nodes, self.config, seed)
        run_rounds(server, engine, range(self.config.rounds), "training", progress, log)
        return finish(self.name, server, shared, snapshots, self.config, seed, tuple(log))

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Make the server's table forget, and then what the clients make together.

        The server's table, by `refit`: it is, bit for bit, the one that training without the forget set gives, for it
        is a function of what is shared. By `contrast` it is moved there, see `ContrastiveUnlearning`, and one snapshot
        is kept, itself: the older ones were made with what is now withdrawn.

        What the clients make: after "unshare" they still hold the data, so Q and their vectors only follow the new
        table for a few rounds. After "erase" Q must know nothing of it, and Q is a sum over everyone: all start anew,
        for fewer rounds than in training and at higher rates.
        """
        watch, retained = Stopwatch(), trained.shared - withdrawal.forget
        if self.config.unlearning == "refit" or not len(retained):
            nodes, snapshots = fit(retained, self.config, trained.seed, progress)
        else:
            nodes = self._contrast(trained, withdrawal.forget, retained, seed, progress)
            snapshots = [nodes]
        if withdrawal.kind == "erase":
            server = self._start_anew(nodes, retained, engine, trained.seed, progress)
        else:
            server = self._continue(trained, nodes, retained, engine, self.config.unlearn_rounds, seed, progress)
        record = {"stage": "unlearn", "request": withdrawal.request_id, "seconds": round(watch.seconds, 4)}
        return finish(self.name, server, retained, snapshots, self.config, trained.seed, (*trained.log, record))

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
        """More steps on the shared graph, and more rounds at the rate of unlearning: another would jolt Q."""
        watch, nodes, first = Stopwatch(), self.nodes(trained), self.config.server_steps
        if len(shared):
            *_, nodes = SharedGraph(shared, self.config).fit(nodes, range(first, first + rounds), seed, progress)
        server = self._continue(trained, nodes, shared, engine, rounds, seed, progress)
        record = {"stage": "resume", "rounds": rounds, "seconds": round(watch.seconds, 4)}
        return finish(self.name, server, shared, [nodes], self.config, trained.seed, (*trained.log, record))

    def views(self, trained: Trained, clients: Clients | None) -> Mapping[str, Recommender]:
        """Q and Z read through a history, the server's own rows of the sharers, and the clients' vectors."""
        found: dict[str, Recommender] = {"items": HistoryReader(trained.model["items"])}
        if "global_items" in trained.model:
            users, items = SharedGraph(trained.shared, self.config).global_view(self.nodes(trained))
            found |= {"shared items": HistoryReader(items), "sharers": DotProduct(users, items)}
        if clients is not None and "vector" in clients.state:
            found["devices"] = DotProduct(clients.state["vector"], trained.model["items"])
        return found

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
        server = Server(shared, nodes, self.config, trained.seed, trained.model["items"])
        server.coverage = float(trained.model["coverage"])
        return finish(self.name, server, shared, [nodes], self.config, trained.seed, trained.log)

    def _contrast(
        self, trained: Trained, forget: Interactions, retained: Interactions, seed: int, progress: Progress
    ) -> Tensor:
        """E after the contrastive steps."""
        unlearning = ContrastiveUnlearning(
            retained, forget, self.nodes(trained), snapshots_of(trained), self.config, seed
        )
        for number in range(self.config.unlearn_steps):
            unlearning.step(number)
            progress("shared graph", number + 1, self.config.unlearn_steps)
        return unlearning.nodes.detach()

    def _continue(
        self,
        trained: Trained,
        nodes: Tensor,
        shared: Interactions,
        engine: Engine,
        rounds: int,
        seed: int,
        progress: Progress,
    ) -> Server:
        """The server after more rounds from Q as trained, at the rate of unlearning."""
        quiet = self.config.model_copy(update={"item_rate": self.config.unlearn_item_rate})
        server = Server(shared, nodes, quiet, seed, trained.model["items"])
        server.coverage = float(trained.model["coverage"])
        return run_rounds(
            server, engine, range(self.config.rounds, self.config.rounds + rounds), "unlearning", progress
        )

    def _start_anew(self, nodes: Tensor, shared: Interactions, engine: Engine, seed: int, progress: Progress) -> Server:
        """The server after `erase_rounds` rounds from nothing, which go as far as all rounds of training."""
        config, rounds = self.config, self.config.erase_rounds
        times = config.rounds / rounds
        rates = {"item_rate": config.item_rate * times, "client_rate": config.client_rate * times}
        engine.reset()
        server = Server(shared, nodes, config.model_copy(update=rates), seed)
        return run_rounds(server, engine, range(rounds), "unlearning", progress)

    def learnt(self, kind: Kind) -> Learnt:
        """All that is held; what is unshared was learnt on the server."""
        return "everything" if kind == "erase" else "shared"

    def recommender(self, trained: Trained, clients: Clients) -> Recommender:
        """Local and global views, mixed on the clients."""
        return FedShareRecommender(trained.model, clients, self.config)


def fit(shared: Interactions, config: FedShareConfig, seed: int, progress: Progress) -> tuple[Tensor, list[Tensor]]:
    """E fitted to S from its spectral start, and the snapshots that contrastive unlearning wants.

    Where nothing is shared, zeros.
    """
    if not len(shared):
        return torch.zeros(shared.n_users + shared.n_items, config.dimension), []
    graph, snapshots = SharedGraph(shared, config), []
    nodes = graph.start(seed)
    keep = snapshot_steps(config.server_steps, config.snapshots) if config.unlearning == "contrast" else set()
    for step, table in enumerate(graph.fit(nodes, range(config.server_steps), seed, progress)):
        nodes = table
        if step in keep:
            snapshots.append(table.clone())
    return nodes.clone(), snapshots


def run_rounds(
    server: Server,
    engine: Engine,
    rounds: range,
    stage: str,
    progress: Progress,
    log: list[dict[str, Any]] | None = None,
) -> Server:
    """Broadcast, local epochs, aggregation, round by round; the same server, for convenience."""
    task = LocalEpoch(server.config)
    for number, round_number in enumerate(rounds):
        watch = Stopwatch()
        users = sample_clients(engine, server.config.participation, server.seed, round_number)
        broadcast = server.broadcast(round_number)
        server.apply(engine.run(task, broadcast, users, seed=server.seed), broadcast, users)
        if log is not None:
            log.append({"stage": "train", "round": round_number, "seconds": round(watch.seconds, 4)})
        progress(stage, number + 1, len(rounds))
    return server


def snapshot_steps(steps: int, count: int) -> set[int]:
    """`count` evenly spaced steps, the last one included."""
    return {int(step) for step in np.linspace(0, steps - 1, count + 1).round()[1:]}


def snapshots_of(trained: Trained) -> list[Tensor]:
    """The snapshots of E in memory, oldest first."""
    names = [name for name in trained.memory.tensors if name.startswith(_SNAPSHOT)]
    return [trained.memory.tensors[name] for name in sorted(names, key=lambda name: int(name[len(_SNAPSHOT) :]))]


def finish(
    name: str,
    server: Server,
    shared: Interactions,
    snapshots: Sequence[Tensor],
    config: FedShareConfig,
    seed: int,
    log: tuple[Any, ...],
) -> Trained:
    """Pack the server's end state: Q and Z to publish, E as memory, and snapshots where they are wanted."""
    memory = {"nodes": server.nodes}
    if config.unlearning == "contrast":
        memory |= {f"{_SNAPSHOT}{number}": table for number, table in enumerate(snapshots)}
    model = {name: table.clone() for name, table in server.broadcast(0).tensors.items()}
    return Trained(name, config, seed, model, Memory(memory), shared, log)
