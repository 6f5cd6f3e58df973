"""Weighted Gram matrices: the sums over users that closed-form recommenders are made from, exact to the last bit.

Every weight is rounded once, to a whole multiple of 2^-30. All sums of such numbers below 2^22 are exact in float64, so
the order of the summands, how users are split into cohorts, and what was added and taken away again leave no trace.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import DataError
from retract.workers import workers

UNIT = 2.0**-30
"""All weights are whole multiples of it."""
WORTH_SHARING = 50_000
"""Interactions from which on a product is shared among workers."""
LARGEST_SUM = 2.0**22
"""Below it, sums of weights are exact: 52 bits."""


def user_weights(degrees: NDArray[np.int64], exponent: float, prior: float = 0.0) -> NDArray[np.float64]:
    """ω = (n + τ)^{-α} of users with n interactions, to the nearest multiple of `UNIT`; 0 for n = 0.

    Parameters
    ----------
    degrees
        Interactions per user, shape [n_users].
    exponent, prior
        α in [0, 1], and τ ≥ 0.

    Returns
    -------
    ndarray
        float64, shape [n_users].
    """
    weights = np.where(degrees > 0, np.maximum(degrees + prior, 1.0) ** -exponent, 0.0)
    rounded: NDArray[np.float64] = np.rint(weights / UNIT) * UNIT
    return rounded


def rows(interactions: Interactions) -> sp.csr_matrix:
    """The user x item matrix X, float64 ones."""
    shape = (interactions.n_users, interactions.n_items)
    return sp.csr_matrix((np.ones(len(interactions)), interactions.items, interactions.indptr), shape=shape)


def weighted_gram(matrix: sp.csr_matrix, weights: NDArray[np.float64], *, ordered: bool = True) -> sp.csr_matrix:
    """G = Xᵀ diag(ω) X.

    Parameters
    ----------
    matrix
        X, shape [n_users, n_items].
    weights
        ω, shape [n_users]; multiples of `UNIT`, of any sign.
    ordered
        Whether indices are to ascend, which takes almost as long again.

    Returns
    -------
    csr_matrix
        float64, shape [n_items, n_items], symmetric, without explicit zeros.

    Raises
    ------
    DataError
        If an item's weights add up to more than `LARGEST_SUM`, beyond which sums are no longer exact.
    """
    scaled = matrix.copy()
    scaled.data = matrix.data * np.repeat(weights, np.diff(matrix.indptr))
    gram = _product(matrix.T.tocsr(), scaled)
    largest = float(np.abs(gram.diagonal()).max(initial=0.0))
    if largest >= LARGEST_SUM:
        raise DataError(f"an item's weights add up to {largest:g}, too many to sum exactly: raise the users' exponent")
    gram.eliminate_zeros()
    if ordered:
        gram.sort_indices()
    return gram


def _product(left: sp.csr_matrix, right: sp.csr_matrix) -> sp.csr_matrix:
    """The product, its rows shared among all workers where it is worth it; the same however many they are."""
    if left.nnz < WORTH_SHARING or workers().count == 1:
        return sp.csr_matrix(left @ right)
    work = np.concatenate([[0], np.cumsum(np.diff(right.indptr)[left.indices])])[left.indptr]
    bounds = np.searchsorted(work, np.linspace(0, work[-1], workers().count + 1))
    bounds[[0, -1]] = 0, left.shape[0]
    parts = workers().map(_rows_times, list(pairwise(bounds.tolist())), left, right)
    return sp.csr_matrix(sp.vstack(list(parts), format="csr"))


def _rows_times(rows: tuple[int, int], left: sp.csr_matrix, right: sp.csr_matrix) -> sp.csr_matrix:
    return sp.csr_matrix(left[rows[0] : rows[1]] @ right)


def gram_of(interactions: Interactions, exponent: float, prior: float = 0.0) -> sp.csr_matrix:
    """G of all users, with ω_u = (|D_u| + τ)^{-α}."""
    return weighted_gram(rows(interactions), user_weights(interactions.user_degrees(), exponent, prior))


def most_frequent(degrees: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The codes of the `count` most frequent items, of equals the lower codes, ascending."""
    order = np.lexsort((np.arange(len(degrees)), -degrees))
    return np.sort(order[:count])
