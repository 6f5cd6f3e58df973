"""FedShare's rounds on the server: the federated item table Q, the loop of rounds, and a training with checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions
from retract.errors import FederationError
from retract.federation import Arrays, Broadcast, Engine, RoundResult, sample_clients
from retract.models.learn.arrays import as_tensor
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
from retract.systems.fedshare.coverage import Coverage
from retract.systems.fedshare.view import view_tables
from retract.systems.spectral.rounds import find
from retract.systems.spectral.subspace import Subspace

START, ROUNDS = "spectral start", "rounds"
"""Stages of a training."""
CANCELLED = 2e-4
"""A mean gradient of less than this, times the number of clients, is mostly rounding; Adam's epsilon."""


class RoundServer:
    """The server's state in a round: Q with its Adam, and who answered.

    Parameters
    ----------
    shared
        S.
    items
        Q to begin with, float32, shape [n_items, d].
    config
        Settings.
    seed
        Key of all draws.
    run
        Id of the training whose state the clients keep.
    coverage
        Who answered last and what they hold; nobody yet unless given.
    """

    def __init__(
        self,
        shared: Interactions,
        items: Tensor,
        config: FedShareConfig,
        seed: int,
        run: str,
        coverage: Coverage | None = None,
    ) -> None:
        self.config, self.seed, self.run, self.shared = config, seed, run, shared
        self.items = items.clone().requires_grad_()
        self.coverage = Coverage.none(shared.n_users) if coverage is None else coverage
        self.answered = 0
        self._adam = torch.optim.Adam([self.items], lr=config.item_rate, betas=BETAS, eps=1e-15)

    def broadcast(self, round: int) -> Broadcast:
        """What the clients get: Q, and the coverage."""
        coverage = np.asarray(self.coverage.of(self.shared), dtype=np.float32)
        return Broadcast(round, {"items": self.items.detach().numpy().copy(), "coverage": coverage})

    def apply(self, result: RoundResult, round: int) -> None:
        """One Adam step of Q; where nobody answered, nothing changes. The coverage is then that of those who did."""
        if not result.update.clients:
            return
        self.items.grad = self.gradient(result.update.tensors, round)
        # Where the clients' gradients cancel, what is left is rounding, and Adam must not take it for a direction: the
        # model would depend on which machine added first.
        self._adam.param_groups[0]["eps"] = CANCELLED / result.update.clients
        self._adam.step()
        self.answered += 1
        self.coverage = self.coverage.after(result)

    def gradient(self, sums: Arrays, round: int) -> Tensor:
        """The clients' mean gradient, and L2."""
        mean = as_tensor(sums["item_gradient"]) / as_tensor(sums["weight"]).clamp_min(1e-12)
        return mean + self.config.regularisation * self.items.detach() / len(self.items)

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """Copies of all that the next round reads."""
        kept = {"items": self.items.detach().numpy().copy(), **self.coverage.tables}
        return {**kept, "answered": np.asarray(self.answered), **adam_tables(self._adam)}

    def restore(self, tables: Mapping[str, NDArray[Any]]) -> None:
        """Go back to where `tables` were taken."""
        with torch.no_grad():
            self.items.copy_(as_tensor(tables["items"]))
        self.coverage, self.answered = Coverage.among(tables), int(tables["answered"])
        restore_adam(self._adam, tables)


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
    """A training under way, each step of which is logged and offers a checkpoint.

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
        self.log: list[Mapping[str, Any]] = [] if resume_from is None else list(resume_from.log)

    def trained(self, engine: Engine) -> Trained:
        """The model after all that is left to do.

        Raises
        ------
        FederationError
            If no device answered in any round.
        """
        server = RoundServer(self.shared, self._start(engine), self.config, self.seed, self.run)
        return finish(self.learnt(server, engine, {}), tuple(self.log), view_tables(self.shared, self.config))

    @property
    def in_rounds(self) -> bool:
        """Whether what was interrupted had begun with the local epochs."""
        return self.begun is not None and self.begun.stage == ROUNDS

    def learnt(self, server: RoundServer, engine: Engine, beside: Arrays) -> RoundServer:
        """The server after all rounds of local epochs that are left.

        Parameters
        ----------
        beside
            What a checkpoint holds besides.
        """
        config, begin = self.config, 0
        if self.begun is not None and self.in_rounds:
            server.restore(self.begun.tables)
            begin = self.begun.done

        def after_round(done: int, result: RoundResult, seconds: float) -> None:
            self.record(config.first_epoch + done - 1, result, seconds)
            self.offer(ROUNDS, done, lambda: {**beside, **server.tables})

        rounds = range(config.first_epoch, config.first_epoch + config.rounds)
        run_rounds(server, engine, rounds, "training", self.progress, begin=begin, after_round=after_round)
        return require_answers(server)

    def _start(self, engine: Engine) -> Tensor:
        """Q from the clients' leading subspace; zeros where the interrupted training was beyond that."""
        config, n_items = self.config, self.shared.n_items
        if self.in_rounds:
            return torch.zeros(n_items, config.dimension)
        subspace, begin = Subspace(n_items, config, self.seed), 0
        if self.begun is not None:
            subspace.restore(self.begun.tables)
            begin = self.begun.done

        def after_round(done: int, result: RoundResult, seconds: float) -> None:
            self.record(done - 1, result, seconds)
            self.offer(START, done, lambda: subspace.tables)
            self.progress(START, done, config.start_rounds)

        find(subspace, engine, config, NAME, self.run, self.seed, begin=begin, after_round=after_round)
        return torch.from_numpy(subspace.table(config.start_scale))

    def record(self, number: int, result: RoundResult, seconds: float) -> None:
        """Write a round into the log."""
        record = {"stage": "train", "round": number, "answered": len(result.answered)}
        self.log.append({**record, "seconds": round(seconds, 4)})

    def offer(self, stage: str, done: int, tables: Callable[[], dict[str, NDArray[Any]]]) -> None:
        """Offer a checkpoint, which is only made if it is wanted."""
        settings = self.config.model_dump(mode="json")
        self.keep(lambda: Checkpoint(NAME, settings, self.seed, self.run, stage, done, tables(), tuple(self.log)))


def finish(
    server: RoundServer, log: tuple[Mapping[str, Any], ...], view: Arrays, memory: Arrays | None = None
) -> Trained:
    """Pack the server's end state.

    Parameters
    ----------
    view
        What is made of S, to be published with Q.
    memory
        What is kept to forget by, beside who answered.
    """
    model = {**server.broadcast(0).tables, **view}
    kept = Memory({**server.coverage.tables, **(memory or {})})
    return Trained(NAME, server.config, server.seed, server.run, model, kept, server.shared, log)
