"""Updates as words modulo 2^64: fixed-point numbers in lanes, which do not disturb each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, isfinite, log2, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.errors import ConfigError, FederationError
from retract.federation.privacy.masks import Words
from retract.federation.updates import TensorSpec, Update, UpdateSpec

LANES = (16, 21, 32, 64)
"""Bits that a number may have: four, three, two or one of them to a word."""
MANTISSA = 52
"""No unit is so fine that a bounded float64 has more bits than these."""


@dataclass(frozen=True)
class Buckets:
    """Rows of a table summed by bucket: a shorter message that tells no row from others of its bucket.

    The map is public and the same for all clients. So a message says nothing about which items a client has, as a
    dense one does. What is lost is lost in the sum: each row of a bucket gets the bucket's mean. A row alone in its
    bucket is exact.

    Parameters
    ----------
    of_row
        The bucket of each row, int64, shape [n_rows]; from 0, without gaps.

    Raises
    ------
    ConfigError
        If a bucket is below 0, or one is empty.
    """

    of_row: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.of_row) or self.of_row.min() < 0 or (np.bincount(self.of_row) == 0).any():
            raise ConfigError("the buckets of rows must be numbered from 0, and each must have a row")

    @classmethod
    def head_and_hashed(cls, head: NDArray[np.int64], n_rows: int, buckets: int) -> Buckets:
        """A bucket for each row of a public set, and so many for all others, which are dealt among them by a hash.

        Parameters
        ----------
        head
            Rows that everybody knows to be frequent; each once.
        n_rows
            Rows of the table.
        buckets
            For the others; fewer where there are not so many.
        """
        rest = np.setdiff1d(np.arange(n_rows), head)
        order = rest[np.argsort(streams.bits(0, 0, rest, "buckets"), kind="stable")]
        of_row = np.empty(n_rows, dtype=np.int64)
        of_row[head] = np.arange(len(head))
        of_row[order] = len(head) + np.arange(len(rest)) % max(min(buckets, len(rest)), 1)
        return cls(of_row)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each bucket."""
        return np.bincount(self.of_row).astype(np.int64)

    def sums(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Rows summed by bucket, shape [buckets, ...]."""
        summed = np.zeros((len(self.sizes), *tensor.shape[1:]), dtype=np.result_type(tensor.dtype, np.float64))
        if tensor.dtype.kind in "iu":
            summed = summed.astype(np.int64)
        touched = np.flatnonzero(tensor.reshape(len(tensor), -1).any(axis=1))
        np.add.at(summed, self.of_row[touched], tensor[touched])
        return summed

    def spread(self, summed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each row's part of its bucket's sum, shape [n_rows, ...]."""
        sizes = self.sizes.reshape(-1, *[1] * (summed.ndim - 1))
        found: NDArray[np.float64] = (summed / sizes)[self.of_row]
        return found


@dataclass(frozen=True)
class Lane:
    """How one tensor lies in the words.

    Parameters
    ----------
    count
        Numbers.
    bits
        Of each.
    unit
        What they are multiples of.
    given
        Whether the task guarantees the unit, so that nothing is rounded.
    """

    count: int
    bits: int
    unit: float
    given: bool

    @property
    def words(self) -> int:
        """64-bit words that they take."""
        return -(-self.count // (64 // self.bits))


class Grid:
    """How the updates of one task lie in words, the same for all clients of a round.

    A number is a whole multiple of its tensor's unit: the unit that the task guarantees, 1 for whole numbers, or one
    that follows from the bound B and the number of clients n: the least power of two with which sums of n numbers of at
    most B fit the lane. With a guaranteed unit the lane is the narrowest that such sums fit, or a word if there is no
    bound. Nothing is lost then, and sums of the words are exact.

    A table laid out by rows is sent dense, or by buckets. Of a symmetric matrix the upper triangle is sent, dense.

    Parameters
    ----------
    spec
        Of the task's updates.
    clients
        How many clients a sum may have at most, n.
    bits
        Of a number whose unit is not given: 16, 21, 32 or 64.
    bounds
        L2 bounds of one client's part, by tensor, beside those of the specification.
    buckets
        For all tables laid out by rows; dense unless given.

    Raises
    ------
    ConfigError
        If a tensor has neither unit nor bound; if sums of n numbers within a bound may overflow; or if buckets are
        given for tables of another length.
    """

    def __init__(
        self,
        spec: UpdateSpec,
        clients: int,
        *,
        bits: int = 64,
        bounds: Mapping[str, float] | None = None,
        buckets: Buckets | None = None,
    ) -> None:
        if bits not in LANES:
            raise ConfigError(f"bits is {bits}: a number of a secure sum has 16, 21, 32 or 64 of them")
        self.spec, self.clients, self.buckets = spec, clients, buckets
        self.lanes = {
            name: self._lane(name, tensor, bits, (bounds or {}).get(name, tensor.bound))
            for name, tensor in spec.tensors.items()
        }

    @property
    def words(self) -> int:
        """Words of a message."""
        return sum(lane.words for lane in self.lanes.values())

    def _lane(self, name: str, tensor: TensorSpec, bits: int, bound: float | None) -> Lane:
        count, largest = prod(tensor.shape), bound
        if tensor.layout == "triangle":
            count = tensor.shape[0] * (tensor.shape[0] + 1) // 2
        elif tensor.layout == "rows" and self.buckets is not None:
            if len(self.buckets.of_row) != tensor.shape[0]:
                known = len(self.buckets.of_row)
                raise ConfigError(f"buckets are for {known:,} rows, and tensor {name!r} has {tensor.shape[0]:,}")
            count = count // tensor.shape[0] * len(self.buckets.sizes)
            if bound is not None:  # k numbers of norm B add up to B √k at most
                largest = bound * float(self.buckets.sizes.max()) ** 0.5
        whole = np.dtype(tensor.dtype).kind in "iu"
        unit = 1.0 if whole and tensor.unit is None else tensor.unit
        if unit is not None:
            return Lane(count, self._narrowest(name, unit, largest), unit, True)
        if largest is None or not (isfinite(largest) and largest > 0):
            raise ConfigError(
                f"tensor {name!r} has no unit and no bound, so it lies on no grid: give a bound for the secure sum"
            )
        finest = 2.0 ** ceil(log2(largest) - MANTISSA)
        fits = 2.0 ** ceil(log2(largest * self.clients / (2.0 ** (bits - 1) - self.clients)))
        return Lane(count, bits, max(finest, fits), False)

    def _narrowest(self, name: str, unit: float, largest: float | None) -> int:
        """The fewest bits that hold a sum of numbers whose unit is given."""
        if largest is None:
            return LANES[-1]
        for bits in LANES:
            if largest / unit * self.clients < 2.0 ** (bits - 1):
                return bits
        raise ConfigError(
            f"{self.clients:,} clients with up to {largest:g} each in tensor {name!r} may add up to more than 2^63 "
            f"units of {unit:g}: ask fewer clients, or give a smaller bound"
        )

    def encode(self, update: Update) -> Words:
        """One client's update as words, uint64, shape [words].

        Raises
        ------
        FederationError
            If the update is not of this task or not of one client; if a value is not finite, is no multiple of the
            unit that the task guarantees, or so large that n like it would overflow.
        """
        if update.spec != self.spec or update.clients != 1:
            raise FederationError("a secure sum takes the update of one client, of the task that was asked for")
        parts = [self._packed(name, self._flat(name, update), lane) for name, lane in self.lanes.items()]
        return np.concatenate(parts)

    def _flat(self, name: str, update: Update) -> NDArray[Any]:
        """The numbers of a tensor that are sent, in a row."""
        tensor, layout = np.asarray(update.tensors[name]), self.spec.tensors[name].layout
        if layout == "triangle":
            return tensor[np.triu_indices(len(tensor))]
        if layout == "rows" and self.buckets is not None:
            return self.buckets.sums(tensor).reshape(-1)
        return tensor.reshape(-1)

    def _packed(self, name: str, numbers: NDArray[Any], lane: Lane) -> Words:
        if numbers.dtype.kind == "f":
            multiples = numbers.astype(np.float64) / lane.unit
            if not np.isfinite(multiples).all():
                raise FederationError(f"tensor {name!r} of a client's update holds a value that is not finite")
            rounded = np.rint(multiples)
            if lane.given and not np.array_equal(rounded, multiples):
                raise FederationError(
                    f"tensor {name!r} holds a value that is no whole multiple of its unit {lane.unit:g}"
                )
        else:
            rounded = numbers if lane.unit == 1 else numbers / lane.unit
        largest = max(int(rounded.max(initial=0)), -int(rounded.min(initial=0)))
        if largest * self.clients >= 2 ** (lane.bits - 1):
            raise FederationError(
                f"tensor {name!r} holds {largest * lane.unit:g}, and {self.clients:,} clients with as much would "
                f"overflow {lane.bits} bits: clip it, or take a bound that holds"
            )
        return packed(rounded.astype(np.int64), lane.bits)

    def decode(self, words: Words, clients: int) -> Update:
        """The sum that some words stand for.

        Parameters
        ----------
        words
            Sum modulo 2^64 of encoded updates.
        clients
            Of how many.
        """
        tensors, begin = {}, 0
        for name, lane in self.lanes.items():
            numbers = unpacked(words[begin : begin + lane.words], lane.bits, lane.count)
            begin += lane.words
            tensors[name] = self._tensor(self.spec.tensors[name], numbers, lane)
        return Update(self.spec, tensors, clients)

    def _tensor(self, spec: TensorSpec, numbers: NDArray[np.int64], lane: Lane) -> NDArray[Any]:
        whole = np.dtype(spec.dtype).kind in "iu"
        if spec.layout == "rows" and self.buckets is not None:
            summed = (numbers * lane.unit).reshape(-1, *spec.shape[1:])
            spread = self.buckets.spread(summed)
            return np.asarray(np.rint(spread) if whole else spread, dtype=spec.dtype)
        values = numbers if lane.unit == 1 and whole else numbers * lane.unit
        if spec.layout == "triangle":
            full = np.zeros(spec.shape, dtype=spec.dtype)
            upper = np.triu_indices(spec.shape[0])
            full[upper] = values
            full.T[upper] = values
            return full
        return np.asarray(values.reshape(spec.shape), dtype=spec.dtype)


def packed(numbers: NDArray[np.int64], bits: int) -> Words:
    """Signed numbers in lanes of so many bits: word = Σ_l number_l 2^(l bits) modulo 2^64.

    A negative number borrows from the lane above; `unpacked` gives it back. So words may be added up before.
    """
    lanes = 64 // bits
    padded = np.zeros(-(-len(numbers) // lanes) * lanes, dtype=np.int64)
    padded[: len(numbers)] = numbers
    rows = padded.view(np.uint64).reshape(-1, lanes)
    words = rows[:, 0].copy()
    for lane in range(1, lanes):
        words += rows[:, lane] << np.uint64(lane * bits)
    return words


def unpacked(words: Words, bits: int, count: int) -> NDArray[np.int64]:
    """The numbers that some words hold, int64, shape [count]; each must lie within ±2^(bits - 1)."""
    lanes = 64 // bits
    if lanes == 1:
        return words.view(np.int64)[:count].copy()
    sign, mask, left = np.uint64(2 ** (bits - 1)), np.uint64(2**bits - 1), words.copy()
    rows = np.empty((len(words), lanes), dtype=np.int64)
    for lane in range(lanes):
        low = ((left & mask) ^ sign) - sign
        rows[:, lane] = low.view(np.int64)
        left = (left - low) >> np.uint64(bits)
    return rows.reshape(-1)[:count]
