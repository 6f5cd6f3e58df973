"""What all methods of unlearning have in common: they wrap a system, train as it does, and forget in their own way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from retract.data import Interactions
from retract.errors import ConfigError
from retract.federation import Engine
from retract.models.recommender import Recommender
from retract.systems.abilities import Continuing, Differentiable
from retract.systems.base import (
    Checkpoint,
    Keep,
    Progress,
    ServerSide,
    Stopwatch,
    SystemConfig,
    Trained,
    Withdrawal,
    keep_nothing,
    no_progress,
)


class Wrapper:
    """A server's half whose training and recommendations are another's; how it unlearns is its own.

    What it trains carries the wrapped system's name and configuration, so that it compares with the wrapped system's
    own. It prepares nothing: that is for the system's own way to unlearn.

    Parameters
    ----------
    server
        The half to wrap.
    settings
        Those of the method itself.
    """

    settings: SystemConfig

    def __init__(self, server: ServerSide, settings: SystemConfig) -> None:
        self.server, self.config, self.settings = server, server.config, settings

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
        """Train the wrapped system."""
        return self.server.train(shared, engine, seed=seed, resume_from=resume_from, keep=keep, progress=progress)

    def recommender(self, trained: Trained) -> Recommender:
        """The wrapped system's recommender."""
        return self.server.recommender(trained)

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """The wrapped system's views."""
        return self.server.views(trained)


def called(server: ServerSide) -> str:
    """What messages call the system of a server's half: the half's class, without "Server"."""
    return type(server).__name__.removesuffix("Server").lower()


def continuing(method: str, server: ServerSide) -> Continuing:
    """The server's half, if it can go on training.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    if not isinstance(server, Continuing):
        raise ConfigError(f"{method} needs a system that can go on training; {called(server)} cannot")
    return server


def differentiable(method: str, server: ServerSide) -> Differentiable:
    """The server's half, if it fits a table by gradients.

    Raises
    ------
    ConfigError
        If it does not.
    """
    if not isinstance(server, Differentiable):
        raise ConfigError(f"{method} needs a system that fits a table of nodes by gradients; {called(server)} has none")
    return server


def recorded(result: Trained, method: str, withdrawal: Withdrawal, watch: Stopwatch, config: SystemConfig) -> Trained:
    """The result, with what was done as the last record of its log, and with the configuration of the training.

    Going on may run at other rates than training did; what the model is named by stays what it was trained with.
    """
    seconds = round(watch.seconds, 4)
    record = {"stage": "unlearn", "method": method, "request": withdrawal.request_id, "seconds": seconds}
    return replace(result, config=config, log=(*result.log, record))
