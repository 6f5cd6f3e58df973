"""FedShare's rounds on the server: the federated item table Q, the loop of rounds, and a training with checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract import streams
from retract.data import Interactions
from retract.errors import FederationError
from retract.federation import Broadcast, Engine, RoundResult, sample_clients
from retract.models.learn.arrays import as_tensor
from retract.models.learn.lightgcn import initial_embeddings
from retract.models.learn.losses import aligned_info_nce
from retract.models.learn.optimising import adam_tables, restore_adam
from retract.systems.base import (
    Checkpoint,
    Keep,
    Memory,
    Progress,
    Stopwatch,
    Trained,
    keep_nothing,
    new_run,
    no_progress,
    task_spec,
)
from retract.systems.fedshare.config import BETAS, EPOCH, NAME, FedShareConfig, epoch_update
from retract.systems.fedshare.graph import Fit, Fitted, SharedGraph, fit, snapshot_tables, snapshots_in

GRAPH, ROUNDS = "shared graph", "rounds"
"""The stages of a training."""


class RoundServer:
    """The server's state in a round: Q with its Adam, and what it reads from its own table E.

    Parameters
    ----------
    shared
        S.
    nodes
        E, fitted to S; shape [n_users + n_items, d].
    config
        Settings.
    seed
        Key of the initial table and of all draws.
    run
        Id of the training whose state the clients keep.
    going_on
        The model to go on from, its Q and its coverage. From the initial table unless given.
    """

    def __init__(
        self,
        shared: Interactions,
        nodes: Tensor,
        config: FedShareConfig,
        seed: int,
        run: str,
        going_on: Trained | None = None,
    ) -> None:
        self.config, self.seed, self.run, self.nodes = config, seed, run, nodes
        if going_on is None:
            items = initial_embeddings(shared.n_items, config.dimension, config.initial_scale, seed, "items")
        else:
            items = as_tensor(going_on.model["items"])
        self.items = items.clone().requires_grad_()
        self.global_items = SharedGraph(shared, config).global_view(nodes)[1] if len(shared) else None
        self.coverage = 0.0 if going_on is None else float(going_on.model["coverage"])
        self.answered = 0
        self._shared_degrees = shared.user_degrees()
        self._adam = torch.optim.Adam([self.items], lr=config.item_rate, betas=BETAS, eps=1e-15)

    def broadcast(self, round: int) -> Broadcast:
        """What the clients get: Q, the coverage, and Z's items where anything is shared."""
        tables = {"items": self.items.detach().numpy().copy(), "coverage": np.asarray(self.coverage, dtype=np.float32)}
        if self.global_items is not None:
            tables["global_items"] = self.global_items.numpy()
        return Broadcast(round, tables)

    def apply(self, result: RoundResult, round: int) -> None:
        """One Adam step of Q on the clients' mean gradient, L2, and λ c InfoNCE(Q, Z_items), c being the coverage.

        The coverage is then the shared part of all interactions that those who answered hold. Where nobody answered,
        nothing changes.
        """
        if not result.update.clients:
            return
        sums = result.update.tensors
        gradient = as_tensor(sums["item_gradient"]) / as_tensor(sums["weight"]).clamp_min(1e-12)
        gradient = gradient + self.config.regularisation * self.items.detach() / len(self.items)
        if self.global_items is not None:
            aligned = self._alignment(self.global_items, round)
            gradient = gradient + torch.autograd.grad(aligned, self.items)[0]
        self.items.grad = gradient
        self._adam.step()
        self.answered += 1
        self.coverage = float(self._shared_degrees[result.answered].sum() / max(int(sums["interactions"]), 1))

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """Copies of all that the next round reads, but for E."""
        kept = {"items": self.items.detach().numpy().copy(), "coverage": np.asarray(self.coverage)}
        return {**kept, "answered": np.asarray(self.answered), **adam_tables(self._adam)}

    def restore(self, tables: Mapping[str, NDArray[Any]]) -> None:
        """Go back to where `tables` were taken."""
        with torch.no_grad():
            self.items.copy_(as_tensor(tables["items"]))
        self.coverage, self.answered = float(tables["coverage"]), int(tables["answered"])
        restore_adam(self._adam, tables)

    def _alignment(self, global_items: Tensor, step: int) -> Tensor:
        """λ c times the mean InfoNCE of a keyed batch of items between the two tables."""
        order = streams.bits(self.seed, step, 0, "alignment", np.arange(len(global_items)))
        batch = torch.from_numpy(np.argsort(order)[: self.config.contrast_batch])
        strength = self.config.contrast * self.coverage
        return strength * aligned_info_nce(self.items[batch], global_items[batch], self.config.temperature).mean()


AfterRound = Callable[[int, RoundResult, float], None]
"""Called with how many rounds are done, what the last one brought, and its seconds."""


def ignore(done: int, result: RoundResult, seconds: float) -> None:
    """Nothing to do after a round."""


