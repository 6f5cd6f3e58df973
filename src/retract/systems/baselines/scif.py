"""SCIF: one Newton step on selected embeddings, by an influence function (Li et al., arXiv 2304.10199)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from retract.data import Interactions
from retract.federation import Engine
from retract.systems.base import Objective, Progress, Stopwatch, System, SystemConfig, Trained, Withdrawal, no_progress
from retract.systems.baselines.wrapper import Wrapper, differentiable, recorded
from retract.systems.fedshare.unlearning import affected_nodes, without_isolated

RELATIVE_DIFFERENCE = 5e-3
"""Half the width of a central difference, as a part of the point's norm: the cube root of float32's precision, where
the errors of curvature (its square) and of rounding (its inverse) are about equal."""

Gradient = Callable[[Tensor], Tensor]
"""∇L at a table of nodes, both of shape [n_nodes, d]."""


class ScifConfig(SystemConfig):
    """Settings of SCIF."""

    neighbours: Annotated[
        float, Field(ge=0, le=1, description="Part of the forget set's neighbours that moves too, the most influenced.")
    ] = 0.5
    damping: Annotated[
        float, Field(gt=0, description="Added to the curvature, as a part of the curvature along the influence.")
    ] = 0.1
    reach: Annotated[
        float, Field(gt=0, description="Length of the step at most, as a part of the norm of the selected embeddings.")
    ] = 0.1
    iterations: Annotated[int, Field(ge=1, description="Iterations of conjugate gradients at most.")] = 20
    draws: Annotated[int, Field(ge=1, description="Draws of negatives that gradients are averaged over.")] = 4


class Scif(Wrapper):
    """Selective and collaborative influence function (SCIF; Li et al., arXiv 2304.10199).

    With θ the trained table, the minimum over S∖R lies, to first order, one Newton step away,

        θ' = θ - (H + λI)^{-1} ( ∇L_{S∖R}(θ) - ∇L_S(θ) ),    H = ∇²L_{S∖R}(θ).

    The paper's are the influence function (Koh and Liang, ICML 2017), the step restricted to selected embeddings,
    those of the target and of its collaborators, and the solution without ever forming H. That the graph changes with
    R is IFRU's (Zhang et al., arXiv 2307.02147): the right-hand side b is the difference of the *whole* losses, each
    on its own graph, not the loss of R's edges alone. Where θ is optimal for S it is ∇L_{S∖R}(θ) itself; we subtract
    ∇L_S because training ends near an optimum, not at it, and what is left of it there is no influence of R. Ours too:

    - The loss is not convex. The damping λ is a part of |bᵀHb| / bᵀb, so that one setting fits losses of any scale,
      and conjugate gradients stop at the first direction that does not curve up, or where the step grows too long for
      its quadratic model to hold (Steihaug, SIAM J. Numer. Anal. 1983).
    - Of the neighbours, whose number soon comes near that of all nodes, those with the greatest right-hand side move
      (IFRU prunes by importance in the same spirit).
    - A node that lost its last edge has no term left but L2: it goes to the minimum of that, zero.

    Only the server's table moves; tables that a system aggregates from clients have no loss on the server and stay.

    Parameters
    ----------
    system
        The system to unlearn from.
    settings
        How the step is found.

    Raises
    ------
    ConfigError
        If the system fits no table by gradients.
    """

    name = "scif"

    def __init__(self, system: System, settings: ScifConfig | None = None) -> None:
        super().__init__(system)
        self.settings = settings if settings is not None else ScifConfig()
        self._differentiable = differentiable(self.name, system)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """One step; the clients are not asked."""
        watch, forget = Stopwatch(), withdrawal.forget
        retained, nodes = trained.shared - forget, self._differentiable.nodes(trained)
        if len(forget) and len(retained):
            nodes = nodes - self.step(nodes, retained, forget, seed, progress)
        nodes = without_isolated(nodes, retained, forget)
        result = self._differentiable.with_nodes(trained, nodes, retained)
        return recorded(result, self.name, withdrawal, watch, trained.config)

    def step(
        self, nodes: Tensor, retained: Interactions, forget: Interactions, seed: int, progress: Progress = no_progress
    ) -> Tensor:
        """(H + λI)^{-1} (∇L_{S∖R} - ∇L_S) on the selected rows, zero elsewhere; shape as `nodes`, [n_nodes, d]."""
        settings = self.settings
        gradient = mean_gradient(self._differentiable.objective(retained, seed=seed), settings.draws)
        before = mean_gradient(self._differentiable.objective(retained | forget, seed=seed), settings.draws)
        influence = gradient(nodes) - before(nodes)
        chosen = torch.zeros(len(nodes), 1)
        chosen[torch.from_numpy(selected(influence, retained, forget, settings.neighbours))] = 1
        influence = chosen * influence
        along = (influence * hessian_product(gradient, nodes, influence)).sum().abs()
        damping = settings.damping * along / influence.square().sum().clamp_min(1e-30)

        def damped(direction: Tensor) -> Tensor:
            curved: Tensor = chosen * hessian_product(gradient, nodes, direction) + damping * direction
            return curved

        radius = settings.reach * float((chosen * nodes).norm())
        return conjugate_gradients(damped, influence, settings.iterations, radius, progress)


def mean_gradient(objective: Objective, draws: int) -> Gradient:
    """The gradient of a loss, averaged over its first draws."""

    def gradient(nodes: Tensor) -> Tensor:
        point = nodes.detach().requires_grad_()
        losses = [torch.autograd.grad(objective(point, draw), point)[0] for draw in range(draws)]
        mean: Tensor = torch.stack(losses).mean(dim=0)
        return mean

    return gradient


def hessian_product(gradient: Gradient, nodes: Tensor, direction: Tensor) -> Tensor:
    """H v by the central difference (∇L(θ + εv) - ∇L(θ - εv)) / 2ε; zero for v = 0.

    The sparse products of `retract.models` have first derivatives only; two gradients cost what a double backward pass
    through them would.
    """
    length = direction.norm()
    if length == 0:
        return torch.zeros_like(nodes)
    reach = RELATIVE_DIFFERENCE * nodes.norm().clamp_min(1e-12) / length
    product: Tensor = (gradient(nodes + reach * direction) - gradient(nodes - reach * direction)) / (2 * reach)
    return product


def selected(influence: Tensor, retained: Interactions, forget: Interactions, neighbours: float) -> NDArray[np.int64]:
    """Node numbers of R's endpoints, and of that part of their neighbours whose influence has the greatest norm."""
    endpoints = np.union1d(forget.users, forget.items + forget.n_users)
    near = np.setdiff1d(affected_nodes(retained, forget), endpoints)
    strength = influence.norm(dim=1).numpy()[near]
    strongest = np.argsort(-strength, kind="stable")[: int(np.ceil(neighbours * len(near)))]
    nodes: NDArray[np.int64] = np.union1d(endpoints, near[strongest])
    return nodes


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    right: Tensor,
    iterations: int,
    radius: float = math.inf,
    progress: Progress = no_progress,
) -> Tensor:
    """Solve A x = b, as far as its quadratic model can be trusted (Steihaug, 1983).

    Parameters
    ----------
    apply
        A, symmetric. No iteration goes along a direction p with pᵀAp <= 0.
    right
        b, any shape.
    iterations
        How many at most.
    radius
        Where |x| would pass it, x stops there.
    """
    found, residual = torch.zeros_like(right), right
    direction, size = residual, residual.square().sum()
    tolerance = 1e-6 * size
    for iteration in range(iterations):
        product = apply(direction)
        curvature = (direction * product).sum()
        if curvature <= 0 or size <= tolerance:
            break
        length = size / curvature
        found = found + length * direction
        if (reached := float(found.norm())) > radius:
            found *= radius / reached
            break
        residual = residual - length * product
        last, size = size, residual.square().sum()
        direction = residual + size / last * direction
        progress("unlearning", iteration + 1, iterations)
    return found
