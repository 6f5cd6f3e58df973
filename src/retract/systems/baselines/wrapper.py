"""What all methods of unlearning have in common: they wrap a system, train as it does, and forget in their own way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from retract.data import Interactions
from retract.errors import ConfigError
from retract.federation import Clients, Engine
from retract.models.recommender import Recommender
from retract.systems.base import (
    Differentiable,
    Progress,
    Resumable,
    Stopwatch,
    System,
    SystemConfig,
    Trained,
    Withdrawal,
    no_progress,
)


class Wrapper:
    """A system whose training and recommendations are another's.

    What it trains carries the wrapped system's name and configuration, so that it compares with the wrapped system's
    own; the settings of the method itself are in `settings` where it has any.

    Parameters
    ----------
    system
        The system to wrap.
    """

    def __init__(self, system: System) -> None:
        self.system = system

    @property
    def config(self) -> SystemConfig:
        """The wrapped system's configuration."""
        return self.system.config

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Train the wrapped system."""
        return self.system.train(shared, engine, seed=seed, progress=progress)

    def recommender(self, trained: Trained, clients: Clients) -> Recommender:
        """The wrapped system's recommender."""
        return self.system.recommender(trained, clients)

    def views(self, trained: Trained, clients: Clients | None) -> Mapping[str, Recommender]:
        """The wrapped system's views."""
        return self.system.views(trained, clients)


def resumable(method: str, system: System) -> Resumable:
    """The system, if it can go on training.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    if not isinstance(system, Resumable):
        raise ConfigError(f"{method} needs a system that can go on training; {system.name} cannot")
    return system


def differentiable(method: str, system: System) -> Differentiable:
    """The system, if its server fits a table by gradients.

    Raises
    ------
    ConfigError
        If it does not.
    """
    if not isinstance(system, Differentiable):
        raise ConfigError(f"{method} needs a system that fits a table of nodes by gradients; {system.name} has none")
    return system


def recorded(result: Trained, method: str, withdrawal: Withdrawal, watch: Stopwatch, config: SystemConfig) -> Trained:
    """The result, with what was done as the last record of its log, and with the configuration of the training.

    Going on may run at other rates than training did; what the model is named by stays what it was trained with.
    """
    seconds = round(watch.seconds, 4)
    record = {"stage": "unlearn", "method": method, "request": withdrawal.request_id, "seconds": seconds}
    return replace(result, config=config, log=(*result.log, record))
