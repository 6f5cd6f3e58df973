"""FRU: roll back, and replay with calibration what the clients logged of their own updates (Yuan et al., WSDM 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from retract.data import Interactions
from retract.errors import ConfigError
from retract.federation import Broadcast, ClientState, ClientTask, Cohort, Engine, Reply, Update
from retract.models.ego import EgoBatch
from retract.systems.base import (
    Memory,
    Progress,
    Stopwatch,
    System,
    SystemConfig,
    Trained,
    Withdrawal,
    no_progress,
)
from retract.systems.baselines.wrapper import Wrapper, recorded
from retract.systems.fedshare.client import LocalEpoch
from retract.systems.fedshare.system import FedShare

_LOG = "log."


class FruConfig(SystemConfig):
    """Settings of FRU; with the defaults the log of ML-1M takes less than 2 GB."""

    kept: Annotated[
        float, Field(gt=0, le=1, description="Part of a client's item updates of a round that it logs, the largest.")
    ] = 0.1
    interval: Annotated[int, Field(ge=1, description="Every how many rounds a round is logged, and replayed.")] = 2


@dataclass(frozen=True)
class ClientUpdates:
    """What clients log of a round: for each client and item, the client's own gradient of the item's embedding.

    Parameters
    ----------
    users, items
        Codes, int32, shape [n]; the users ascending.
    rows
        The updates, float32, shape [n, d].
    """

    users: Tensor
    items: Tensor
    rows: Tensor

    def largest(self, part: float) -> ClientUpdates:
        """Of every client, the ⌈part · n⌉ rows of the greatest norm (the top α by significance)."""
        users = self.users.numpy()
        order = np.lexsort((-self.rows.norm(dim=1).numpy(), users))
        begins = np.searchsorted(users, users)  # where the client of every row begins; the order leaves users in place
        counts = np.searchsorted(users, users, side="right") - begins
        chosen = np.sort(order[np.arange(len(users)) - begins < np.ceil(part * counts)])
        return self._at(torch.from_numpy(chosen))

    def without(self, users: NDArray[np.int64]) -> ClientUpdates:
        """The rows of everyone else."""
        return self._at(torch.from_numpy(np.flatnonzero(~np.isin(self.users.numpy(), users))))

    def sum(self, n_items: int) -> Tensor:
        """What an aggregation of these updates gives, shape [n_items, d]."""
        return torch.zeros(n_items, self.rows.shape[1]).index_add(0, self.items, self.rows)

    def _at(self, places: Tensor) -> ClientUpdates:
        return ClientUpdates(self.users[places], self.items[places], self.rows[places])


class RecordingEpoch:
    """A client's local epoch that also writes its own update to its own log (a `ClientTask`).

    The log is the paper's *on-device* storage, and this is client code: what a single client did is written here,
    beside its data, and neither goes up with the update nor is read by the server before an unlearning. The sum that
    leaves the clients is that of the plain epoch, to the last bit. In a local run all logs lie in this object, and
    `Fru` counts them as memory, for comparison; a log names items that are private, so a model that carries one is
    for the comparison alone and not for a server's folder.

    Parameters
    ----------
    epoch
        The epoch to run.
    kept
        The part of the rows that each client logs.
    """

    def __init__(self, epoch: LocalEpoch, kept: float) -> None:
        self.epoch, self.kept = epoch, kept
        self._written: list[ClientUpdates] = []

    def start(self, clients: NDArray[np.int64], seed: int) -> ClientState:
        """As the epoch's."""
        return self.epoch.start(clients, seed)

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The epoch's own reply."""
        self._written.append(client_updates(self.epoch, broadcast, cohort, state, seed).largest(self.kept))
        return self.epoch(broadcast, cohort, state, seed)

    def log(self) -> ClientUpdates:
        """What was written since the task was made, all cohorts together."""
        columns = zip(*((part.users, part.items, part.rows) for part in self._written), strict=True)
        return ClientUpdates(*(torch.cat(column) for column in columns))


