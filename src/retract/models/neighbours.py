"""The few largest sums of every item: a weighted Gram matrix cut to its neighbours, kept up as users come and go.

Of every row of G = Xᵀ diag(ω) X the m largest entries off the diagonal are served, of equals those of the lower items:
a function of the sums alone, which are exact. To keep it so at little cost, a row lists some entries more, of which it
is certain that all others come after them. A change moves the listed ones, and the row loses those that an unlisted
one may have passed. Only a row that has fewer than m left is summed anew, from what is retained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.models.gram import UNIT
from retract.models.recommender import kth_of_blocks
from retract.models.retained import Retained

Ids = NDArray[np.int32]
Values = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]

SCRATCH = 2_000_000
"""Entries of a change that are laid out densely at once: bounds the memory, never the result."""
KEY_BITS = 62
"""A key has room for so many bits of value and item together."""


@dataclass(frozen=True, eq=False)
class _Lists:
    """Lists of neighbours, best first, shape [n, width]; a short list ends in the item -1 with the value 0."""

    ids: Ids
    values: Values

    def __getitem__(self, rows: Codes | slice) -> _Lists:
        return _Lists(self.ids[rows], self.values[rows])

    def __setitem__(self, rows: Codes | slice, lists: _Lists) -> None:
        self.ids[rows], self.values[rows] = lists.ids, lists.values

    def first(self, width: int) -> tuple[_Lists, Flags]:
        """The lists cut to a width that they exceed, and which lose nothing."""
        return _Lists(self.ids[:, :width], self.values[:, :width]), self.values[:, width] == 0

    @property
    def lengths(self) -> Codes:
        """Entries of each list, shape [n]."""
        lengths: Codes = np.count_nonzero(self.values, axis=1).astype(np.int64)
        return lengths


class _Arena:
    """Room for the lists of n items and for n changed ones. None is written over while another table may read it."""

    def __init__(self, n_items: int, width: int) -> None:
        shape = (2 * n_items + 1, width)
        self.lists = _Lists(np.empty(shape, dtype=np.int32), np.empty(shape))
        self.used, self._lock = n_items, Lock()

    def take(self, count: int) -> Codes | None:
        """So many places that nobody has; None if there are not enough left."""
        with self._lock:
            begin = self.used
            if begin + count > len(self.lists.ids):
                return None
            self.used += count
        return np.arange(begin, begin + count)


def _sorted(ids: NDArray[Any], values: Values, n_items: int) -> _Lists:
    """Entries in order, greatest value first, of equals the lower item first; those of value 0 come last, as none.

    An entry is made one whole number, since these are sorted the fastest.
    """
    bits = int(n_items).bit_length()
    levels, distinct = (values * (1 / UNIT)).astype(np.int64), None
    if int(levels.max(initial=0)) >> (KEY_BITS - bits):  # too large to stand beside an item: count them
        distinct, ranks = np.unique(np.append(values.ravel(), 0.0), return_inverse=True)
        levels = ranks.ravel()[:-1].reshape(values.shape).astype(np.int64)
    keys = (ids & ((1 << bits) - 1)) - (levels << bits)
    keys.sort(axis=1)
    levels = -(keys >> bits)
    found = np.where(levels > 0, keys & ((1 << bits) - 1), -1).astype(np.int32)
    return _Lists(found, levels * UNIT if distinct is None else distinct[levels])


class Neighbours:
    """The m largest entries off the diagonal of every row of G. A change makes a new one that shares what stays.

    Make one with `made` or `read`.

    Parameters
    ----------
    arena, place
        Where the lists are, and each item's place among them, shape [n_items].
    complete
        Whether a list has all that is not zero of its row, shape [n_items].
    m
        How many entries are served of a list.
    """

    def __init__(self, arena: _Arena, place: Codes, complete: Flags, m: int) -> None:
        self._arena, self._place, self.complete, self.m = arena, place, complete, m
        self.n_items, self.width = len(place), int(arena.lists.ids.shape[1])

    few = 32
    """Up to so many users are scored list by list; for more, the served lists are made a matrix once."""

    @classmethod
    def made(cls, retained: Retained, m: int, slack: int) -> Neighbours:
        """From nothing.

        Parameters
        ----------
        m
            How many entries a row serves, at least 1.
        slack
            How many more it lists.
        """
        n = int(retained.matrix.shape[1])
        new = cls(_Arena(n, m + slack), np.arange(n), np.zeros(n, dtype=np.bool_), m)
        new._sum_anew(np.arange(n), retained)
        return new

    def lists(self, items: NDArray[Any]) -> tuple[Ids, Values]:
        """What is served of some items: ids and values, shape [n, m]; short rows end in -1 and 0."""
        place = self._place[items]
        return self._arena.lists.ids[place, : self.m], self._arena.lists.values[place, : self.m]

    def over(self, n_items: int) -> Neighbours:
        """The same over a larger catalog, in which nobody has touched the new items yet."""
        more = n_items - self.n_items
        if not more:
            return self
        room = self._arena.take(1)
        if room is None:
            return self._copied().over(n_items)
        self._arena.lists.ids[room], self._arena.lists.values[room] = -1, 0  # one empty list for all of them
        complete = np.append(self.complete, np.ones(more, dtype=np.bool_))
        return Neighbours(self._arena, np.append(self._place, np.repeat(room, more)), complete, self.m)

    def _copied(self) -> Neighbours:
        """The same with memory of its own, and room for changes."""
        n, old = self.n_items, self._arena.lists
        arena = _Arena(n, self.width)
        old.ids.take(self._place, axis=0, out=arena.lists.ids[:n], mode="clip")  # which takes no other memory
        old.values.take(self._place, axis=0, out=arena.lists.values[:n], mode="clip")
        return Neighbours(arena, np.arange(n), self.complete, self.m)

    def changed(self, change: sp.csr_matrix, retained: Retained) -> Neighbours:
        """The neighbours of G + C.

        Parameters
        ----------
        change
            C, signed, symmetric, exact, without explicit zeros, shape [n_items, n_items].
        retained
            What G + C is summed from. Only read where a list has become too short.
        """
        touched = np.flatnonzero(np.diff(change.indptr))
        step = max(1, SCRATCH // (len(touched) + 1))
        return self._moved(touched, _Moving(change, touched, min(step, len(touched)), self.n_items), step, retained)

    def without(self, users: sp.csr_matrix, weights: Values, retained: Retained) -> Neighbours:
        """The neighbours of G without some users: as `changed`, but much faster, for only listed sums are looked at.

        Parameters
        ----------
        users
            Their rows of X, ones, shape [r, n_items].
        weights
            ω of these, shape [r].
        retained
            As of `changed`.
        """
        touched = np.unique(users.indices).astype(np.int64)
        return self._moved(touched, _Leaving(users, weights, self.n_items), max(1, SCRATCH // self.width), retained)

    def _moved(self, touched: Codes, moving: _Moving | _Leaving, step: int, retained: Retained) -> Neighbours:
        """The neighbours after the lists of some items have changed, so many of them at a time."""
        if not len(touched):
            return self
        room, into = self._arena.take(len(touched)), self
        if room is None:
            into, room = self._copied(), touched
        arena, place, complete = into._arena, into._place.copy(), self.complete.copy()
        place[touched] = room
        new, short = Neighbours(arena, place, complete, self.m), list[Codes]()
        for begin in range(0, len(touched), step):
            rows = touched[begin : begin + step]
            lists, complete[rows] = moving.moved(rows, self._arena.lists[self._place[rows]], self.complete[rows])
            arena.lists[room[begin : begin + step]] = lists
            short.append(rows[~complete[rows] & (lists.values[:, self.m - 1] == 0)])
        if len(again := np.concatenate(short)):
            new._sum_anew(again, retained)
        return new

    def _sum_anew(self, items: Codes, retained: Retained) -> None:
        """Rows from what is retained. Before anybody reads this table, and where the rows' places are its own."""
        self.summed = len(items)
        for rows, (lists, complete) in retained.sum_rows(items, partial(_largest, width=self.width)):
            self._arena.lists[self._place[rows]], self.complete[rows] = lists, complete

    summed = 0
    """How many rows had to be summed anew to make this table from the one before."""

    def served_only(self) -> Neighbours:
        """The same without the entries that are not served, whose number tells of former changes.

        What is left is a function of the sums alone. Its rows are the sooner summed anew.
        """
        new = self._copied()
        lists = new._arena.lists[slice(self.n_items)]
        lists.ids[:, self.m :], lists.values[:, self.m :] = -1, 0
        new.complete = lists.values[:, self.m - 1] == 0
        return new

    @cached_property
    def total(self) -> sp.csr_matrix:
        """What is served as one matrix, shape [n_items, n_items], zero on the diagonal; indices in no order."""
        ids, values = self.lists(np.arange(self.n_items))
        listed = values > 0
        indptr = np.append(0, np.cumsum(np.count_nonzero(listed, axis=1)))
        return sp.csr_matrix((values[listed], ids[listed], indptr), shape=(self.n_items, self.n_items))

    def of(self, users: sp.csr_matrix) -> NDArray[np.float64]:
        """Rows of users times what is served, dense, shape [len(users), n_items]. G's diagonal has no part in it."""
        if users.shape[0] > self.few:
            product: NDArray[np.float64] = (users @ self.total).toarray()
            return product
        found = np.empty((users.shape[0], self.n_items))
        for row, (begin, end) in enumerate(zip(users.indptr[:-1], users.indptr[1:], strict=True)):
            ids, values = self.lists(users.indices[begin:end])
            weighted = values * users.data[begin:end, None]
            found[row] = np.bincount(np.maximum(ids, 0).ravel(), weighted.ravel(), self.n_items)
        return found

    @property
    def tables(self) -> Mapping[str, NDArray[Any]]:
        """Named arrays: "ids" and "values", row after row; rows' "lengths", "complete"; "limits": m and the width."""
        lists = self._arena.lists[self._place]
        listed = lists.values > 0
        flat: dict[str, NDArray[Any]] = {
            "ids": lists.ids[listed],
            "values": lists.values[listed],
            "lengths": lists.lengths,
        }
        return {**flat, "complete": self.complete, "limits": np.array([self.m, self.width])}

    @classmethod
    def read(cls, tables: Mapping[str, NDArray[Any]]) -> Neighbours:
        """Back from `tables`."""
        m, width = (int(limit) for limit in tables["limits"])
        n = len(tables["lengths"])
        arena = _Arena(n, width)
        lists = arena.lists[:n]
        lists.ids[:], lists.values[:] = -1, 0
        listed = np.arange(width) < tables["lengths"][:, None]
        lists.ids[listed], lists.values[listed] = tables["ids"], tables["values"]
        return cls(arena, np.arange(n), tables["complete"].copy(), m)


