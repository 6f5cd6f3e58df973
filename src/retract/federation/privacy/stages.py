"""Stages of privacy: what happens to one client's update before it is summed, and to the sum before it is used.

Stages are an ordered tuple. On a client they run from first to last, on the sum from last to first. The unit of privacy
is one client: a device of one user, or an organisation of many, of whom the whole data is hidden as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retract.errors import ConfigError, FederationError
from retract.federation.privacy.bounds import bounds_of, clipped
from retract.federation.privacy.randomness import SERVER, Randomness, normal, shuffled
from retract.federation.privacy.shrinking import shrunk
from retract.federation.updates import TensorSpec, Update, UpdateSpec


@dataclass(frozen=True)
class Place:
    """Where a stage runs, and what its draws are keyed by.

    Parameters
    ----------
    randomness
        Source of the draws.
    round
        The round's number.
    task
        The task's name.
    user
        The least user code of the client, or `SERVER`.
    """

    randomness: Randomness
    round: int
    task: str
    user: int = SERVER

    def normal(self, purpose: str, count: int) -> NDArray[np.float64]:
        """Standard normal values for a purpose, shape [count]."""
        return normal(self.randomness, self.round, self.user, f"{self.task}: {purpose}", count)

    def order(self, count: int) -> NDArray[np.int64]:
        """The numbers below `count` in a random order."""
        return shuffled(self.randomness, self.round, self.user, f"{self.task}: clipping", count)


@dataclass(frozen=True)
class Limits:
    """What the stages of one task are calibrated by.

    Parameters
    ----------
    bounds
        B_i: L2 bound of one client's part of each tensor.
    scales
        B_i / √s_i, with s_i the tensor's share of the privacy that a round spends: noise of deviation z times it.
    """

    bounds: Mapping[str, float]
    scales: Mapping[str, float]


class Stage(Protocol):
    """One step of a round's privacy."""

    @property
    def label(self) -> str:
        """What it does with which figures: a device and a server with different ones do not meet."""
        ...

    def on_client(self, update: Update, limits: Limits, place: Place) -> Update:
        """One client's update after this stage."""
        ...

    def on_sum(self, update: Update, limits: Limits, place: Place) -> Update:
        """The sum after this stage."""
        ...

    def variance(self, clients: int) -> float:
        """Variance that it adds to a sum over so many clients, in squares of a tensor's scale."""
        ...


@dataclass(frozen=True)
class Clip:
    """Clips every client's update; see `retract.federation.privacy.bounds.clipped`.

    Parameters
    ----------
    bounds
        L2 bounds by tensor, of all tasks that are run. What its task bounds already needs none.
    weights
        How the privacy that a round spends is divided among its tensors: 1 each unless given. The more weight, the less
        noise.

    Raises
    ------
    ConfigError
        If a weight is not positive and finite.
    """

    bounds: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not (isfinite(weight) and weight > 0):
                raise ConfigError(f"the weight of tensor {name!r} is {weight:g}: it must be positive and finite")

    @property
    def label(self) -> str:
        """The bounds and weights by name, to the last digit."""
        named = [f"{name}={float(self.bounds[name])!r}" for name in sorted(self.bounds)]
        named += [f"{name} weighs {float(self.weights[name])!r}" for name in sorted(self.weights)]
        return f"clip({', '.join(named)})"

    def on_client(self, update: Update, limits: Limits, place: Place) -> Update:
        """One client's update within its bounds."""
        return clipped(update, limits.bounds, place.order)

    def on_sum(self, update: Update, limits: Limits, place: Place) -> Update:
        """The sum as it is."""
        return update

    def variance(self, clients: int) -> float:
        """None."""
        return 0.0