def client_updates(
    epoch: LocalEpoch, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int
) -> ClientUpdates:
    """Every client's own gradient of every item it touches, of a whole cohort at once.

    Each (client, touched item) pair gets a row of its own in an expanded table, a copy of the item's; the same loss on
    that table leaves in every row the gradient of one client alone. Their sum over clients is the gradient of Q.
    """
    batch = epoch.batch(broadcast, cohort, seed)
    positives, negatives = batch.positives, batch.negatives
    rows, columns = torch.cat([positives.rows, negatives.rows]), np.append(positives.columns, negatives.columns)
    pairs, place = np.unique(rows.numpy() * cohort.n_items + columns, return_inverse=True)
    own, drawn = place[: len(positives)], place[len(positives) :].reshape(-1, batch.per_positive)
    expanded = EgoBatch(cohort.indptr, own, drawn, len(pairs))
    items = torch.from_numpy(pairs % cohort.n_items)
    tables = {name: table.index_select(0, items) if table.dim() else table for name, table in broadcast.tensors.items()}
    table = tables["items"].detach().requires_grad_()
    loss = epoch.loss(expanded, epoch.weights(cohort), state["vector"], table, Broadcast(broadcast.round, tables))
    users = torch.from_numpy(cohort.users[pairs // cohort.n_items])
    return ClientUpdates(users.int(), items.int(), torch.autograd.grad(loss, table)[0])


@dataclass(frozen=True)
class RoundLog:
    """What is logged of a round.

    Parameters
    ----------
    updates
        The rows that the clients kept.
    length
        ‖Σ_k M_k‖, the norm of the sum that the server got from all rows of these clients; float32, no dimension.
    """

    updates: ClientUpdates
    length: Tensor

    def without(self, users: NDArray[np.int64], n_items: int) -> RoundLog:
        """The log of everyone else; the length changes as that of the kept rows does."""
        left = self.updates.without(users)
        part = left.sum(n_items).norm() / self.updates.sum(n_items).norm().clamp_min(1e-12)
        return RoundLog(left, self.length * part)


class LoggingEngine:
    """An engine whose clients log every `interval`-th round; it lets the wrapped system train as it always does.

    Parameters
    ----------
    engine
        Reaches the clients.
    settings
        What is logged.
    """

    def __init__(self, engine: Engine, settings: FruConfig) -> None:
        self.engine, self.settings = engine, settings
        self.traffic, self.logs = engine.traffic, dict[int, RoundLog]()

    @property
    def users(self) -> NDArray[np.int64]:
        """As the engine's."""
        return self.engine.users

    @property
    def client_of(self) -> NDArray[np.int64]:
        """The client of every user."""
        return self.engine.client_of

    def reset(self) -> None:
        """As the engine's."""
        self.engine.reset()

    def run(self, task: ClientTask, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> Update:
        """Run the task; in a round that is logged, each client writes down its own part."""
        if broadcast.round % self.settings.interval or not isinstance(task, LocalEpoch):
            return self.engine.run(task, broadcast, users, seed=seed)
        recording = RecordingEpoch(task, self.settings.kept)
        update = self.engine.run(recording, broadcast, users, seed=seed)
        self.logs[broadcast.round] = RoundLog(recording.log(), update.tensors["item_gradient"].norm())
        return update


class ReplayingEngine:
    """An engine in which training is the replay of a log: round n is the n-th logged one again, at its length.

    Parameters
    ----------
    engine
        Reaches the clients as they are now.
    logs
        The log by round.
    """

    def __init__(self, engine: Engine, logs: Mapping[int, RoundLog]) -> None:
        self.engine, self.traffic = engine, engine.traffic
        self._logs = sorted(logs.items())

    @property
    def users(self) -> NDArray[np.int64]:
        """As the engine's."""
        return self.engine.users

    @property
    def client_of(self) -> NDArray[np.int64]:
        """The client of every user."""
        return self.engine.client_of

    def reset(self) -> None:
        """As the engine's."""
        self.engine.reset()

    def run(self, task: ClientTask, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> Update:
        """Run the task with the draws of the logged round, and calibrate the sum."""
        round, log = self._logs[broadcast.round]
        return calibrated(self.engine.run(task, Broadcast(round, broadcast.tensors), users, seed=seed), log.length)


def calibrated(update: Update, length: Tensor) -> Update:
    """The new sum's direction at the old sum's length."""
    gradient = update.tensors["item_gradient"]
    scaled = gradient * (length / gradient.norm().clamp_min(1e-12))
    return Update({**update.tensors, "item_gradient": scaled}, update.clients)


class Fru(Wrapper):
    """Federated recommendation unlearning (FRU; Yuan et al., arXiv 2210.10958, WSDM 2023), for FedShare.

    Training: every client logs, of its updates of item embeddings, the part α with the greatest norms. Unlearning: the
    server rolls back to the initial tables, and every logged round t is done again without what is withdrawn, from the
    tables Q̄ that the replay has reached; the clients compute their vectors and their updates M̂ anew, and the server
    takes the new direction at the old length,

        M̄^t = ‖Σ_k M_k^t‖ · Σ_k M̂_k^t / ‖Σ_k M̂_k^t‖,    k over the clients that erased nothing in the old sum.

    The log, its filter and the calibration are the paper's. Only every `interval`-th round is logged and replayed:
    the retaining interval of FedEraser (Liu et al., IWQoS 2021), which FRU builds on; it is what makes the replay
    faster than training here, for a local epoch is one pass already and cannot be shortened as the paper does (λ).
    Ours:

    - A client's update is what it sends, a gradient; the server's Adam turns the calibrated sum into a step, so an
      old length tells only against the lengths of other rounds and of the server's own terms.
    - The filter would shorten every step. So the length of the whole sum is kept too, one number a round, which the
      server saw anyway; who leaves takes away the part that the logged rows lose in length.
    - A replayed round stands for `interval` rounds, so the rates of what is learned in rounds grow by it. The server's
      own table is fitted to S∖R as in training.
    - Which clients take part in a replayed round is drawn anew, where not all of them do.
    - Who withdraws sharing keeps the data and stays; who erases starts anew, its log gone.

    The paper's semi-hard negatives, which shrink the log further, are left out: they would make another model, and
    methods are compared on one. All of the log counts as memory, though it lies on the devices: it is kept for
    unlearning and for nothing else.

    Parameters
    ----------
    system
        FedShare.
    settings
        What is logged.

    Raises
    ------
    ConfigError
        If the system is another.
    """

    name = "fru"

    def __init__(self, system: System, settings: FruConfig | None = None) -> None:
        super().__init__(system)
        if not isinstance(system, FedShare):
            raise ConfigError(f"fru needs a system that learns from its clients' item updates; {system.name} has none")
        self.settings = settings if settings is not None else FruConfig()
        self._fedshare = system

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Train FedShare, to the last bit as it trains itself, while the clients keep their logs."""
        logging, before = LoggingEngine(engine, self.settings), int(engine.traffic.up.sum())
        trained = self.system.train(shared, logging, seed=seed, progress=progress)
        trained = with_logs(trained, logging.logs)
        sent = int(engine.traffic.up.sum()) - before  # all rows of all rounds, each with its item, as a log would be
        record = {"stage": "client log", "bytes": trained.memory.nbytes, "bytes_unfiltered": sent}
        return replace(trained, log=(*trained.log, record))

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Replay the logged rounds on what is left; draws are those of the training, so `seed` plays no part.

        Raises
        ------
        ConfigError
            If `trained` holds no log: fru unlearns what fru has trained.
        """
        watch, logs = Stopwatch(), logs_of(trained)
        if not logs:
            raise ConfigError("fru finds no log of client updates in this model: train it with fru")
        gone = withdrawal.users if withdrawal.kind == "erase" else np.empty(0, dtype=np.int64)
        logs = {round: log.without(gone, trained.shared.n_items) for round, log in logs.items()}
        replaying, retained = ReplayingEngine(engine, logs), trained.shared - withdrawal.forget
        result = self._paced(len(logs)).train(retained, replaying, seed=trained.seed, progress=progress)
        result = replace(with_logs(result, logs), log=(*trained.log, *result.log))
        return recorded(result, self.name, withdrawal, watch, trained.config)

    def _paced(self, rounds: int) -> FedShare:
        """A FedShare of as many rounds as are replayed, each of which goes as far as `interval` rounds."""
        config, times = self._fedshare.config, self.settings.interval
        rates = {"item_rate": config.item_rate * times, "client_rate": config.client_rate * times}
        return FedShare(config.model_copy(update={"rounds": rounds, **rates}))


def with_logs(trained: Trained, logs: Mapping[int, RoundLog]) -> Trained:
    """The model with these logs as its memory, and the server's table, which is its state."""
    tensors = {"nodes": trained.memory.tensors["nodes"]}
    for round, log in logs.items():
        rows = {"users": log.updates.users, "items": log.updates.items, "rows": log.updates.rows}
        tensors.update({f"{_LOG}{round}.{name}": tensor for name, tensor in {**rows, "length": log.length}.items()})
    return replace(trained, memory=Memory(tensors))


def logs_of(trained: Trained) -> dict[int, RoundLog]:
    """The logs in memory, by round."""
    tensors = trained.memory.tensors
    rounds = sorted({int(name.split(".")[1]) for name in tensors if name.startswith(_LOG)})
    return {
        round: RoundLog(
            ClientUpdates(*(tensors[f"{_LOG}{round}.{name}"] for name in ("users", "items", "rows"))),
            tensors[f"{_LOG}{round}.length"],
        )
        for round in rounds
    }
