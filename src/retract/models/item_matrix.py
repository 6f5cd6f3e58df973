"""Item-to-item matrices small enough to be sent: the largest entries alone, in eight bits each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.data import Interactions
from retract.models.ease import item_weights
from retract.models.recommender import Scores, rows_of

LEVELS = 127
"""Values are whole multiples of their row's largest, parted in so many."""


@dataclass(frozen=True)
class Quantised:
    """A sparse matrix with a scale for each row.

    Parameters
    ----------
    counts
        Entries of each row, int32, shape [n].
    indices
        Their columns, row by row ascending; uint16 where that suffices, else int32.
    levels
        Their values in parts of the row's scale, int8.
    scale
        The largest size of an entry of each row, float32, shape [n].
    """

    counts: NDArray[np.int32]
    indices: NDArray[Any]
    levels: NDArray[np.int8]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, matrix: sp.csr_matrix) -> Quantised:
        """The nearest to a matrix of sorted indices."""
        row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        scale = np.zeros(matrix.shape[0], dtype=np.float32)
        np.maximum.at(scale, row, np.abs(matrix.data))
        levels = np.rint(matrix.data / np.where(scale[row] > 0, scale[row], 1) * LEVELS).astype(np.int8)
        narrow = np.uint16 if matrix.shape[1] <= 2**16 else np.int32
        return cls(np.diff(matrix.indptr).astype(np.int32), matrix.indices.astype(narrow), levels, scale)

    @property
    def matrix(self) -> sp.csr_matrix:
        """Float32, shape [n, n]."""
        n, indptr = len(self.counts), np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        values = self.levels.astype(np.float32) / LEVELS * np.repeat(self.scale, self.counts)
        return sp.csr_matrix((values, self.indices.astype(np.int32), indptr), shape=(n, n))

    def tables(self, name: str) -> dict[str, NDArray[Any]]:
        """Its arrays under names that begin with `name`."""
        return {f"{name}.{part}": getattr(self, part) for part in ("counts", "indices", "levels", "scale")}

    @classmethod
    def among(cls, tables: Mapping[str, NDArray[Any]], name: str) -> Quantised | None:
        """What `tables` laid among some tables; None where it is not there."""
        if f"{name}.counts" not in tables:
            return None
        return cls(*(tables[f"{name}.{part}"] for part in ("counts", "indices", "levels", "scale")))


class ItemToItem:
    """A recommender that scores by the sum of the rows of a history's items.

    Parameters
    ----------
    matrix
        Float32, shape [n_items, n_items].
    """

    def __init__(self, matrix: sp.csr_matrix) -> None:
        self.matrix = matrix

    @classmethod
    def among(cls, tables: Mapping[str, NDArray[Any]], name: str) -> ItemToItem | None:
        """That of a `Quantised` among some tables; None where it is not there."""
        found = Quantised.among(tables, name)
        return None if found is None else cls(found.matrix)

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        found: Scores = (rows_of(users, history) @ self.matrix).toarray()
        return found


def largest(matrix: sp.csr_matrix, entries: int) -> sp.csr_matrix:
    """The entries of largest size, float32; rows and columns stay."""
    out = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    out.sort_indices()
    if out.nnz > entries:
        size = np.abs(out.data)
        out.data[size < np.partition(size, out.nnz - entries)[out.nnz - entries]] = 0
        out.eliminate_zeros()
    return out


def largest_weights(inverse: NDArray[np.float64], entries: int) -> sp.csr_matrix:
    """The largest entries of EASE's B = I - P diag(P)^{-1}, float32.

    Parameters
    ----------
    inverse
        P, shape [n, n].
    """
    matrix = item_weights(inverse)
    size = np.abs(matrix).ravel()
    entries = min(entries, len(size))
    limit = np.partition(size, len(size) - entries)[len(size) - entries]
    stays = size > limit
    stays[np.flatnonzero(size == limit)[: entries - int(stays.sum())]] = True  # of equals the first
    return sp.csr_matrix(np.where(stays.reshape(matrix.shape), matrix, 0))


def placed(part: sp.csr_matrix, items: NDArray[np.int64], n_items: int) -> sp.csr_matrix:
    """A matrix over some items, shape [len(items), len(items)], as one over all of them, indices ascending."""
    entries = sp.coo_matrix(part)
    out = sp.csr_matrix((entries.data, (items[entries.row], items[entries.col])), shape=(n_items, n_items))
    out.sort_indices()
    return out
