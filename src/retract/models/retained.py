"""What sums over users are made from, kept so that a change of a few users costs no more than they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.workers import THREADS, workers

Values = NDArray[np.float64]
Codes = NDArray[np.int64]
Result = TypeVar("Result")
BLOCK = 500_000
"""Entries of G that a worker holds at once: bounds the memory, never the result."""
PARTS = 16
"""Into so many for each worker the items are parted at most."""


@dataclass(eq=False)
class Retained:
    """X and ω, from which any rows of G = Xᵀ diag(ω) X can be summed; rows that have changed lie beside the others.

    Parameters
    ----------
    matrix
        X, ones, shape [n_users, n_items].
    weights
        ω, shape [n_users]; multiples of `retract.models.gram.UNIT`, not negative.
    transposed
        Xᵀ, if it is at hand. Else a few rows find their users by one look through X, and many have it made.
    replaced
        Users of X, ascending, whose rows there count for nothing any more; they lie there until X is laid out anew.
    later
        Rows that take the place of these, and those of new users, with their users and weights.
    """

    matrix: sp.csr_matrix
    weights: Values
    transposed: sp.csr_matrix | None = None
    replaced: Codes = field(default_factory=lambda: np.empty(0, dtype=np.int64), repr=False)
    later: tuple[Codes, sp.csr_matrix, Values] | None = field(default=None, repr=False)

    few: ClassVar[int] = 16
    """Up to n_items / few rows count as few."""

    def changed(self, users: Codes, rows: sp.csr_matrix, weights: Values) -> Retained:
        """The same where some users have other rows; this one stays as it is.

        Parameters
        ----------
        users
            Whose rows change, shape [k]; they may be new.
        rows, weights
            Their rows now, shape [k, n_items], and ω of these; 0 for who has nothing left.
        """
        have, n_items = weights > 0, rows.shape[1]
        codes, kept, held = users[have], sp.csr_matrix(rows[have]), weights[have]
        if self.later is not None:
            stays = ~np.isin(self.later[0], users)
            before = _wider(sp.csr_matrix(self.later[1][stays]), n_items)
            codes = np.concatenate([self.later[0][stays], codes])
            kept = sp.csr_matrix(sp.vstack([before, kept], format="csr"))
            held = np.concatenate([self.later[2][stays], held])
        transposed = self.transposed
        if transposed is not None and transposed.shape[0] < n_items:
            transposed = None
        return replace(
            self,
            matrix=_wider(self.matrix, n_items),
            transposed=transposed,
            replaced=np.union1d(self.replaced, users[users < len(self.weights)]),
            later=(codes, kept, held) if len(codes) else None,
        )

    @property
    def gone(self) -> int:
        """Interactions of X that count for nothing any more."""
        return int((self.matrix.indptr[self.replaced + 1] - self.matrix.indptr[self.replaced]).sum())

    @property
    def is_patchwork(self) -> bool:
        """Whether more than a hundredth of X has gone, or lies beside it: then it is time to lay it out anew."""
        beside = 0 if self.later is None else self.later[1].nnz
        return 100 * max(self.gone, beside) > self.matrix.nnz

    def indexed(self) -> Retained:
        """The same, with Xᵀ at hand: then summing a few rows anew takes no look through all of X."""
        if self.transposed is None:
            self.transposed = sp.csr_matrix(self.matrix.T.tocsr())
        return self

    def sum_rows(self, items: Codes, reduce: Callable[[Values, Codes], Result]) -> Iterator[tuple[Codes, Result]]:
        """What is made of some rows of G, dense, part by part: many by all workers, few by our own threads.

        Parameters
        ----------
        items
            Whose rows, each once.
        reduce
            Called with some rows of G, shape [n, n_items], to be written into at will, and their items; picklable.

        Yields
        ------
        items, result
            Of some of the items, and what was made of their rows.
        """
        if not len(items):
            return
        holders, places = self._holders(items)
        by = workers() if self._many(items) else THREADS
        parts = min(PARTS * by.count, -(-len(items) * self.matrix.shape[1] // BLOCK))
        pieces = [(items[part::parts], places[part::parts]) for part in range(parts)]  # sorted items: of like work
        standing = self.weights.copy()
        standing[self.replaced] = 0
        lent = self.matrix, standing, self.later, holders
        for found in by.map(partial(_summed, reduce=reduce), pieces, *lent):
            yield from found

    def _many(self, items: Codes) -> bool:
        return len(items) * self.few > self.matrix.shape[1]

    def _holders(self, items: Codes) -> tuple[sp.csr_matrix, Codes]:
        """Rows of Xᵀ, and which of them are those of the items."""
        n_users, n_items = self.matrix.shape
        if self.transposed is None and self._many(items):
            self.indexed()
        if self.transposed is not None:
            return self.transposed, items
        place = np.zeros(n_items, dtype=np.int64)
        place[items] = np.arange(len(items))
        wanted = np.zeros(n_items, dtype=np.bool_)
        wanted[items] = True
        at = np.flatnonzero(wanted[self.matrix.indices])
        users = np.searchsorted(self.matrix.indptr, at, side="right") - 1
        pairs = place[self.matrix.indices[at]], users
        return sp.csr_matrix((np.ones(len(at)), pairs), shape=(len(items), n_users)), np.arange(len(items))


def _summed(
    piece: tuple[Codes, Codes],
    matrix: sp.csr_matrix,
    weights: Values,
    later: tuple[Codes, sp.csr_matrix, Values] | None,
    holders: sp.csr_matrix,
    reduce: Callable[[Values, Codes], Result],
) -> list[tuple[Codes, Result]]:
    """See `Retained.sum_rows`, a block at a time; `piece` names items and their rows of Xᵀ, `holders`."""
    n_items, found = matrix.shape[1], list[tuple[Codes, Result]]()
    step = max(1, BLOCK // n_items)
    for begin in range(0, len(piece[0]), step):
        items, places = (codes[begin : begin + step] for codes in piece)
        sums = np.empty((len(items), n_items))
        for row, place in enumerate(places.tolist()):  # slices, and products of C: much faster than of two matrices
            users = holders.indices[holders.indptr[place] : holders.indptr[place + 1]]
            sums[row] = matrix[users].T @ weights[users]
        if later is not None:
            own = sp.csr_matrix(later[1][:, items].T)
            own.data = own.data * later[2][own.indices]
            sums += (own @ later[1]).toarray()
        found.append((items, reduce(sums, items)))
    return found


def _wider(matrix: sp.csr_matrix, n_items: int) -> sp.csr_matrix:
    """The same with columns for new items."""
    if matrix.shape[1] == n_items:
        return matrix
    return sp.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], n_items))
