"""Fine-tuning: go on training on what is retained, and trust that the rest fades."""

from __future__ import annotations

from retract.federation import Engine
from retract.systems.base import Progress, ServerSide, Stopwatch, Trained, Withdrawal, no_progress
from retract.systems.baselines.config import FineTuneConfig
from retract.systems.baselines.wrapper import Wrapper, continuing, recorded


class FineTune(Wrapper):
    """Continue training on S∖R from where the model stands.

    The usual first baseline of approximate unlearning (among others in Golatkar et al., CVPR 2020): nothing
    pushes the forget set out, it is only no longer rehearsed.

    Parameters
    ----------
    server
        The half to go on with.
    settings
        How long.

    Raises
    ------
    ConfigError
        If the system cannot go on training.
    """

    name = "finetune"
    settings: FineTuneConfig

    def __init__(self, server: ServerSide, settings: FineTuneConfig) -> None:
        super().__init__(server, settings)
        self._continuing = continuing(self.name, server)

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
        result = self._continuing.continue_training(
            trained, retained, engine, rounds=self.settings.rounds, seed=seed, progress=progress
        )
        return recorded(result, self.name, withdrawal, watch, trained.config)
