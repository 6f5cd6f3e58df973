"""What every system is: a server's half and a device's half, and what training leaves behind.

No code here or below says where devices are: a server reaches them through an `Engine`, a device through what the
server publishes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from retract.data import Interactions
from retract.errors import ConfigError
from retract.federation import Arrays, Engine, Kept, TaskMakers, TaskSpec, UpdateSpec
from retract.models.recommender import Recommender

if TYPE_CHECKING:
    pass

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
        The withdrawal's UUID, and when it was made (UTC, ISO 8601).
    """

    kind: Kind
    forget: Interactions
    users: NDArray[np.int64]
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    time: str = field(default_factory=now)


@dataclass(frozen=True)
class Memory:
    """All that is kept to make unlearning possible.

    Parameters
    ----------
    tables
        What the server keeps, by name.
    on_devices
        Bytes that devices keep for it, all together.
    """

    tables: Arrays
    on_devices: int = 0

    @property
    def nbytes(self) -> int:
        """The storage overhead of being able to forget."""
        return sum(np.asarray(table).nbytes for table in self.tables.values()) + self.on_devices


@dataclass(frozen=True)
class Published:
    """What a server publishes: all that a device needs of a model, beside its own data and state.

    Parameters
    ----------
    system, config, seed, run
        As of `Trained`.
    tables
        The model.
    """

    system: str
    config: SystemConfig
    seed: int
    run: str
    tables: Arrays


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
    run
        Id of the training whose state the devices keep.
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
    run: str
    model: Arrays
    memory: Memory
    shared: Interactions
    log: tuple[Mapping[str, Any], ...] = ()

    @property
    def published(self) -> Published:
        """What devices get of it."""
        return Published(self.system, self.config, self.seed, self.run, self.model)


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stands after a round: all that its server needs to go on, bit for bit.

    Parameters
    ----------
    system, settings, seed, run
        Of the training; what goes on must be the same.
    stage, done
        The stage it is in, and how many of its steps are done.
    tables
        Everything that the next step reads, the optimiser's moments included.
    log
        The records so far.
    """

    system: str
    settings: Mapping[str, Any]
    seed: int
    run: str
    stage: str
    done: int
    tables: Arrays
    log: tuple[Mapping[str, Any], ...] = ()


Keep = Callable[[Callable[[], Checkpoint]], None]
"""Called after every step of a training with what makes its checkpoint; the keeper decides whether to make one."""


def keep_nothing(checkpoint: Callable[[], Checkpoint]) -> None:
    """A training that cannot be resumed."""


def new_run() -> str:
    """The id of a training."""
    return uuid.uuid4().hex


class ServerSide(Protocol):
    """Learns and forgets from what is shared, through an engine; knows no device.

    Made with a configuration. `train` never continues from anything but its own interrupted run; `unlearn` goes by the
    configuration of the model that it is given, and leaves that model as it was.
    """

    @property
    def config(self) -> SystemConfig:
        """What it was made with, and trains by."""
        ...

    def train(
        self,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        resume_from: Checkpoint | None = None,
        keep: Keep = keep_nothing,
        progress: Progress = no_progress,
    ) -> Trained:
        """Learn from what is shared and from what the devices report."""
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
        """Forget. `engine` reaches the devices as they are after the withdrawal."""
        ...

    def recommender(self, trained: Trained) -> Recommender:
        """What the server itself can recommend by, from histories that are shared with it."""
        ...

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """All that somebody can score by who holds the server's half.

        What an attack on the model reads. Histories are handed in, so that the attacker's knowledge is explicit.
        """
        ...


class DeviceSide(Protocol):
    """Beside a user's data: published tables, own state and own history in, scores out. Made with a configuration."""

    @property
    def tasks(self) -> TaskMakers:
        """What a device can do for a server, by name."""
        ...

    def reader(self, model: Published, kept: Kept) -> Recommender:
        """What the devices recommend by."""
        ...

    def views(self, model: Published, kept: Kept) -> Mapping[str, Recommender]:
        """What somebody can score by, beyond the server's half, who holds what devices keep."""
        ...


def task_spec(
    trained_as: SystemConfig, system: str, task: str, run: str, update: UpdateSpec, journal: int | None = None
) -> TaskSpec:
    """A client task of a system with these settings."""
    return TaskSpec(system, task, trained_as.model_dump(), run, update, journal)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._began


def with_settings(trained: Trained, **settings: Any) -> Trained:
    """The model with other settings, as of how it is to forget; what it was trained with is then the caller's word."""
    config = type(trained.config).model_validate({**trained.config.model_dump(), **settings})
    return replace(trained, config=config)


def require_same_system(name: str, trained: Trained) -> None:
    """Refuse a model of another system.

    Raises
    ------
    ConfigError
        If it is one.
    """
    if trained.system != name:
        raise ConfigError(f"this model is of {trained.system}, and {name} cannot forget for it: take {trained.system}")