class _Moving:
    """A change C with its rows that are not empty, and the scratch in which it meets so many lists at a time."""

    def __init__(self, change: sp.csr_matrix, touched: Codes, rows: int, n_items: int) -> None:
        self.change, self.n_items = change, n_items
        self.columns = np.full(n_items + 1, len(touched), dtype=np.int32)  # all that C leaves alone share the last
        self.columns[touched] = np.arange(len(touched))
        self.stride = len(touched) + 1
        self.scratch = np.zeros(rows * self.stride)

    def moved(self, rows: Codes, lists: _Lists, complete: Flags) -> tuple[_Lists, Flags]:
        """Their lists after the change, without what is no longer certain; and which are complete."""
        begins, own = self.change.indptr[rows], np.diff(self.change.indptr)[rows]
        part = slice(int(begins[0]), int(begins[-1] + own[-1]))
        line = np.arange(len(rows)) * self.stride
        at = np.repeat(line, own) + self.columns[self.change.indices[part]]
        self.scratch[at] = self.change.data[part]
        self.scratch[line + self.columns[rows]] = 0  # the diagonal is nobody's neighbour
        listed = line[:, None] + self.columns[lists.ids]
        values = lists.values + self.scratch[listed]
        self.scratch[listed] = 0
        others = self.scratch[at]
        self.scratch[at] = 0
        rises = np.maximum(np.maximum.reduceat(others, begins - begins[0]), 0)
        certain = complete[:, None] | _before_all_others(values, lists, rises)
        values[~certain] = 0
        new = _sorted(lists.ids, values, self.n_items)
        joined = np.flatnonzero(complete & (rises > 0))
        complete = complete.copy()
        if len(joined):
            some = np.flatnonzero(complete[np.repeat(np.arange(len(rows)), own)] & (others > 0))
            row = np.searchsorted(begins - begins[0], some, side="right") - 1
            ids = self.change.indices[part][some]
            new[joined], complete[joined] = self._joined(new[joined], np.searchsorted(joined, row), ids, others[some])
        return new, complete

    def _joined(self, lists: _Lists, row: Codes, ids: NDArray[Any], values: Values) -> tuple[_Lists, Flags]:
        """Complete lists with new entries, one per `row`, ascending; and which have room for all of them."""
        width = lists.ids.shape[1]
        begins = np.searchsorted(row, np.arange(len(lists.ids)))
        column = width + np.arange(len(row)) - begins[row]
        shape = (len(lists.ids), int(column.max(initial=width)) + 1)
        all_ids, all_values = np.full(shape, -1, dtype=np.int64), np.zeros(shape)
        all_ids[:, :width], all_values[:, :width] = lists.ids, lists.values
        all_ids[row, column], all_values[row, column] = ids, values
        return _sorted(all_ids, all_values, self.n_items).first(width)


