"""Interactions: the frozen set of (user, item[, rating, timestamp]) that every room speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retract.data.catalog import Catalog
from retract.errors import DataError

if TYPE_CHECKING:
    import scipy.sparse as sp

Column = NDArray[Any]
FEW = 64
"""Up to one in so many users are looked up one by one, without counting all."""
FEW_PIECES = 1000
"""Up to so many interactions are cut out of a set piece by piece, which is faster than by a mask."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """A set of interactions over a catalog, sorted by (user, item), each pair once.

    Build one with `Interactions.of`, which sorts, validates and makes one of equal pairs; the constructor trusts what
    it gets.

    Parameters
    ----------
    catalog
        The ids behind the codes.
    users, items
        Codes, int64, shape [n].
    ratings
        float32, shape [n], or None for implicit feedback.
    timestamps
        Seconds since 1970, int64, shape [n], or None.
    duplicates
        How many repeated pairs were dropped when this set was made.
    """

    catalog: Catalog
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float32] | None = None
    timestamps: NDArray[np.int64] | None = None
    duplicates: int = field(default=0, compare=False)

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        users: ArrayLike,
        items: ArrayLike,
        ratings: ArrayLike | None = None,
        timestamps: ArrayLike | None = None,
    ) -> Interactions:
        """Sort, validate and make one of equal pairs: the latest time counts, and of several ratings then their mean.

        The order of the input never matters.

        Raises
        ------
        DataError
            If the columns differ in length, a code lies outside the catalog, or a rating is not a finite number.
        """
        user_codes = np.asarray(users, dtype=np.int64)
        item_codes = np.asarray(items, dtype=np.int64)
        rating_values = None if ratings is None else np.asarray(ratings, dtype=np.float32)
        times = None if timestamps is None else np.asarray(timestamps, dtype=np.int64)
        for name, column in (("items", item_codes), ("ratings", rating_values), ("timestamps", times)):
            if column is not None and len(column) != len(user_codes):
                raise DataError(f"{name} has {len(column)} values, users has {len(user_codes)}: make them equally long")
        _check_codes("user", user_codes, catalog.n_users)
        _check_codes("item", item_codes, catalog.n_items)
        if rating_values is not None and not np.isfinite(rating_values).all():
            row = int(np.flatnonzero(~np.isfinite(rating_values))[0])
            raise DataError(f"rating at row {row} is {rating_values[row]}: ratings must be finite numbers")
        keys = user_codes * catalog.n_items + item_codes
        if len(keys) > 1 and not (keys[1:] > keys[:-1]).all():
            rows, begins = latest_of_each(keys, catalog.n_users * catalog.n_items, times)
            first = rows[begins] if len(rows) > len(begins) else rows
            user_codes, item_codes = user_codes[first], item_codes[first]
            rating_values = None if rating_values is None else _means(rating_values[rows], begins)
            times = None if times is None else times[first]
        else:  # columns of its own: what the caller does to its arrays later must not change a frozen set
            user_codes, item_codes = user_codes.copy(), item_codes.copy()
            rating_values = None if rating_values is None else rating_values.copy()
            times = None if times is None else times.copy()
        return cls(catalog, user_codes, item_codes, rating_values, times, len(keys) - len(user_codes))

    @classmethod
    def empty(cls, catalog: Catalog) -> Interactions:
        """No interaction at all."""
        none = np.empty(0, dtype=np.int64)
        return cls(catalog, none, none)

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"Interactions({len(self):,} of {self.n_users:,} users and {self.n_items:,} items)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interactions) and (
            self.catalog.same_as(other.catalog) and np.array_equal(self.keys, other.keys)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def n_users(self) -> int:
        """Users of the catalog, also those without an interaction here."""
        return self.catalog.n_users

    @property
    def n_items(self) -> int:
        """Items of the catalog, also those without an interaction here."""
        return self.catalog.n_items

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """One ascending number per interaction, user * n_items + item."""
        return self.users * self.n_items + self.items

    @cached_property
    def indptr(self) -> NDArray[np.int64]:
        """Row pointers: user u's interactions are [indptr[u], indptr[u + 1])."""
        return np.searchsorted(self.users, np.arange(self.n_users + 1)).astype(np.int64)

    def csr(self, values: ArrayLike | None = None) -> sp.csr_matrix:
        """The user x item matrix, float32; of ones unless `values` (shape [n]) are given."""
        import scipy.sparse as sp  # as long to import as all else here together, and few need it

        data = np.ones(len(self), dtype=np.float32) if values is None else np.asarray(values, dtype=np.float32)
        return sp.csr_matrix((data, self.items, self.indptr), shape=(self.n_users, self.n_items))

    def items_of(self, user: int) -> NDArray[np.int64]:
        """The item codes of one user, ascending."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def places_of(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row pointers of some users, in their order, and where their interactions stand in this set's columns."""
        begins, ends = self._bounds_of(users)
        indptr: NDArray[np.int64] = np.concatenate([[0], np.cumsum(ends - begins)]).astype(np.int64)
        return indptr, np.arange(indptr[-1]) + np.repeat(begins - indptr[:-1], ends - begins)

    def _bounds_of(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the interactions of some users begin and end."""
        if "indptr" in vars(self) or len(users) * FEW > self.n_users:
            return self.indptr[users], self.indptr[users + 1]
        return np.searchsorted(self.users, users), np.searchsorted(self.users, users, side="right")

    def rows_of(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row pointers and items of some users, in their order: shapes [len(users) + 1] and [n]."""
        indptr, places = self.places_of(users)
        return indptr, self.items[places]

    def user_degrees(self) -> NDArray[np.int64]:
        """Interactions per user, shape [n_users]; counted once, so not to be written into."""
        return self._user_degrees

    @cached_property
    def _user_degrees(self) -> NDArray[np.int64]:
        return np.diff(self.indptr)

    def item_degrees(self) -> NDArray[np.int64]:
        """Interactions per item, shape [n_items]."""
        return np.bincount(self.items, minlength=self.n_items).astype(np.int64)

    def active_users(self) -> NDArray[np.int64]:
        """Users with at least one interaction, ascending."""
        if len(self) > self.n_users:
            return np.flatnonzero(self.user_degrees())
        return self.users[np.flatnonzero(np.diff(self.users, prepend=-1))]

    def where(self, keep: NDArray[np.bool_]) -> Interactions:
        """The interactions where `keep` (shape [n]) is true."""
        return self._map(lambda column: column[keep])

    def of_users(self, users: ArrayLike) -> Interactions:
        """The interactions of some users."""
        known = np.unique(np.asarray(users, dtype=np.int64))
        places = self.places_of(known[(known >= 0) & (known < self.n_users)])[1]
        return self._map(lambda column: column[places])

    def over(self, catalog: Catalog) -> Interactions:
        """The same interactions over a catalog that appends users and items to this one's.

        Raises
        ------
        DataError
            If `catalog` gives another code to any id of this one.
        """
        if self.catalog.same_as(catalog):
            return self
        if not self.catalog.starts(catalog):
            raise DataError("the larger catalog must hold all old ids first, in their order, and then the new ones")
        return replace(self, catalog=catalog)

    def contains(self, other: Interactions) -> NDArray[np.bool_]:
        """For each interaction of `other`, whether this set holds it; shape [len(other)]."""
        self._check_same(other)
        at = np.searchsorted(self.keys, other.keys)
        found = at < len(self.keys)
        found[found] = self.keys[at[found]] == other.keys[found]
        return found

    def __sub__(self, other: Interactions) -> Interactions:
        common = self._places_of(other)
        if len(common) > FEW_PIECES:
            keep = np.ones(len(self), dtype=np.bool_)
            keep[common] = False
            return self.where(keep)
        begins, ends = np.append(0, common + 1), np.append(common, len(self))
        pieces = [slice(a, b) for a, b in zip(begins, ends, strict=True) if b > a] or [slice(0, 0)]
        return self._map(lambda column: np.concatenate([column[piece] for piece in pieces]))

    def __and__(self, other: Interactions) -> Interactions:
        common = self._places_of(other)
        return self._map(lambda column: column[common])

    def __or__(self, other: Interactions) -> Interactions:
        """Both; where both hold a pair, this set's rating and time stay.

        A rating or timestamp column survives only if both sets have it, an empty side excepted.
        """
        extra = other - self
        if not len(extra):
            return self
        if not len(self):
            return extra

        def joined(mine: Column | None, theirs: Column | None) -> Column | None:
            return None if mine is None or theirs is None else np.concatenate([mine, theirs])

        order = np.argsort(np.concatenate([self.keys, extra.keys]), kind="stable")
        both = Interactions(
            self.catalog,
            np.concatenate([self.users, extra.users]),
            np.concatenate([self.items, extra.items]),
            joined(self.ratings, extra.ratings),
            joined(self.timestamps, extra.timestamps),
        )
        return both._map(lambda column: column[order])

    def _places_of(self, other: Interactions) -> NDArray[np.int64]:
        """Where the interactions that `other` holds too stand in this set, ascending; fast where `other` is small."""
        self._check_same(other)
        if len(users := other.active_users()) * FEW > self.n_users:
            at = np.searchsorted(self.keys, other.keys)
            inside = at < len(self)
            at, keys = at[inside], other.keys[inside]
            found: NDArray[np.int64] = at[self.keys[at] == keys]
            return found
        theirs = (other.items[a:b] for a, b in zip(*other._bounds_of(users), strict=True))
        mine = zip(*self._bounds_of(users), strict=True)
        places = [a + np.flatnonzero(np.isin(self.items[a:b], few)) for (a, b), few in zip(mine, theirs, strict=True)]
        return np.concatenate(places) if places else np.empty(0, dtype=np.int64)

    def _map(self, change: Callable[[Column], Column]) -> Interactions:
        return Interactions(
            self.catalog,
            change(self.users),
            change(self.items),
            None if self.ratings is None else change(self.ratings),
            None if self.timestamps is None else change(self.timestamps),
        )

    def _check_same(self, other: Interactions) -> None:
        if not self.catalog.same_as(other.catalog):
            raise DataError("these interactions belong to different catalogs: load them from the same data set")


def latest_of_each(
    keys: NDArray[np.int64], bound: int, times: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of each distinct key (all below `bound`), keys ascending: those of its latest time, or all of them.

    Returns
    -------
    rows
        Positions in the input.
    begins
        Where the rows of each key begin in `rows`.
    """
    n = len(keys)
    if bound * n < 2**63:  # position in the low digits: sorting numbers is thrice as fast as sorting their positions
        packed = keys * n
        packed += np.arange(n)
        packed.sort()
        keys, rows = packed // n, packed % n
    else:
        rows = np.argsort(keys, kind="stable")
        keys = keys[rows]
    begins = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    if times is None or len(begins) == n:
        return rows, begins
    counts = np.diff(begins, append=n)
    several = counts > 1
    places = np.flatnonzero(np.repeat(several, counts))  # of the rows that are not alone, which are few
    when = times[rows[places]]
    starts = np.append(0, np.cumsum(counts[several])[:-1])
    older = places[when < np.repeat(np.maximum.reduceat(when, starts), counts[several])]
    return np.delete(rows, older), begins - np.searchsorted(older, begins)


def _means(ratings: NDArray[np.float32], begins: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean of each group of ratings; groups are sorted first, so that sums do not depend on the rows' order."""
    if len(ratings) == len(begins):
        return ratings
    counts, found = np.diff(begins, append=len(ratings)), ratings[begins]
    several = counts > 1
    values = ratings[np.repeat(several, counts)].astype(np.float64)
    order = np.lexsort((values, np.repeat(np.arange(several.sum()), counts[several])))
    starts = np.append(0, np.cumsum(counts[several])[:-1])
    found[several] = np.add.reduceat(values[order], starts) / counts[several]
    return found


def _check_codes(kind: str, codes: NDArray[np.int64], bound: int) -> None:
    if len(codes) and (codes.min() < 0 or codes.max() >= bound):
        row = int(np.flatnonzero((codes < 0) | (codes >= bound))[0])
        raise DataError(f"{kind} code {codes[row]} at row {row} lies outside the catalog's 0..{bound - 1}")
