"""What methods do to a table of nodes by gradients of a system's own loss: ascent, and SCIF's Newton step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions
from retract.models.learn.arrays import as_tensor
from retract.models.nodes import affected_nodes, endpoints
from retract.systems.abilities import Differentiable, Objective
from retract.systems.base import Progress, no_progress
from retract.systems.baselines.config import GradientAscentConfig, ScifConfig

RELATIVE_DIFFERENCE = 5e-3
"""Half the width of a central difference, as a part of the point's norm: the cube root of float32's precision, where
the errors of curvature (its square) and of rounding (its inverse) are about equal."""

Table = NDArray[np.float32]
Gradient = Callable[[Tensor], Tensor]
"""∇L at a table of nodes, both of shape [n_nodes, d]."""


def ascended(table: Table, loss_of: Objective, forget: Interactions, settings: GradientAscentConfig) -> Table:
    """The table (shape [n_users + n_items, d]) after some steps up a loss, each as long as the settings say.

    Parameters
    ----------
    loss_of
        The part of the training loss that the edges to forget make up.
    forget
        Those edges, at least one.
    """
    nodes = as_tensor(table)
    length = settings.stride * nodes[torch.from_numpy(endpoints(forget))].norm()
    for step in range(settings.steps):
        point = nodes.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(point, step), point)
        nodes = nodes + length * gradient / gradient.norm().clamp_min(1e-12)
    climbed: Table = nodes.numpy()
    return climbed


def newton_step(
    system: Differentiable,
    table: Table,
    retained: Interactions,
    forget: Interactions,
    settings: ScifConfig,
    seed: int,
    progress: Progress = no_progress,
) -> Table:
    """(H + λI)^{-1} (∇L_{S∖R} - ∇L_S) on the selected rows, zero elsewhere; shape as `table`, [n_nodes, d].

    Parameters
    ----------
    system
        Whose loss it is.
    retained, forget
        S∖R and R, neither of them empty.
    """
    nodes = as_tensor(table)
    gradient = mean_gradient(system.objective(retained, seed=seed), settings.draws)
    before = mean_gradient(system.objective(retained | forget, seed=seed), settings.draws)
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
    step: Table = conjugate_gradients(damped, influence, settings.iterations, radius, progress).numpy()
    return step


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
    ends = endpoints(forget)
    near = np.setdiff1d(affected_nodes(retained, forget), ends)
    strength = influence.norm(dim=1).numpy()[near]
    strongest = np.argsort(-strength, kind="stable")[: int(np.ceil(neighbours * len(near)))]
    nodes: NDArray[np.int64] = np.union1d(ends, near[strongest])
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
