"""The leading subspace of a user-item graph by a fixed number of steps, each a product with a sum over users.

A function of the interactions and a seed: whoever has the sums finds the same, be it from clients or from a matrix.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from retract import streams
from retract.workers import workers

Matrix = NDArray[np.float64]
PARTS = ("basis", "weights", "source", "image", "sums")
"""What a checkpoint holds."""
LARGEST_DIMENSION = 512
"""Beyond it lists gain little, and tables grow."""


def dimension_for(support: NDArray[np.int64], users: int) -> int:
    """The size d of embeddings that so much data bears: 0.095 E^0.8, and `LARGEST_DIMENSION` at most.

    E = Σ D / (D + 2) over all users, at their mean degree, and all items: how many there are of whom the data tell
    something. The rule is ours. It was fitted to the best d on validation parts of five data sets, from 7,544 to
    728,432 interactions (best d 24 to 512).

    Parameters
    ----------
    support
        Users that hold each item, shape [n_items].
    users
        Users that hold anything.
    """
    held = support.astype(np.float64)
    known = held.sum() / (held.sum() / max(users, 1) + 2) + (held / (held + 2)).sum()
    return int(np.clip(np.rint(0.095 * known**0.8), 1, LARGEST_DIMENSION))


SOUND = 1e-4
"""The least part of a column that the columns before it do not have."""


class Leading(NamedTuple):
    """Leading singular vectors, one to a column, their values, and what is to be left of each.

    The shrinkage is 1 - (ν / s_k)², 0 where s_k ≤ ν, s being the singular values and ν the level of noise: the nearer a
    value is to the noise, the less of its vector is signal (compare Gavish and Donoho, IEEE Trans. IT 2017; the form is
    ours).
    """

    vectors: Matrix
    values: Matrix
    shrinkage: Matrix


class Subspace:
    """The server's side of subspace iteration on M = W Xᵀ Ω X W, over all that the clients hold.

    W = (D_i + τ)^{-1/2} over the items' degrees, Ω = 1 / (D_u + τ) over the users': the normalised graph, its degrees
    regularised (Chaudhuri, Chung, Tsiatas, COLT 2012), for the leading vectors of a sparse graph sit on its small
    components otherwise. The iteration is the randomised one (Halko, Martinsson, Tropp, SIAM Review 2011, algorithm
    4.4), its start keyed; each of its products with M is one round. The vectors are read off the last product by
    Nyström's formula (algorithm 5.5 there), which takes no further round.

    Parameters
    ----------
    n_items
        Items in the catalog.
    dimension, oversampling
        d, and columns beyond them.
    prior
        τ.
    noise
        What stands out less than so many times the noise is dropped.
    seed
        The key of the start.
    """

    def __init__(
        self, n_items: int, dimension: int, seed: int, *, oversampling: int, prior: float, noise: float
    ) -> None:
        self.dimension, self.prior, self.noise = dimension, prior, noise
        width = min(dimension + oversampling, n_items)
        self.basis: Matrix = streams.normal(seed, 0, np.arange(n_items), "subspace", width).astype(np.float64)
        # At first the basis is sent as it is: it stands for another one, W^{-1} times it, which is as random.
        self.weights = np.ones(n_items)
        self.source, self.image = self.basis, np.zeros((n_items, width))
        self.sums = np.zeros(3)

    @property
    def width(self) -> int:
        """Columns of the basis."""
        return self.basis.shape[1]

    @property
    def asked(self) -> Matrix:
        """C = W times an orthonormal basis: what the next step multiplies by Xᵀ Ω X."""
        return self.weights[:, None] * self.basis

    def step(self, product: Matrix, degrees: Matrix, mass: Matrix, users: int) -> None:
        """Take a product with M.

        Parameters
        ----------
        product
            Xᵀ Ω X C, shape [n_items, width].
        degrees, mass
            The items' degrees and Xᵀ ω, shape [n_items].
        users
            How many were summed over.
        """
        weights = np.where(degrees > 0, np.maximum(degrees + self.prior, 1e-12) ** -0.5, 0)
        known, first = weights[:, None] > 0, not self.image.any()
        self.source = np.divide(self.basis, weights[:, None], where=known, out=0 * self.basis) if first else self.basis
        self.image = (weights if first else self.weights)[:, None] * product
        self.basis, self.weights = orthonormal(self.image), weights
        effective = min(mass.sum(), (degrees * weights**2).sum())
        self.sums = np.array([mass @ weights**2, effective, min(users, int(known.sum()))])

    def leading(self) -> Leading:
        """The leading singular vectors, with their values, as far as the rank goes and no more than d of them."""
        if not self.image.any():
            return Leading(np.zeros((len(self.basis), 0)), np.zeros(0), np.zeros(0))
        inner = self.source.T @ self.image
        values, vectors = np.linalg.eigh((inner + inner.T) / 2)
        stands = values > 1e-7 * values[-1]
        left, found = _singular((self.image @ vectors[:, stands]) * values[stands] ** -0.5)
        rank = min(self.dimension, int((found > 1e-4 * found[0]).sum()))
        left, found = left[:, :rank], found[:rank]
        left[self.weights == 0] = 0  # of what nobody holds not even rounding
        left *= np.where(left[np.abs(left).argmax(axis=0), np.arange(rank)] < 0, -1, 1)
        return Leading(left, found, np.maximum(1 - (self._level(found) / found) ** 2, 0))

    def embeddings(self, spectrum: float) -> tuple[NDArray[np.float32], float]:
        """Q, float32, shape [n_items, d], and the part of its columns that stands out of the noise.

        Leading vectors times their singular values to the power `spectrum`, relative to the first, and shrunk; the mean
        eigenvalue of QᵀQ is 1, or Q is zero.
        """
        found = self.leading()
        table = np.zeros((len(found.vectors), self.dimension))
        if found.values.any():
            scale = (found.values / found.values[0]) ** spectrum * found.shrinkage
            table[:, : len(scale)] = found.vectors * scale
            table *= (self.dimension / (table**2).sum()) ** 0.5
        return table.astype(np.float32), float(found.shrinkage.sum() / self.dimension)

    def table(self, deviation: float) -> NDArray[np.float32]:
        """Q's start, shape [n_items, d]: column k is √n_items · deviation times the k-th vector, shrunk; others: 0."""
        found = self.leading()
        table = np.zeros((len(found.vectors), self.dimension), dtype=np.float32)
        table[:, : len(found.values)] = found.vectors * found.shrinkage * (len(table) ** 0.5 * deviation)
        return table

    def _level(self, found: Matrix) -> float:
        """ν: `noise` times the root mean square of the singular values beyond those that were found.

        Their squares add up to what is left of tr M. How many there are is told by the regularised degrees,
        Σ D / (D + τ) over users or items: one whose degree is small against τ hardly counts as a dimension. The leading
        vector stays in any case.
        """
        energy, effective, full = self.sums
        beyond = max(effective - len(found), (full - len(found)) / 4, 1)
        level = (max(energy - (found**2).sum(), 0) / beyond) ** 0.5
        return float(min(self.noise * level, 0.8 * found[0]))

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """Copies of all that the next step reads."""
        return {f"subspace.{name}": getattr(self, name).copy() for name in PARTS}

    def restore(self, tables: Mapping[str, NDArray[Any]]) -> None:
        """Go back to where `tables` were taken."""
        for name in PARTS:
            setattr(self, name, tables[f"subspace.{name}"])


