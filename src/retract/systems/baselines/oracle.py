"""The two ends of every comparison: training again, and doing nothing."""

from __future__ import annotations

from dataclasses import replace

from retract.federation import Engine
from retract.systems.base import Progress, Trained, Withdrawal, no_progress
from retract.systems.baselines.wrapper import Wrapper


class Retrain(Wrapper):
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


class Naive(Wrapper):
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
