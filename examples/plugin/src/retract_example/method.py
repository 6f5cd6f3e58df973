"""`half`: a method that forgets only every second interaction. The audit has to catch it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retract.federation import Engine
from retract.systems.base import Progress, Trained, Withdrawal, no_progress
from retract.systems.baselines.wrapper import Wrapper


class Half(Wrapper):
    """Trains and reads as the system does, and lets it forget half of what it is asked to."""

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Forget every second interaction; the store forgets all of them."""
        part = withdrawal.forget.where(np.arange(len(withdrawal.forget)) % 2 == 0)
        after = self.server.unlearn(trained, replace(withdrawal, forget=part), engine, seed=seed, progress=progress)
        return replace(after, shared=trained.shared - withdrawal.forget)