def orthonormal(image: Matrix) -> Matrix:
    """A basis of what the columns span, orthonormal: by the Cholesky factor of their Gram matrix, where that is sound.

    That costs a third of Householder's way, which is left to columns that depend on each other nearly.
    """
    gram = image.T @ image
    size = np.sqrt(np.maximum(gram.diagonal(), 1e-300))
    factor, failed = lapack.dpotrf(gram / np.outer(size, size), lower=1)
    if failed or factor.diagonal().min() < SOUND:
        basis: Matrix = np.linalg.qr(image)[0]
        return basis
    turned: Matrix = blas.dtrsm(1.0, factor, (image / size).T, lower=1).T
    return turned


def _singular(table: Matrix) -> tuple[Matrix, Matrix]:
    """Left singular vectors and values, greatest first, through the table's Gram matrix.

    That takes a third of the time of a decomposition of the table, and is as good for values of more than a
    ten-thousandth of the first, which are all that is asked for.
    """
    squares, vectors = np.linalg.eigh(table.T @ table)
    values = np.sqrt(np.maximum(squares[::-1], 1e-300))
    return table @ (vectors[:, ::-1] / values), values


def iterated(subspace: Subspace, matrix: sp.csr_matrix, steps: int) -> Subspace:
    """So many steps with a matrix at hand; the same subspace, for convenience.

    Parameters
    ----------
    matrix
        X, shape [n_users, n_items], ones.
    """
    matrix = matrix.astype(np.float32)  # ones; the products, too, take half the time so
    degrees = np.diff(matrix.indptr).astype(np.float64)
    weights = np.where(degrees > 0, 1 / np.maximum(degrees + subspace.prior, 1e-12), 0)
    back = matrix.T.tocsr()
    support, mass, users = np.diff(back.indptr).astype(np.float64), back @ weights, int((degrees > 0).sum())
    by_user, by_item = _blocks(matrix), _blocks(back)
    for _ in range(steps):
        said = _times(by_user, subspace.asked.astype(np.float32))
        product = _times(by_item, (weights[:, None] * said).astype(np.float32))
        subspace.step(product.astype(np.float64), support, mass, users)
    return subspace


def _blocks(matrix: sp.csr_matrix) -> list[Any]:
    """Blocks of rows, some for each worker, lent to them."""
    bounds = np.linspace(0, matrix.shape[0], 4 * workers().count + 1).astype(int)
    return [workers().lend(matrix[begin:end]) for begin, end in pairwise(bounds)]


def _times(blocks: list[Any], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """A product by blocks of rows, shared among all workers; the same to the last bit however many they are."""
    return np.concatenate(list(workers().map(operator.matmul, blocks, np.ascontiguousarray(table))))
