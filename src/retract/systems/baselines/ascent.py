"""Gradient ascent on the forget set, then fine-tuning on what is retained."""

from __future__ import annotations

from retract.federation import Engine
from retract.systems.base import Progress, ServerSide, Stopwatch, Trained, Withdrawal, no_progress
from retract.systems.baselines.config import GradientAscentConfig
from retract.systems.baselines.wrapper import Wrapper, continuing, differentiable, recorded
from retract.systems.checks import require_extra


class GradientAscent(Wrapper):
    """NegGrad: climb the loss that training descended, on the forget set R alone, and then mend what that broke.

        θ ← θ + s ‖θ_R‖ ∇L_R(θ) / ‖∇L_R(θ)‖,    L_R the part of the training loss that the edges of R make up

    The reversed gradient is the "negative gradient" that Golatkar et al. compare with (CVPR 2020); to fine-tune
    afterwards is common practice. Ours is the length of a step: the loss has no maximum, so with a plain rate it would
    sooner or later diverge. Here a step moves the table by the part s of the norm of R's own rows θ_R, whatever the
    loss does.

    Parameters
    ----------
    server
        The half of the system to unlearn from.
    settings
        How far and how long.

    Raises
    ------
    ConfigError
        If the system fits no table by gradients, or cannot go on training.
    """

    name = "ascent"
    settings: GradientAscentConfig

    def __init__(self, server: ServerSide, settings: GradientAscentConfig) -> None:
        super().__init__(server, settings)
        self._differentiable, self._continuing = differentiable(self.name, server), continuing(self.name, server)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Ascend on the forget set, then a few rounds on what is left."""
        require_extra(self.name, "learn", "torch")
        from retract.systems.baselines.gradients import ascended

        watch, forget, nodes = Stopwatch(), withdrawal.forget, self._differentiable.nodes(trained)
        retained = trained.shared - forget
        if len(forget):
            loss_of = self._differentiable.objective(trained.shared, seed=seed, among=forget)
            nodes = ascended(nodes, loss_of, forget, self.settings)
        climbed = self._differentiable.with_nodes(trained, nodes, retained)
        result = self._continuing.continue_training(
            climbed, retained, engine, rounds=self.settings.rounds, seed=seed, progress=progress
        )
        return recorded(result, self.name, withdrawal, watch, trained.config)
