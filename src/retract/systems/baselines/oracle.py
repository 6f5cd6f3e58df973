"""The ends of every comparison: a system's own way, training again, and doing nothing."""

from __future__ import annotations

from dataclasses import replace

from retract.federation import Engine
from retract.systems.base import Progress, ServerSide, SystemConfig, Trained, Withdrawal, no_progress
from retract.systems.baselines.wrapper import Wrapper


def own(server: ServerSide, settings: SystemConfig) -> ServerSide:
    """The system itself: its own way to unlearn."""
    return server


class Retrain(Wrapper):
    """The oracle: train again on what remains, same configuration, same seed, nothing kept."""

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Train from scratch with the seed and the settings that `trained` was made with; `seed` plays no part."""
        same = trained.config == self.config
        again = self.server if same else type(self.server)(trained.config)  # type: ignore[call-arg]
        return again.train(trained.shared - withdrawal.forget, engine, seed=trained.seed, progress=progress)


class Naive(Wrapper):
    """What most services do: delete from the store, leave the model as it is."""

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
