"""The L2 bound of one client's part of a sum, and clipping to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.errors import ConfigError, FederationError
from retract.federation.updates import Layout, TensorSpec, Update, UpdateSpec

Order = Callable[[int], NDArray[np.int64]]
"""Gives so many numbers from 0 in a random order."""
BELOW = 1 - 2.0**-20
"""Scaling ends this near below the bound, so that rounding to float32 does not lift a norm above it."""


def bounds_of(spec: UpdateSpec, given: Mapping[str, float]) -> dict[str, float]:
    """The L2 bound of every tensor: the one given, or the one that its task guarantees; of two the smaller.

    Raises
    ------
    ConfigError
        If a tensor has neither, or a bound is not a positive finite number.
    """
    found = {}
    for name, tensor in spec.tensors.items():
        known = [bound for bound in (given.get(name), tensor.bound) if bound is not None]
        if not known:
            raise ConfigError(f"tensor {name!r} has no L2 bound, of its task or given: give one to clip it to")
        found[name] = min(known)
        if not (isfinite(found[name]) and found[name] > 0):
            raise ConfigError(f"the L2 bound of tensor {name!r} is {found[name]:g}: it must be positive and finite")
    return found


def norm_of(tensor: NDArray[Any], layout: Layout) -> float:
    """The L2 norm of what is sent of one tensor: of a symmetric one, its diagonal and what is above."""
    flat = np.asarray(tensor).reshape(-1)
    if flat.dtype.kind in "iu":
        flat = flat.astype(np.float64)
    squares = float(np.vdot(flat, flat))
    if layout == "triangle":
        diagonal = np.asarray(tensor, dtype=np.float64).diagonal()
        squares = (squares + float(diagonal @ diagonal)) / 2
    return float(squares**0.5)


def clipped(update: Update, bounds: Mapping[str, float], order: Order) -> Update:
    """One client's update, each tensor within its bound; the same where it is within already.

    A tensor x of norm above B becomes x B / ‖x‖ (Abadi et al., *Deep learning with differential privacy*, CCS 2016).
    On a grid it is rounded towards zero, so that it stays on the grid and within B. Whole numbers that would all
    become 0 in this way are raised again one by one in a random order, as far as B allows: of a vector of ones, B² ones
    stay.

    Parameters
    ----------
    update
        Of one client.
    bounds
        B of every tensor.
    order
        Draws the order in which whole numbers are raised.

    Raises
    ------
    FederationError
        If the update is of several clients, or a value is not finite.
    """
    if update.clients != 1:
        raise FederationError(f"an update of {update.clients:,} clients cannot be clipped: clip each before the sum")
    tensors = {}
    for name, spec in update.spec.tensors.items():
        tensor = np.asarray(update.tensors[name])
        norm = norm_of(tensor, spec.layout)
        if not isfinite(norm):
            raise FederationError(f"tensor {name!r} of a client's update holds a value that is not finite")
        tensors[name] = tensor if norm <= bounds[name] else _scaled(tensor, spec, bounds[name], norm, order)
    return Update(update.spec, tensors, 1)


def _scaled(tensor: NDArray[Any], spec: TensorSpec, bound: float, norm: float, order: Order) -> NDArray[Any]:
    """A tensor of norm above its bound, scaled to it."""
    scale = BELOW * bound / norm
    if tensor.dtype.kind in "iu":
        return _whole(tensor, scale, bound, order)
    if spec.unit is None:
        return np.asarray(tensor * tensor.dtype.type(scale))
    return np.asarray(np.trunc(tensor * (scale / spec.unit)) * spec.unit, dtype=tensor.dtype)


def _whole(tensor: NDArray[Any], scale: float, bound: float, order: Order) -> NDArray[Any]:
    """Whole numbers scaled towards zero, then raised by 1 each in a random order, while their norm is within B."""
    wanted = tensor.astype(np.float64).reshape(-1)
    kept = np.trunc(wanted * scale)
    room = bound**2 - float(kept @ kept)
    places = np.flatnonzero(np.abs(kept) < np.abs(wanted))
    places = places[order(len(places))]
    fits = np.cumsum(2 * np.abs(kept[places]) + 1) <= room
    kept[places[fits]] += np.sign(wanted[places[fits]])
    return np.asarray(kept.reshape(tensor.shape).astype(tensor.dtype))