def run_rounds(
    server: RoundServer,
    engine: Engine,
    rounds: range,
    stage: str,
    progress: Progress = no_progress,
    *,
    begin: int = 0,
    after_round: AfterRound = ignore,
) -> RoundServer:
    """Broadcast, local epochs, aggregation, round by round; the same server, for convenience.

    Parameters
    ----------
    rounds
        Their numbers.
    begin
        How many of them are done already.
    """
    config, n_items = server.config, len(server.items)
    spec = task_spec(config, NAME, EPOCH, server.run, epoch_update(n_items, config.dimension))
    for done, round in enumerate(rounds[begin:], begin + 1):
        watch = Stopwatch()
        users = sample_clients(engine, config.participation, server.seed, round)
        result = engine.run(spec, server.broadcast(round), users, seed=server.seed)
        server.apply(result, round)
        after_round(done, result, watch.seconds)
        progress(stage, done, len(rounds))
    return server


def require_answers(server: RoundServer) -> RoundServer:
    """Refuse a table that nobody had a part in; the same server, for convenience.

    Raises
    ------
    FederationError
        If no device answered in any round.
    """
    if not server.answered:
        raise FederationError("no device answered in any round, so nothing was learnt from them: run it again")
    return server


class Training:
    """A training under way: the fit of the shared graph, then the rounds; each step of either offers a checkpoint.

    Parameters
    ----------
    shared
        S.
    config, seed
        Settings, and the key of all draws.
    resume_from
        Where it was interrupted.
    keep, progress
        As of `ServerSide.train`.
    """

    def __init__(
        self,
        shared: Interactions,
        config: FedShareConfig,
        seed: int,
        resume_from: Checkpoint | None = None,
        keep: Keep = keep_nothing,
        progress: Progress = no_progress,
    ) -> None:
        self.shared, self.config, self.seed = shared, config, seed
        self.begun, self.keep, self.progress = resume_from, keep, progress
        self.run = new_run() if resume_from is None else resume_from.run
        self.log = [] if resume_from is None else list(resume_from.log)

    def trained(self, engine: Engine) -> Trained:
        """The model after all that is left to do.

        Raises
        ------
        FederationError
            If no device answered in any round.
        """
        fitted = self._fitted()
        server = RoundServer(self.shared, fitted.nodes, self.config, self.seed, self.run)
        begin = 0
        if self.begun is not None and self.begun.stage == ROUNDS:
            server.restore(self.begun.tables)
            begin = self.begun.done

        def after_round(done: int, result: RoundResult, seconds: float) -> None:
            record = {"stage": "train", "round": done - 1, "answered": len(result.answered)}
            self.log.append({**record, "seconds": round(seconds, 4)})
            self._keep(ROUNDS, done, lambda: {**fitted_tables(fitted), **server.tables})

        rounds = range(self.config.rounds)
        run_rounds(server, engine, rounds, "training", self.progress, begin=begin, after_round=after_round)
        require_answers(server)
        return finish(server, self.shared, fitted.snapshots, self.config, self.seed, tuple(self.log))

    def _fitted(self) -> Fitted:
        """E and its snapshots, or those of the interrupted training where its fit was done."""
        if self.begun is not None and self.begun.stage == ROUNDS:
            return Fitted(as_tensor(self.begun.tables["nodes"]), snapshots_in(self.begun.tables))
        watch = Stopwatch()
        if len(self.shared):
            under_way = Fit.of_training(self.shared, self.config, self.seed)
            if self.begun is not None:
                under_way.restore(self.begun.done, self.begun.tables)
            fitted = under_way.run(self.progress, lambda: self._keep(GRAPH, under_way.done, lambda: under_way.tables))
        else:
            fitted = fit(self.shared, self.config, self.seed)
        self.log.append({"stage": "shared graph", "seconds": round(watch.seconds, 4)})
        return fitted

    def _keep(self, stage: str, done: int, tables: Callable[[], dict[str, NDArray[Any]]]) -> None:
        """Offer a checkpoint, which is only made if it is wanted."""
        settings = self.config.model_dump(mode="json")
        self.keep(lambda: Checkpoint(NAME, settings, self.seed, self.run, stage, done, tables(), tuple(self.log)))


def fitted_tables(fitted: Fitted) -> dict[str, NDArray[Any]]:
    """E and its snapshots under the names that they are kept by; copies."""
    return {"nodes": fitted.nodes.numpy().copy(), **snapshot_tables(fitted.snapshots)}


def finish(
    server: RoundServer,
    shared: Interactions,
    snapshots: Sequence[Tensor],
    config: FedShareConfig,
    seed: int,
    log: tuple[Mapping[str, Any], ...],
) -> Trained:
    """Pack the server's end state: Q and Z to publish, E as memory, and snapshots where they are wanted."""
    wanted = snapshots if config.unlearning == "contrast" else ()
    model = {name: table.copy() for name, table in server.broadcast(0).tables.items()}
    memory = Memory(fitted_tables(Fitted(server.nodes.detach(), wanted)))
    return Trained(NAME, config, seed, server.run, model, memory, shared, log)