@dataclass(frozen=True)
class ClientNoise:
    """Gaussian noise that every client adds to its own update: for who does not trust the server.

    A client adds deviation z B / √(s m) to a tensor of bound B and share s. A sum over k clients then has
    z B √(k / (s m)) in it. With m = 1 every single message is private. With m > 1 only a sum over at least m of them
    is (distributed noise), so the server must see nothing but such sums: use secure sums with the same minimum.

    Parameters
    ----------
    multiplier
        z of a sum over `floor` clients.
    floor
        m. A round that fewer answer is refused.

    Raises
    ------
    ConfigError
        If z is not positive and finite, or m is below 1.
    """

    multiplier: float
    floor: int = 1

    def __post_init__(self) -> None:
        _require_multiplier(self.multiplier)
        if self.floor < 1:
            raise ConfigError(f"noise of clients is shared among floor={self.floor} of them: it must be at least 1")

    @property
    def label(self) -> str:
        """Multiplier and floor."""
        return f"noise({float(self.multiplier)!r} over {self.floor})"

    def on_client(self, update: Update, limits: Limits, place: Place) -> Update:
        """One client's update with its share of the noise."""
        return noised(update, limits, self.multiplier / self.floor**0.5, "client noise", place)

    def on_sum(self, update: Update, limits: Limits, place: Place) -> Update:
        """The sum as it is; the noise is in it.

        Raises
        ------
        FederationError
            If fewer than `floor` clients answered.
        """
        if update.clients < self.floor:
            raise FederationError(
                f"{update.clients:,} clients answered and noise of {self.floor:,} is needed: the sum is dropped"
            )
        return update

    def variance(self, clients: int) -> float:
        """It grows with the clients that answer."""
        return clients * self.multiplier**2 / self.floor


@dataclass(frozen=True)
class ServerNoise:
    """Gaussian noise that the server adds to a sum: for who trusts the server, and not who sees its models.

    Deviation z B / √s for a tensor of bound B and share s (Dwork and Roth, *The algorithmic foundations of differential
    privacy*, 2014, appendix A). It is noise on a sum, so it does not depend on how many
    answer; a mean over them is divided by how many *did*.

    Parameters
    ----------
    multiplier
        z.

    Raises
    ------
    ConfigError
        If z is not positive and finite.
    """

    multiplier: float

    def __post_init__(self) -> None:
        _require_multiplier(self.multiplier)

    @property
    def label(self) -> str:
        """Nothing: devices need not know of it."""
        return ""

    def on_client(self, update: Update, limits: Limits, place: Place) -> Update:
        """One client's update as it is."""
        return update

    def on_sum(self, update: Update, limits: Limits, place: Place) -> Update:
        """The sum with noise."""
        return noised(update, limits, self.multiplier, "server noise", place)

    def variance(self, clients: int) -> float:
        """The same for any number of clients."""
        return self.multiplier**2


@dataclass(frozen=True)
class Shrink:
    """Takes back what noise did to the eigenvalues of symmetric matrices; see `retract.federation.privacy.shrinking`.

    It is for tensors laid out as a "triangle" of which each part is positive semi-definite, as terms of a Gram matrix.
    It reads nothing but the noisy sum, so it costs no privacy. It stands before the noise, as it runs after it.

    Parameters
    ----------
    noise
        The stage whose noise it is.
    """

    noise: ServerNoise | ClientNoise

    @property
    def label(self) -> str:
        """Nothing: devices need not know of it."""
        return ""

    def on_client(self, update: Update, limits: Limits, place: Place) -> Update:
        """One client's update as it is."""
        return update

    def on_sum(self, update: Update, limits: Limits, place: Place) -> Update:
        """The sum with its symmetric matrices shrunk."""
        multiplier, tensors = self.noise.variance(update.clients) ** 0.5, dict(update.tensors)
        for name, spec in update.spec.tensors.items():
            if spec.layout == "triangle":
                tensors[name] = shrunk(tensors[name], multiplier * limits.scales[name]).astype(spec.dtype)
        return Update(update.spec, tensors, update.clients)

    def variance(self, clients: int) -> float:
        """None."""
        return 0.0


def require_sound(stages: Sequence[Stage]) -> None:
    """Refuse stages whose noise is calibrated by a bound that nothing holds, or that run in a wrong order.

    Raises
    ------
    ConfigError
        If the first stage does not clip, or a later one does; or if one takes noise back before it is added.
    """
    for place, stage in enumerate(stages):
        if isinstance(stage, Shrink) and stage.noise not in stages[place + 1 :]:
            raise ConfigError(
                "Shrink runs after the noise that it takes back: it must stand before it among the stages"
            )
    places = [place for place, stage in enumerate(stages) if isinstance(stage, Clip)]
    if places != [0]:
        raise ConfigError(
            f"privacy stages clip {len(places)} times, and they must once, before all else: begin with Clip()"
        )


