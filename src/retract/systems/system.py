"""Systems and methods by name: what registries and entry points hold, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from retract.errors import missing_extra
from retract.plugins import resolve
from retract.systems.base import DeviceSide, ServerSide, SystemConfig


class System:
    """A way to learn and to unlearn: a server's half and a device's half, made when they are first asked for.

    Parameters
    ----------
    type
        What it is an instance of.
    config
        Its settings.
    """

    def __init__(self, type: SystemType, config: SystemConfig) -> None:
        self.type, self.config = type, config

    @property
    def name(self) -> str:
        """What the commands call it."""
        return self.type.name

    @cached_property
    def server(self) -> ServerSide:
        """The half that learns and forgets."""
        half: ServerSide = self.type.load(self.type.server_half)(self.config)
        return half

    @cached_property
    def device(self) -> DeviceSide:
        """The half beside the users' data."""
        half: DeviceSide = self.type.load(self.type.device_half)(self.config)
        return half


@dataclass(frozen=True)
class SystemType:
    """A kind of system, by name: what a registry and an entry point of `retract.systems` hold.

    The halves are named by path, `package.module:Class`, so that a machine loads the one that it is for. Each class is
    called with a configuration.

    Parameters
    ----------
    name
        What the commands call it.
    config
        The class of its settings.
    server_half, device_half
        Paths of a `ServerSide` and a `DeviceSide`.
    extra
        The extra of retract that learning with it needs.
    share
        The part of their interactions that users usually share, in [0, 1]; None where it is theirs to choose, so that
        somebody has to say it.
    learns_ratings
        Whether it learns how its users rate, low ratings too, where the data has ratings. All other systems learn what
        people like.
    """

    name: str
    config: type[SystemConfig]
    server_half: str
    device_half: str
    extra: str | None = None
    share: float | None = 1.0
    learns_ratings: bool = False

    def __call__(self, config: SystemConfig | None = None) -> System:
        """A system with these settings; the defaults unless given."""
        return System(self, self.config() if config is None else config)

    def load(self, path: str) -> Any:
        """The class that a path names.

        Raises
        ------
        MissingExtraError
            If it needs packages that are not installed.
        """
        try:
            return resolve(path)
        except ModuleNotFoundError as error:
            if self.extra is None or error.name is None or error.name.split(".")[0] == "retract":
                raise
            raise missing_extra(self.name, self.extra, error.name) from None


@dataclass(frozen=True)
class MethodType:
    """A method of unlearning, by name: what a registry and an entry point of `retract.methods` hold.

    A method trains as a system does and forgets in its own way. Its class is called with the system's `ServerSide` and
    the method's settings, and is a `ServerSide` itself.

    Parameters
    ----------
    name
        What the commands call it.
    server_half
        Path of the class, `package.module:Class`.
    config
        The class of its settings.
    device_half
        Path of a class that is called with the system's `DeviceSide` and is one itself, where the method asks devices
        for more than the system does.
    trains
        Whether it has to train for itself, so as to keep what it forgets by; the model must be the system's own.
    extra
        The extra of retract that it needs.
    """

    name: str
    server_half: str
    config: type[SystemConfig] = SystemConfig
    device_half: str | None = None
    trains: bool = False
    extra: str | None = None

    def __call__(self, system: System, settings: SystemConfig | None = None) -> System:
        """A system that trains and recommends as `system` does, and unlearns by this method.

        Raises
        ------
        ConfigError
            If the method does not fit the system.
        MissingExtraError
            If it needs packages that are not installed.
        """
        halves = SystemType(self.name, self.config, self.server_half, self.device_half or "", self.extra)
        method = System(system.type, system.config)
        made = self.config() if settings is None else settings
        # Made at once, for a method that does not fit a system is refused before any work.
        method.__dict__["server"] = halves.load(self.server_half)(system.server, made)
        if self.device_half is not None:
            method.__dict__["device"] = halves.load(self.device_half)(system.device)
        return method
