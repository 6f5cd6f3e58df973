"""Gradient ascent on the forget set, then fine-tuning on what is retained."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from retract.data import Interactions
from retract.federation import Engine
from retract.systems.base import Progress, Stopwatch, System, SystemConfig, Trained, Withdrawal, no_progress
from retract.systems.baselines.wrapper import Wrapper, differentiable, recorded, resumable


class GradientAscentConfig(SystemConfig):
    """Settings of gradient ascent."""

    steps: Annotated[int, Field(ge=1, description="Steps of ascent on the forget set.")] = 5
    stride: Annotated[
        float, Field(gt=0, description="Length of a step, as a part of the norm of the forget set's own embeddings.")
    ] = 0.1
    rounds: Annotated[int, Field(ge=1, description="Rounds of fine-tuning on the retained data afterwards.")] = 30


class GradientAscent(Wrapper):
    """NegGrad: climb the loss that training descended, on the forget set R alone, and then mend what that broke.

        θ ← θ + s ‖θ_R‖ ∇L_R(θ) / ‖∇L_R(θ)‖,    L_R the part of the training loss that the edges of R make up

    The reversed gradient is the "negative gradient" that Golatkar et al. compare with (CVPR 2020); to fine-tune
    afterwards is common practice. Ours is the length of a step: the loss has no maximum, so with a plain rate it would
    sooner or later diverge. Here a step moves the table by the part s of the norm of R's own rows θ_R, whatever the
    loss does.

    Parameters
    ----------
    system
        The system to unlearn from.
    settings
        How far and how long.

    Raises
    ------
    ConfigError
        If the system fits no table by gradients, or cannot go on training.
    """

    name = "ascent"

    def __init__(self, system: System, settings: GradientAscentConfig | None = None) -> None:
        super().__init__(system)
        self.settings = settings if settings is not None else GradientAscentConfig()
        self._differentiable, self._resumable = differentiable(self.name, system), resumable(self.name, system)

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
        watch, retained = Stopwatch(), trained.shared - withdrawal.forget
        nodes = self.ascend(self._differentiable.nodes(trained), trained.shared, withdrawal.forget, seed)
        climbed = self._differentiable.with_nodes(trained, nodes, retained)
        result = self._resumable.resume(
            climbed, retained, engine, rounds=self.settings.rounds, seed=seed, progress=progress
        )
        return recorded(result, self.name, withdrawal, watch, trained.config)

    def ascend(self, nodes: Tensor, shared: Interactions, forget: Interactions, seed: int) -> Tensor:
        """The table (shape [n_users + n_items, d]) after the steps; as it was where there is nothing to forget."""
        if not len(forget):
            return nodes
        loss_of = self._differentiable.objective(shared, seed=seed, among=forget)
        own = np.union1d(forget.users, forget.items + forget.n_users)
        length = self.settings.stride * nodes[torch.from_numpy(own)].norm()
        for step in range(self.settings.steps):
            point = nodes.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss_of(point, step), point)
            nodes = nodes + length * gradient / gradient.norm().clamp_min(1e-12)
        return nodes