def multiplier_of(stages: Sequence[Stage], clients: int) -> float:
    """The noise multiplier of a sum over so many clients: √ of all stages' variances.

    With deviation z B_i / √s_i on each tensor, and the parts x_i of one client within B_i, the sum of
    s_i (‖x_i‖ / (z B_i))² is at most 1/z², for the shares s_i add up to 1: all tensors together are one Gaussian
    mechanism of multiplier z.

    Raises
    ------
    ConfigError
        If no stage adds noise.
    """
    variance = sum(stage.variance(clients) for stage in stages)
    if not variance > 0:
        raise ConfigError("no privacy stage adds noise, so no epsilon can be stated: add ClientNoise or ServerNoise")
    return float(variance**0.5)


def floor_of(stages: Sequence[Stage]) -> int:
    """How many clients must answer for the noise to be enough."""
    return max((stage.floor for stage in stages if isinstance(stage, ClientNoise)), default=1)


def limits_of(stages: Sequence[Stage], spec: UpdateSpec) -> Limits:
    """What a task's stages are calibrated by; errors as of `bounds_of` and `require_sound`."""
    require_sound(stages)
    clip = stages[0]
    assert isinstance(clip, Clip)
    bounds = bounds_of(spec, clip.bounds)
    weights = {name: clip.weights.get(name, 1.0) for name in bounds}
    whole = sum(weights.values())
    return Limits(bounds, {name: bound / (weights[name] / whole) ** 0.5 for name, bound in bounds.items()})


def private_name(task: str, stages: Sequence[Stage]) -> str:
    """The name under which devices do a task in private.

    It holds what they do and with which figures. A device that does something else, or nothing, does not know the task
    by this name, and its engine refuses before anything is computed.
    """
    return " ".join([task, *(stage.label for stage in stages if stage.label)])


def noised(update: Update, limits: Limits, multiplier: float, purpose: str, place: Place) -> Update:
    """An update with Gaussian noise of deviation z times each tensor's scale, on the tensor's grid where it has one.

    Of a symmetric tensor, entries above the diagonal get noise of their own and those below are their mirror.

    Raises
    ------
    FederationError
        If a whole number would not fit its type any more.
    """
    tensors = {}
    for name, spec in update.spec.tensors.items():
        tensor = np.asarray(update.tensors[name])
        noise = place.normal(f"{purpose} of {name}", tensor.size).reshape(tensor.shape)
        noise *= multiplier * limits.scales[name]
        if spec.layout == "triangle":
            noise = np.asarray(np.triu(noise) + np.triu(noise, 1).T, dtype=np.float64)
        tensors[name] = _on_grid(tensor, noise, spec, name)
    return Update(update.spec, tensors, update.clients)


def _on_grid(tensor: NDArray[Any], noise: NDArray[np.float64], spec: TensorSpec, name: str) -> NDArray[Any]:
    """Tensor plus noise in its own type, on its own grid."""
    if tensor.dtype.kind not in "iu":
        unit = spec.unit
        noise = noise if unit is None else np.rint(noise / unit) * unit
        return np.asarray(tensor + noise, dtype=tensor.dtype)
    noisy, limits = tensor + np.rint(noise), np.iinfo(tensor.dtype)
    if noisy.size and not limits.min <= float(noisy.min()) <= float(noisy.max()) <= limits.max:
        raise FederationError(
            f"tensor {name!r} with noise does not fit {tensor.dtype.name}: give a smaller bound or noise"
        )
    return np.asarray(noisy.astype(tensor.dtype))


def _require_multiplier(multiplier: float) -> None:
    if not (isfinite(multiplier) and multiplier > 0):
        raise ConfigError(f"the noise multiplier is {multiplier:g}: it must be positive and finite")
