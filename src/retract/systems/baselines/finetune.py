"""Fine-tuning: go on training on what is retained, and trust that the rest fades."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from retract.federation import Engine
from retract.systems.base import Progress, Stopwatch, System, SystemConfig, Trained, Withdrawal, no_progress
from retract.systems.baselines.wrapper import Wrapper, recorded, resumable


class FineTuneConfig(SystemConfig):
    """Settings of fine-tuning."""

    rounds: Annotated[int, Field(ge=1, description="Rounds (steps, for a central system) on the retained data.")] = 20


class FineTune(Wrapper):
    """Continue training on S∖R from where the model stands.

    The usual first baseline of approximate unlearning (among others in Golatkar et al., CVPR 2020): nothing
    pushes the forget set out, it is only no longer rehearsed.

    Parameters
    ----------
    system
        The system to go on with.
    settings
        How long.

    Raises
    ------
    ConfigError
        If the system cannot go on training.
    """

    name = "finetune"

    def __init__(self, system: System, settings: FineTuneConfig | None = None) -> None:
        super().__init__(system)
        self.settings = settings if settings is not None else FineTuneConfig()
        self._resumable = resumable(self.name, system)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """A few rounds on what is left."""
        watch, retained = Stopwatch(), trained.shared - withdrawal.forget
        result = self._resumable.resume(
            trained, retained, engine, rounds=self.settings.rounds, seed=seed, progress=progress
        )
        return recorded(result, self.name, withdrawal, watch, trained.config)
