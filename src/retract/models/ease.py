"""EASE in closed form, and its exact change when users come, go or change (Steck, WWW 2019).

The model is the inverse P = (G + λI)^{-1} alone, in float64: B = I - P diag(P)^{-1} follows from it at scoring time.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import lapack

from retract import streams
from retract.errors import ConfigError
from retract.threads import two_threads

BLOCK = 64
"""Rows that stay in the cache together."""
Matrix = NDArray[np.float64]


def regularised_inverse(gram: sp.csr_matrix, ridge: float) -> Matrix:
    """P = (G + λI)^{-1} by Cholesky.

    Parameters
    ----------
    gram
        G, shape [n, n], symmetric and positive semi-definite.
    ridge
        λ > 0.

    Returns
    -------
    ndarray
        float64, shape [n, n], symmetric to the last bit.

    Raises
    ------
    ConfigError
        If G + λI is not positive definite in float64: λ is too small.
    """
    full = np.asfortranarray(gram.toarray())
    full[np.diag_indices_from(full)] += ridge
    factor, failed = lapack.dpotrf(full, lower=1, overwrite_a=1, clean=0)
    inverse, failed_too = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise ConfigError(f"ridge {ridge:g} is too small to invert the Gram matrix of this data: raise it")
    return _mirrored(inverse.T)


def _mirrored(upper: Matrix) -> Matrix:
    """Copy the upper triangle to the lower one, block by block."""
    step = 512
    for begin in range(0, len(upper), step):
        end = min(begin + step, len(upper))
        square = np.triu(upper[begin:end, begin:end])
        upper[begin:end, begin:end] = square + np.triu(square, 1).T
        upper[end:, begin:end] = upper[begin:end, end:].T
    return upper


def item_weights(inverse: Matrix, begin: int = 0, end: int | None = None) -> NDArray[np.float32]:
    """Columns [begin, end) of B = I - P diag(P)^{-1}, whose diagonal is zero; float32, all columns unless told."""
    block = (inverse[:, begin:end] / -inverse.diagonal()[begin:end]).astype(np.float32)
    own = np.arange(block.shape[1])
    block[begin + own, own] = 0
    return block


def changed_inverse(inverse: Matrix, users: sp.csr_matrix, weights: Matrix) -> Matrix:
    """(A + Uᵀ diag(c) U)^{-1} from P = A^{-1}, by the formula of Sherman, Morrison and Woodbury.

    P' = P - Y (diag(c)^{-1} + U Y)^{-1} Yᵀ with Y = P Uᵀ: one pass over P for each pair of rows. Dynamic EASE updates
    its model so (Jeunen, Van Balen, Goethals, UMUAI 2022).

    Parameters
    ----------
    inverse
        P, shape [n, n]; left as it is.
    users
        U, one row per term, shape [r, n].
    weights
        c, none of them 0, negative where a term is taken away, shape [r].

    Returns
    -------
    ndarray
        P', float64, shape [n, n].
    """
    moved = _times(users, inverse)
    solved = np.linalg.solve(users @ moved.T + np.diag(1 / weights), moved)
    out = np.empty(inverse.shape)

    def fill(first: int) -> None:
        """Every other block of rows, each while it is in the cache: one pass over P."""
        for begin in range(first, len(inverse), 2 * BLOCK):
            rows = slice(begin, begin + BLOCK)
            if len(moved) == 1:
                np.multiply(moved[0, rows, None], solved[0], out=out[rows])  # BLAS would wake its threads for it
            else:
                np.matmul(moved[:, rows].T, solved, out=out[rows])
            np.subtract(inverse[rows], out[rows], out=out[rows])

    list(two_threads().map(fill, (0, BLOCK)))
    return out


def _times(users: sp.csr_matrix, inverse: Matrix) -> Matrix:
    """U P: sums of rows of P."""
    sums = np.empty(users.shape)
    for row in range(users.shape[0]):
        part = slice(users.indptr[row], users.indptr[row + 1])
        sums[row] = users.data[part] @ inverse[users.indices[part]]
    return sums


def inverse_error(
    inverse: Matrix,
    interactions: sp.csr_matrix,
    weights: Matrix,
    ridge: float,
) -> float:
    """An estimate of ‖P (G + λI) - I‖_F, which bounds the relative error of P.

    ‖P - A^{-1}‖ = ‖(PA - I) A^{-1}‖ ≤ ‖PA - I‖ ‖A^{-1}‖, and E‖(PA - I) z‖² = ‖PA - I‖_F² for random signs z.

    Parameters
    ----------
    interactions, weights
        X and ω with G = Xᵀ diag(ω) X.
    """
    signs = np.where(streams.uniform(0, 0, np.arange(len(inverse)), "probe") < 0.5, -1.0, 1.0)
    product = interactions.T @ (weights * (interactions @ signs)) + ridge * signs
    return float(np.linalg.norm(inverse @ product - signs))


def with_new_items(inverse: Matrix, n_items: int, ridge: float) -> Matrix:
    """P over a larger catalog whose new items nobody has touched: they stand alone, with 1/λ."""
    known = len(inverse)
    if known == n_items:
        return inverse
    out = np.zeros((n_items, n_items))
    out[:known, :known] = inverse
    new = np.arange(known, n_items)
    out[new, new] = 1 / ridge
    return out
