"""FRU's log as the server has it, and the two engines that write it and replay it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.errors import ConfigError
from retract.federation import Arrays, Broadcast, Engine, RoundResult, TaskSpec, Update
from retract.systems.base import Checkpoint, Keep, Memory, Trained
from retract.systems.baselines.fru_config import FruConfig, journal_row, recording_spec, sent_row
from retract.systems.fedshare.config import EPOCH, SNAPSHOT

STAGE = "client log"
"""The record of a training's log that says where the devices keep theirs, and how it was made."""


@dataclass(frozen=True)
class RoundLog:
    """What the server keeps of a logged round: norms of sums, and how much the clients wrote.

    Parameters
    ----------
    length
        ‖Σ_k M_k‖, of all rows of the clients that are left in the log.
    kept
        Likewise, of the rows that they wrote down.
    nbytes
        What these take on the devices.
    """

    length: float
    kept: float
    nbytes: int

    @classmethod
    def of(cls, update: Update) -> RoundLog:
        """The log of a round that was just recorded."""
        sums = update.tensors
        return cls(norm(sums["item_gradient"]), norm(sums["logged"]), int(sums["journal_bytes"]))

    def left(self, still_there: Update) -> RoundLog:
        """The log of those whose journals are still there; the length changes as that of the kept rows does."""
        kept = norm(still_there.tensors["logged"])
        return RoundLog(self.length * kept / max(self.kept, 1e-12), kept, int(still_there.tensors["journal_bytes"]))


@dataclass(frozen=True)
class ClientLog:
    """What a training logged.

    Parameters
    ----------
    run
        Its id, under which the devices keep their journals.
    interval
        Every how many rounds it logged one.
    rounds
        The server's part, by round.
    """

    run: str
    interval: int
    rounds: Mapping[int, RoundLog]

    @classmethod
    def of(cls, trained: Trained) -> ClientLog:
        """The log of a model.

        Raises
        ------
        ConfigError
            If it has none.
        """
        records = [record for record in trained.log if record.get("stage") == STAGE]
        rounds = rounds_in(trained.memory.tables)
        if not records or not rounds:
            raise ConfigError("fru finds no log of client updates in this model: train it with fru")
        return cls(str(records[-1]["run"]), int(records[-1]["interval"]), rounds)


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
        self.engine, self.settings, self.traffic = engine, settings, engine.traffic
        self.rounds: dict[int, RoundLog] = {}
        self.sent = 0

    @property
    def users(self) -> NDArray[np.int64]:
        """As the engine's."""
        return self.engine.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """As the engine's."""
        return self.engine.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Run the task; in a round that is logged, each client writes down its own part."""
        if spec.task != EPOCH or broadcast.round % self.settings.interval:
            result = self.engine.run(spec, broadcast, users, seed=seed)
            self.sent += result.bytes_up
            return result
        result = self.engine.run(recording_spec(spec, self.settings.kept), broadcast, users, seed=seed)
        update, dimension = result.update, spec.update.tensors["item_gradient"].shape[1]
        if update.clients:
            self.rounds[broadcast.round] = RoundLog.of(update)
        written = int(update.tensors["journal_bytes"]) // journal_row(dimension)
        self.sent += result.bytes_up - written * sent_row(dimension) - 8 * update.clients
        plain = {name: update.tensors[name] for name in spec.update.tensors}
        return replace(result, update=Update(spec.update, plain, update.clients))

    def keeping(self, keep: Keep) -> Keep:
        """A keeper whose checkpoints hold the log so far too."""

        def keep_both(checkpoint: Checkpoint) -> Checkpoint:
            return replace(checkpoint, tables={**checkpoint.tables, **self._tables})

        return lambda make: keep(lambda: keep_both(make()))

    def restore(self, tables: Arrays) -> None:
        """Go back to where a checkpoint was made.

        Raises
        ------
        ConfigError
            If the interrupted training logged nothing, or otherwise.
        """
        mine = self._tables["log.settings"]
        if "log.settings" not in tables or not np.array_equal(tables["log.settings"], mine):
            raise ConfigError(
                "the interrupted training logged otherwise, or nothing: resume with the same settings of fru"
            )
        self.rounds, self.sent = dict(rounds_in(tables)), int(tables["log.sent"])

    @property
    def _tables(self) -> dict[str, NDArray[Any]]:
        settings = np.array([self.settings.kept, self.settings.interval], dtype=np.float64)
        return {**tables_of(self.rounds), "log.sent": np.asarray(self.sent), "log.settings": settings}


class ReplayingEngine:
    """An engine in which training is the replay of a log: round n is the n-th logged one again, at its length.

    Parameters
    ----------
    engine
        Reaches the clients as they are now.
    rounds
        The log by round.
    """

    def __init__(self, engine: Engine, rounds: Mapping[int, RoundLog]) -> None:
        self.engine, self.traffic = engine, engine.traffic
        self._rounds = sorted(rounds.items())

    @property
    def users(self) -> NDArray[np.int64]:
        """As the engine's."""
        return self.engine.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """As the engine's."""
        return self.engine.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Run the task with the draws of the logged round, and calibrate the sum."""
        round, log = self._rounds[broadcast.round]
        result = self.engine.run(spec, Broadcast(round, broadcast.tables), users, seed=seed)
        return replace(result, update=calibrated(result.update, log.length))


def calibrated(update: Update, length: float) -> Update:
    """The new sum's direction at the old sum's length."""
    gradient = update.tensors["item_gradient"]
    scaled = gradient * np.float32(length / max(norm(gradient), 1e-12))
    return Update(update.spec, {**update.tensors, "item_gradient": scaled}, update.clients)


def norm(table: NDArray[np.generic]) -> float:
    """The L2 norm of all values together."""
    return float(np.linalg.norm(table.astype(np.float64)))


def with_log(trained: Trained, rounds: Mapping[int, RoundLog]) -> Trained:
    """The model with this log in its memory in the place of the snapshots, and the devices' part counted."""
    kept = {name: table for name, table in trained.memory.tables.items() if not name.startswith(SNAPSHOT)}
    tables = {**kept, **tables_of(rounds)}
    return replace(trained, memory=Memory(tables, sum(log.nbytes for log in rounds.values())))


def tables_of(rounds: Mapping[int, RoundLog]) -> dict[str, NDArray[Any]]:
    """A log as arrays: which rounds, the two norms of each, and the bytes on the devices."""
    logs = list(rounds.values())
    return {
        "log.rounds": np.array(list(rounds), dtype=np.int64),
        "log.norms": np.array([(log.length, log.kept) for log in logs], dtype=np.float64).reshape(-1, 2),
        "log.bytes": np.array([log.nbytes for log in logs], dtype=np.int64),
    }


def rounds_in(tables: Arrays) -> dict[int, RoundLog]:
    """The log among some tables, by round; empty where there is none."""
    if "log.rounds" not in tables:
        return {}
    rounds, norms, sizes = (tables[name].tolist() for name in ("log.rounds", "log.norms", "log.bytes"))
    return {
        round: RoundLog(length, kept, nbytes)
        for round, (length, kept), nbytes in zip(rounds, norms, sizes, strict=True)
    }
