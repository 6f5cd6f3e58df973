"""What every system is: a way to learn and to unlearn, and what it leaves behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor

from retract.data import Interactions
from retract.errors import ConfigError, DataError
from retract.federation import Clients, Engine, one_user_each
from retract.models.recommender import Recommender

Kind = Literal["unshare", "erase"]
Progress = Callable[[str, int, int], None]
"""Called as (stage, done, total) while a system works."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Say nothing."""


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class SystemConfig(BaseModel):
    """Base of all configurations: frozen, and unknown settings are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    defaults_by: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}
    """By the name of a setting and its value: the defaults of others that differ then."""

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        chosen = (defaults.get(str(given.get(setting)), {}) for setting, defaults in cls.defaults_by.items())
        return {**{name: value for own in chosen for name, value in own.items()}, **given}


@dataclass(frozen=True)
class Withdrawal:
    """A request as a server sees it: only what it was given can be named to it.

    Parameters
    ----------
    kind
        "unshare": the server forgets it, the client keeps it. "erase": it is gone from both.
    forget
        The shared interactions to forget.
    users
        Codes of the users who ask, ascending; an erasure of private data names nobody's items, only its users.
    request_id, time
        The caller's UUID, and when it was received (UTC, ISO 8601).
    """

    kind: Kind
    forget: Interactions
    users: NDArray[np.int64]
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    time: str = field(default_factory=now)


@dataclass(frozen=True)
class Memory:
    """All that a server keeps to make unlearning possible."""

    tensors: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """The storage overhead of being able to forget."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class Trained:
    """What training leaves on the server.

    Parameters
    ----------
    system
        Name of the system that made it.
    config
        Its configuration.
    seed
        The seed it was trained with.
    model
        The tables that the server publishes, by name.
    memory
        What is kept for unlearning.
    shared
        The interactions that the server holds.
    log
        One record per round or request.
    """

    system: str
    config: SystemConfig
    seed: int
    model: Mapping[str, Tensor]
    memory: Memory
    shared: Interactions
    log: tuple[Mapping[str, Any], ...] = ()


class System(Protocol):
    """A way to learn and to unlearn. `train` never continues from anything; `unlearn` leaves its input as it was."""

    @property
    def name(self) -> str:
        """What the commands call it."""
        ...

    @property
    def config(self) -> SystemConfig:
        """Its settings."""
        ...

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Learn from what is shared and from what the clients report."""
        ...

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Forget. `engine` reaches the clients as they are after the withdrawal."""
        ...

    def recommender(self, trained: Trained, clients: Clients) -> Recommender:
        """What the clients compute: the published model, read with what each of them keeps."""
        ...

    def views(self, trained: Trained, clients: Clients | None) -> Mapping[str, Recommender]:
        """All that somebody can score by who holds the server's half; with `clients`, who holds theirs too.

        What an attack on the model reads. Histories are handed in, so that the attacker's knowledge is explicit.
        """
        ...


@runtime_checkable
class Extendable(Protocol):
    """A system that takes in new data without training again."""

    def extend(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Add what is newly shared, over the catalog of `trained` or over one that appends to it."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A system that spends time after training so as to forget fast later.

    `train` alone never prepares: the oracle and the shadow models need nothing to forget by, and what a request costs
    is compared with training alone.
    """

    def prepare(self, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """The same model, with what unlearning needs in its memory."""
        ...


@runtime_checkable
class Resumable(Protocol):
    """A system that can go on training where a model stands: for baselines, and for the time that relearning takes.

    `train` never does: only what is called resuming resumes.
    """

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
        """`rounds` more rounds on what is now shared and on what the clients now hold."""
        ...


Learnt = Literal["everything", "shared", "nothing"]
"""Of what users hold: shared and private alike, what is shared, or none of it."""


@runtime_checkable
class LearnsFromPrivate(Protocol):
    """A system whose model may come from private interactions too, as sums over clients."""

    def learnt(self, kind: Kind) -> Learnt:
        """What the model would change by if it were withdrawn so; said without being shown any of it."""
        ...


Objective = Callable[[Tensor, int], Tensor]
"""A server's loss, of a node table (shape [n_users + n_items, d]) and of the step that keys its draws."""


@runtime_checkable
class Differentiable(Protocol):
    """A system whose server fits one table of nodes by gradients: what influence functions and ascent need."""

    def nodes(self, trained: Trained) -> Tensor:
        """The table as it stands: users, then items; shape [n_users + n_items, d]."""
        ...

    def objective(self, shared: Interactions, *, seed: int, among: Interactions | None = None) -> Objective:
        """The loss that training on `shared` minimises; with `among`, the part of it that these edges make up."""
        ...

    def with_nodes(self, trained: Trained, nodes: Tensor, shared: Interactions) -> Trained:
        """The model that this table gives over the graph of `shared`."""
        ...


def withdraw(clients: Clients, kind: Kind, forget: Interactions, **fields: str) -> tuple[Clients, Withdrawal]:
    """Part a user's request in two: what the clients do themselves, and what the server is told.

    Parameters
    ----------
    forget
        What the users withdraw. For "erase" it may hold private interactions; these never reach the server.
    fields
        `request_id` and `time` of the withdrawal.

    Raises
    ------
    SharingError
        If something is withdrawn that is not there, named per item; nothing is applied.
    """
    after = clients.unshare(forget) if kind == "unshare" else clients.erase(forget)
    told = clients.sharing.shared & forget
    return after, Withdrawal(kind, told, np.unique(forget.users), **fields)


def prepared(
    system: System, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress
) -> tuple[Trained, float]:
    """A model ready for its system's own unlearning, and the seconds that took: none where nothing is prepared.

    Raises
    ------
    ConfigError
        If what was prepared diverged.
    """
    if not isinstance(system, Preparing):
        return trained, 0.0
    watch = Stopwatch()
    ready = system.prepare(trained, engine, seed=seed, progress=progress)
    seconds = watch.seconds
    _refuse_divergence(trained.system, "memory", ready.memory.tensors)
    return ready, seconds


def require_one_user_each(system: str, engine: Engine) -> None:
    """Refuse clients with many users, for a system that gives every user a client, or none.

    Raises
    ------
    ConfigError
        If a client has more than one.
    """
    if not one_user_each(engine):
        raise ConfigError(f"{system} has one user per client: leave --clients out")


def require_shared(system: str, shared: Interactions, engine: Engine) -> None:
    """Refuse to train a central system on nothing.

    Raises
    ------
    DataError
        If nothing is shared.
    ConfigError
        If a client has more than one user, for a central system takes no notice of clients.
    """
    require_one_user_each(system, engine)
    if not len(shared):
        raise DataError(f"{system} is centralised and nothing is shared: share more (--share 1)")


def require_several(system: str, engine: Engine) -> None:
    """Refuse to train a federated system on one user.

    Raises
    ------
    DataError
        If fewer than two users hold an interaction.
    """
    if len(engine.users) < 2:
        raise DataError(f"{system} learns from several users: the data has fewer than two with an interaction")


def require_finite(trained: Trained) -> None:
    """Refuse a model that diverged.

    Raises
    ------
    ConfigError
        If a table of it holds a value that is not finite.
    """
    _refuse_divergence(trained.system, "model", trained.model)


def _refuse_divergence(system: str, what: str, tables: Mapping[str, Tensor]) -> None:
    broken = [name for name, table in tables.items() if not bool(torch.isfinite(table).all())]
    if broken:
        raise ConfigError(
            f"{system} diverged: {', '.join(broken)} of its {what} holds values that are not finite; "
            "nothing was saved: lower its rates"
        )


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._began
