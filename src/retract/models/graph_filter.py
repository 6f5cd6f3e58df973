"""The graph filter in closed form: the linear part of GF-CF (Shen et al., CIKM 2021), sparse and without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.models.neighbours import Neighbours


class ChangedGram:
    """A Gram matrix G + Δ whose large part is shared with the matrices it was changed from.

    A change costs what it touches. The two parts are added when the sum is asked for, as for saving; since all sums are
    exact, nothing of what was taken away is left in it, not even an explicit zero. Until then Δ tells what it was.

    Parameters
    ----------
    base, change
        G and Δ, shape [n, n].
    """

    def __init__(self, base: sp.csr_matrix, change: sp.csr_matrix | None = None) -> None:
        self.base = base
        self.change = change if change is not None else sp.csr_matrix(base.shape)

    def plus(self, change: sp.csr_matrix) -> ChangedGram:
        """G + Δ + another change; adds Δ to G once it has grown to a hundredth of it."""
        total = self.change + change
        grown = ChangedGram(self.base, total)
        return ChangedGram(grown.total) if 100 * total.nnz > self.base.nnz else grown

    @property
    def total(self) -> sp.csr_matrix:
        """The sum, without explicit zeros; once it is made, the parts are gone."""
        if self.change.nnz:
            total = sp.csr_matrix(self.base + self.change)
            total.eliminate_zeros()
            total.sort_indices()
            self.base, self.change = total, sp.csr_matrix(total.shape)
        return self.base

    def over(self, n_items: int) -> ChangedGram:
        """The same over a larger catalog, in which nobody has touched the new items yet."""
        total = self.total
        more = n_items - total.shape[0]
        if not more:
            return self
        indptr = np.append(total.indptr, np.full(more, total.indptr[-1], dtype=total.indptr.dtype))
        return ChangedGram(sp.csr_matrix((total.data, total.indices, indptr), shape=(n_items, n_items)))

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """Named arrays: "indptr", "indices" and "values"."""
        total = self.total
        return {"indptr": total.indptr, "indices": total.indices, "values": total.data}

    @classmethod
    def read(cls, tables: Mapping[str, NDArray[Any]]) -> ChangedGram:
        """Back from `tables`."""
        n = len(tables["indptr"]) - 1
        return cls(sp.csr_matrix((tables["values"], tables["indices"], tables["indptr"]), shape=(n, n)))

    def of(self, users: sp.csr_matrix) -> NDArray[np.float64]:
        """Rows of users times G + Δ, dense, shape [len(users), n]."""
        product: NDArray[np.float64] = (users @ self.base).toarray()
        return product + (users @ self.change).toarray() if self.change.nnz else product


def filtered(
    users: sp.csr_matrix,
    gram: ChangedGram | Neighbours,
    read: NDArray[np.float64],
    said: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Scores x D^{-β-1/2} G D^{β-1/2}, shape [len(users), n_items].

    With G weighted by 1/|D_u| this is x D^{-β} R̃ᵀR̃ D^β with R̃ = D_U^{-1/2} X D^{-1/2}; β = 1/2 is GF-CF without its
    low-pass term (eq. 8), and other β are those of ChebyCF (SIGIR 2025). A prior in the degrees is ours.

    Parameters
    ----------
    users
        The users' rows x, float64, shape [n, n_items].
    gram
        G, or the largest of its entries.
    read, said
        See `sides`.
    """
    weighted = sp.csr_matrix((users.data * read[users.indices], users.indices, users.indptr), shape=users.shape)
    return gram.of(weighted) * said


def sides(degrees: NDArray[Any], beta: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """D^{-β-1/2} and D^{β-1/2}, by which items are read and scored, shape [n_items].

    Parameters
    ----------
    degrees
        Interactions per item in the data that G was made from, and a prior where there is one, shape [n_items].
    beta
        β.
    """
    known = np.maximum(degrees, 1.0)
    return known ** (-beta - 0.5), known ** (beta - 0.5)