class _Leaving:
    """Users who go with all that they have. Sums only fall then, so that none that is not listed passes one that is."""

    def __init__(self, users: sp.csr_matrix, weights: Values, n_items: int) -> None:
        self.users, self.weights, self.n_items = users, weights, n_items

    def moved(self, rows: Codes, lists: _Lists, complete: Flags) -> tuple[_Lists, Flags]:
        """As of `_Moving`."""
        line = np.full(self.n_items, -1, dtype=np.int32)
        line[rows] = np.arange(len(rows))
        has, values = np.zeros(self.n_items + 1), lists.values.copy()  # a short list ends in -1, which nobody has
        for begin, end, weight in zip(self.users.indptr[:-1], self.users.indptr[1:], self.weights, strict=True):
            own = self.users.indices[begin:end]
            at = line[own]
            at = at[at >= 0]
            has[own] = weight
            values[at] -= has[lists.ids[at]]
            has[own] = 0
        certain = complete[:, None] | _before_all_others(values, lists, np.zeros(len(rows)))
        values[~certain] = 0
        return _sorted(lists.ids, values, self.n_items), complete


def _before_all_others(values: Values, lists: _Lists, rises: Values) -> Flags:
    """Whether listed entries, of these values after the change, still come before all that their rows do not list.

    Before it, an unlisted one came after the last of its list; since then it has risen by `rises` at most.
    """
    end = np.maximum(lists.lengths - 1, 0)[:, None]
    bound = np.take_along_axis(lists.values, end, axis=1) + rises[:, None]
    level = (values == bound) & (rises == 0)[:, None] & (lists.ids <= np.take_along_axis(lists.ids, end, axis=1))
    before: Flags = (values > bound) | level
    return before


def _largest(sums: Values, items: Codes, width: int) -> tuple[_Lists, Flags]:
    """The first entries off the diagonal of some rows of G, shape [n, n_items], and which rows have no others."""
    n, n_items = sums.shape
    sums[np.arange(n), items] = 0
    least = kth_of_blocks(sums, width + 1) if width < n_items else np.zeros(n)
    row, ids = np.divmod(np.flatnonzero(sums >= np.maximum(least, UNIT)[:, None]), n_items)
    begins = np.searchsorted(row, np.arange(n))
    column = np.arange(len(row)) - begins[row]
    shape = (n, max(int(column.max(initial=0)), width) + 1)
    all_ids, all_values = np.full(shape, -1, dtype=np.int64), np.zeros(shape)
    all_ids[row, column], all_values[row, column] = ids, sums[row, ids]
    return _sorted(all_ids, all_values, n_items).first(width)
