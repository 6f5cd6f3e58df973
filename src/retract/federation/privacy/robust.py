"""Robust sums: what few clients with wrong updates can do to a sum is bounded.

The server must see every client's update. A secure sum hides what is needed here, so the two are refused together.
Clients may clip themselves under a secure sum (`Clip`), but who sends poison does not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from retract.errors import ConfigError, FederationError
from retract.federation.contracts import Broadcast, Engine, RoundResult, TaskSpec, Traffic
from retract.federation.participation import require_users
from retract.federation.privacy.bounds import clipped, norm_of
from retract.federation.privacy.randomness import Keyed, shuffled
from retract.federation.privacy.wrapping import hiding, users_by_client
from retract.federation.updates import Update, UpdateSpec


class Rule(Protocol):
    """Makes one sum of many clients' updates."""

    def __call__(self, updates: Sequence[Update], round: int) -> Update:
        """The sum in which each client has bounded influence; `updates` are finite, each of one client."""
        ...


class Kept(Sequence[Update]):
    """Updates of many clients, of whose tables only the rows are held that each client sent."""

    def __init__(self) -> None:
        self._held: list[tuple[UpdateSpec, dict[str, Any]]] = []

    def append(self, update: Update) -> None:
        """Hold one client's update."""
        parts: dict[str, Any] = {}
        for name, spec in update.spec.tensors.items():
            tensor = np.asarray(update.tensors[name])
            rows = touched(tensor) if spec.layout == "rows" else None
            parts[name] = tensor if rows is None else (rows, tensor[rows])
        self._held.append((update.spec, parts))

    def __len__(self) -> int:
        return len(self._held)

    @overload
    def __getitem__(self, place: int) -> Update: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Update]: ...
    def __getitem__(self, place: int | slice) -> Update | Sequence[Update]:
        """An update, its tables whole again."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        spec, parts = self._held[place]
        whole = spec.zeros()
        for name, part in parts.items():
            if isinstance(part, tuple):
                np.asarray(whole.tensors[name])[part[0]] = part[1]
        dense = {name: part for name, part in parts.items() if not isinstance(part, tuple)}
        return Update(spec, {**whole.tensors, **dense}, 1)


def touched(tensor: NDArray[Any]) -> NDArray[np.int64]:
    """The rows that are not zero, ascending."""
    return np.flatnonzero(tensor.reshape(len(tensor), -1).any(axis=1))


@dataclass(frozen=True)
class NormBound:
    """Clips every client's update to an L2 bound, tensor by tensor (Sun et al., arXiv 1911.07963, 2019).

    A client moves the sum by its bound at most, in any direction.

    Parameters
    ----------
    bounds
        By tensor.
    medians
        For the other tensors: the bound is so many times the median norm in the round, of those that are not zero. More
        than half of the clients must then be honest. None where every tensor must have a bound that is given: under
        noise, for a median depends on all clients, and then the sum depends on each by more than its bound.

    Raises
    ------
    ConfigError
        If `medians` is not positive.
    """

    bounds: Mapping[str, float] = field(default_factory=dict)
    medians: float | None = 2.0

    def __post_init__(self) -> None:
        if self.medians is not None and not self.medians > 0:
            raise ConfigError(
                f"medians is {self.medians:g}: a norm is bounded by a positive multiple of the median norm"
            )

    def __call__(self, updates: Sequence[Update], round: int) -> Update:
        """The sum of the clipped updates.

        Raises
        ------
        ConfigError
            If a tensor has no bound, and none is made of the median.
        """
        spec = updates[0].spec
        norms = np.array(
            [[norm_of(np.asarray(u.tensors[n]), t.layout) for n, t in spec.tensors.items()] for u in updates]
        )
        bounds = {name: self._bound(name, own) for name, own in zip(spec.tensors, norms.T, strict=True)}
        total = spec.zeros()
        for place, update in enumerate(updates):
            total = total + clipped(update, bounds, partial(shuffled, Keyed(0), round, place, "norm bound"))
        return total

    def _bound(self, name: str, norms: NDArray[np.float64]) -> float:
        if name in self.bounds:
            return self.bounds[name]
        if self.medians is None:
            raise ConfigError(
                f"tensor {name!r} has no bound for its norm: give one, or take a multiple of the median norm"
            )
        return self.medians * float(np.median(norms[norms > 0])) if norms.any() else 0.0


@dataclass(frozen=True)
class TrimmedMean:
    """Drops the largest and the smallest values of each coordinate, and scales the rest up to a sum.

    Of k values the ⌊β k⌋ largest and as many of the smallest go; the mean of the rest times k stands for the sum (Yin
    et al., *Byzantine-robust distributed learning*, ICML 2018, definition 2). In tables sent by rows, k counts the
    clients that send the row: over all clients nearly every value is 0, and what is not would be trimmed. So it cannot
    protect a row that fewer than 1/β clients send. Any other entry that is 0 counts.

    Parameters
    ----------
    trim
        β, at least the part of the clients that may be wrong.

    Raises
    ------
    ConfigError
        If β is not in (0, 1/2).
    """

    trim: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.trim < 0.5:
            raise ConfigError(
                f"trim is {self.trim:g}: the part that is dropped on each side must be above 0 and below 1/2"
            )

    def __call__(self, updates: Sequence[Update], round: int) -> Update:
        """The scaled trimmed mean."""
        spec: UpdateSpec = updates[0].spec
        tensors: dict[str, NDArray[Any]] = {}
        for name, tensor in spec.tensors.items():
            parts = (np.asarray(update.tensors[name]) for update in updates)
            by_rows = tensor.layout == "rows"
            summed = self._by_rows(parts, tensor.shape) if by_rows else self._trimmed(np.stack(list(parts)))
            whole = np.dtype(tensor.dtype).kind in "iu"
            tensors[name] = np.asarray(np.rint(summed) if whole else summed, dtype=tensor.dtype)
        return Update(spec, tensors, len(updates))

    def _trimmed(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Of values of shape [k, ...], the trimmed mean times k."""
        k = len(values)
        dropped = int(self.trim * k)
        rest = np.sort(values.astype(np.float64), axis=0)[dropped : k - dropped]
        found: NDArray[np.float64] = rest.mean(axis=0) * k
        return found

    def _by_rows(self, parts: Iterable[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Each row's trimmed mean over those that send it, times how many they are."""
        sent = [(own, part[own]) for part in parts for own in [touched(part)]]
        rows, values = (np.concatenate(columns) for columns in zip(*sent, strict=True))
        order = np.argsort(rows, kind="stable")
        names, first = np.unique(rows[order], return_index=True)
        summed = np.zeros(shape)
        for row, group in zip(names, np.split(order, first[1:]), strict=True):
            summed[row] = self._trimmed(values[group])
        return summed


class RobustEngine:
    """An engine whose sums are robust (an `Engine`).

    It asks the engine within for one client at a time. A client whose update does not fit, or is not finite, is left
    out of the sum and counted as missing.

    Parameters
    ----------
    engine
        Reaches the devices, and shows each one's update.
    rule
        Makes the sum.

    Raises
    ------
    ConfigError
        If the engine gives sums only, as secure and private ones do.
    """

    def __init__(self, engine: Engine, rule: Rule) -> None:
        kind = hiding(engine)
        if kind is not None:
            raise ConfigError(
                f"{kind} gives sums only, and {type(rule).__name__} must see every client's update: choose one"
            )
        self.engine, self.rule = engine, rule
        self.traffic = Traffic()

    @property
    def users(self) -> NDArray[np.int64]:
        """Of the engine within."""
        return self.engine.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user."""
        return self.engine.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Run a task and make a robust sum; see `Engine`.

        Raises
        ------
        ConfigError
            If no user is given.
        FederationError
            If no client's update fits.
        """
        require_users(users)
        began = time.perf_counter()
        good, here, up, down = Kept(), list[NDArray[np.int64]](), 0, 0
        refused: FederationError | None = None
        for own in users_by_client(self.engine, users).values():
            try:
                result = self.engine.run(spec, broadcast, own, seed=seed)
            except FederationError as error:
                refused = error
                continue
            up, down = up + result.bytes_up, down + result.bytes_down
            if result.update.clients and is_finite(result.update):
                good.append(result.update)
                here.append(result.answered)
        if refused is not None and not good:
            raise refused
        update = self.rule(good, broadcast.round) if good else spec.update.zeros()
        answered = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *here]))
        found = RoundResult(update, answered, np.setdiff1d(users, answered), up, down)
        self.traffic.add(found, time.perf_counter() - began, update.clients)
        return found


def is_finite(update: Update) -> bool:
    """Whether all values are finite numbers."""
    return all(bool(np.isfinite(np.asarray(tensor)).all()) for tensor in update.tensors.values())
