"""Robust sums: what few clients with wrong updates can do to a sum is bounded.

The server must see every client's update. A secure sum hides what is needed here, so the two are refused together.
Clients may clip themselves under a secure sum (`Clip`), but who sends poison does not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retract.errors import ConfigError, FederationError
from retract.federation.contracts import Broadcast, Engine, RoundResult, TaskSpec, Traffic
from retract.federation.participation import require_users
from retract.federation.privacy.bounds import Order, clipped, norm_of
from retract.federation.privacy.randomness import Keyed, shuffled
from retract.federation.privacy.wrapping import hiding, users_by_client
from retract.federation.updates import Update, UpdateSpec


@dataclass(frozen=True)
class Sent:
    """One client's update, of whose tables laid out by rows only those rows are held that it sent.

    Parameters
    ----------
    rows
        Their numbers, ascending, by table.
    update
        The rest: an update whose tables are as long.
    """

    rows: Mapping[str, NDArray[np.int64]]
    update: Update

    @classmethod
    def of(cls, update: Update) -> Sent:
        """What is not zero of an update of one client."""
        rows, tensors, specs = {}, {}, {}
        for name, spec in update.spec.tensors.items():
            tensor = np.asarray(update.tensors[name])
            if spec.layout == "rows":
                rows[name] = np.flatnonzero(tensor.reshape(len(tensor), -1).any(axis=1))
                tensor = tensor[rows[name]]
            tensors[name], specs[name] = tensor, replace(spec, shape=tensor.shape)
        return cls(rows, Update(UpdateSpec(specs), tensors, update.clients))

    def within(self, bounds: Mapping[str, float], order: Order) -> Sent:
        """The same within bounds; see `clipped`."""
        return Sent(self.rows, clipped(self.update, bounds, order))


class Rule(Protocol):
    """Makes one sum of many clients' updates."""

    def __call__(self, sent: Sequence[Sent], spec: UpdateSpec, round: int) -> Update:
        """The sum in which each client has bounded influence; the updates are finite, and one at least."""
        ...


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

    def __call__(self, sent: Sequence[Sent], spec: UpdateSpec, round: int) -> Update:
        """The sum of the clipped updates.

        Raises
        ------
        ConfigError
            If a tensor has no bound, and none is made of the median.
        """
        bounds = {name: self._bound(name, sent) for name in spec.tensors}
        total = {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in spec.tensors.items()}
        for place, each in enumerate(sent):
            kept = each.within(bounds, partial(shuffled, Keyed(0), round, place, "norm bound"))
            for name, sums in total.items():
                sums[kept.rows.get(name, ...)] += kept.update.tensors[name]
        return Update(spec, total, len(sent))

    def _bound(self, name: str, sent: Sequence[Sent]) -> float:
        if name in self.bounds:
            return self.bounds[name]
        if self.medians is None:
            raise ConfigError(f"tensor {name!r} has no bound for its norm: give one, or take a multiple of the median")
        layout = sent[0].update.spec.tensors[name].layout
        norms = np.array([norm_of(np.asarray(each.update.tensors[name]), layout) for each in sent])
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

    def __call__(self, sent: Sequence[Sent], spec: UpdateSpec, round: int) -> Update:
        """The scaled trimmed mean."""
        tensors: dict[str, NDArray[Any]] = {}
        for name, tensor in spec.tensors.items():
            parts = [np.asarray(each.update.tensors[name]) for each in sent]
            if tensor.layout == "rows":
                summed = self._by_rows([each.rows[name] for each in sent], parts, tensor.shape)
            else:
                summed = self._trimmed(np.stack(parts))
            whole = np.dtype(tensor.dtype).kind in "iu"
            tensors[name] = np.asarray(np.rint(summed) if whole else summed, dtype=tensor.dtype)
        return Update(spec, tensors, len(sent))

    def _trimmed(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Of values of shape [k, ...], the trimmed mean times k."""
        k = len(values)
        dropped = int(self.trim * k)
        rest = np.sort(values.astype(np.float64), axis=0)[dropped : k - dropped]
        found: NDArray[np.float64] = rest.mean(axis=0) * k
        return found

    def _by_rows(
        self, sent: Sequence[NDArray[np.int64]], parts: Sequence[NDArray[Any]], shape: tuple[int, ...]
    ) -> NDArray[np.float64]:
        """Each row's trimmed mean over those that send it, times how many they are."""
        rows, values = np.concatenate(sent), np.concatenate(parts)
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
        good, here, up, down = list[Sent](), list[NDArray[np.int64]](), 0, 0
        refused: FederationError | None = None
        for own in users_by_client(self.engine, users).values():
            try:
                result = self.engine.run(spec, broadcast, own, seed=seed)
            except FederationError as error:
                refused = error
                continue
            up, down = up + result.bytes_up, down + result.bytes_down
            if result.update.clients and is_finite(result.update):
                good.append(Sent.of(result.update))
                here.append(result.answered)
        if refused is not None and not good:
            raise refused
        update = self.rule(good, spec.update, broadcast.round) if good else spec.update.zeros()
        answered = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *here]))
        found = RoundResult(update, answered, np.setdiff1d(users, answered), up, down)
        self.traffic.add(found, time.perf_counter() - began, update.clients)
        return found


def is_finite(update: Update) -> bool:
    """Whether all values are finite numbers."""
    return all(bool(np.isfinite(np.asarray(tensor)).all()) for tensor in update.tensors.values())
