"""The two ends of every comparison: training again, and doing nothing."""

from __future__ import annotations

from dataclasses import replace

from retract.data import Interactions
from retract.federation import Clients, Engine
from retract.models.recommender import Recommender
from retract.systems.base import Progress, System, SystemConfig, Trained, Withdrawal, no_progress


class _Wrapper:
    """A system whose training and recommendations are another's."""

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


class Retrain(_Wrapper):
    """The oracle: train again on what remains, same configuration, same seed, nothing kept.

    Parameters
    ----------
    system
        The system to train again.
    """

    name = "retrain"

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Train from scratch with the seed that `trained` was made with; `seed` plays no part."""
        return self.system.train(trained.shared - withdrawal.forget, engine, seed=trained.seed, progress=progress)


class Naive(_Wrapper):
    """What most services do: delete from the store, leave the model as it is.

    Parameters
    ----------
    system
        The system whose model stays.
    """

    name = "naive"

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Forget in the store only."""
        return replace(trained, shared=trained.shared - withdrawal.forget)
