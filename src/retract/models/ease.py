"""EASE in closed form, and its exact change when users come, go or change (Steck, WWW 2019).

The model is the inverse P = (G + λI)^{-1} alone, in float64: B = I - P diag(P)^{-1} follows from it at scoring time.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from torch import Tensor

from retract import streams
from retract.errors import ConfigError


def regularised_inverse(gram: sp.csr_matrix, ridge: float) -> Tensor:
    """P = (G + λI)^{-1} by Cholesky.

    Parameters
    ----------
    gram
        G, shape [n, n], symmetric and positive semi-definite.
    ridge
        λ > 0.

    Returns
    -------
    Tensor
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
    return _mirrored(torch.from_numpy(inverse.T))


def _mirrored(upper: Tensor) -> Tensor:
    """Copy the upper triangle to the lower one, block by block."""
    step = 512
    for begin in range(0, len(upper), step):
        end = min(begin + step, len(upper))
        square = upper[begin:end, begin:end].triu()
        upper[begin:end, begin:end] = square + square.triu(1).T
        upper[end:, begin:end] = upper[begin:end, end:].T
    return upper


def changed_inverse(inverse: Tensor, users: sp.csr_matrix, weights: NDArray[np.float64]) -> Tensor:
    """(A + Uᵀ diag(c) U)^{-1} from P = A^{-1}, by the formula of Sherman, Morrison and Woodbury.

    P' = P - Y (diag(c)^{-1} + U Y)^{-1} Yᵀ with Y = P Uᵀ: one pass over P for each pair of rows.

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
    Tensor
        P', float64, shape [n, n].
    """
    moved = torch.from_numpy(_times(users, inverse.numpy()))
    small = torch.from_numpy(users @ moved.numpy().T) + torch.diag(torch.from_numpy(1 / weights))
    solved = torch.linalg.solve(small, moved)
    out = torch.from_numpy(np.empty(inverse.shape))  # NumPy asks for huge pages: three times faster than torch.empty
    if len(weights) == 1:
        return torch.addr(inverse, moved[0], solved[0], alpha=-1, out=out)
    return torch.addmm(inverse, moved.T, solved, alpha=-1, out=out)


def _times(users: sp.csr_matrix, inverse: NDArray[np.float64]) -> NDArray[np.float64]:
    """U P: sums of rows of P."""
    sums = np.empty(users.shape)
    for row in range(users.shape[0]):
        part = slice(users.indptr[row], users.indptr[row + 1])
        sums[row] = users.data[part] @ inverse[users.indices[part]]
    return sums


def inverse_error(inverse: Tensor, interactions: sp.csr_matrix, weights: NDArray[np.float64], ridge: float) -> float:
    """An estimate of ‖P (G + λI) - I‖_F, which bounds the relative error of P: its mean over signs z is exact.

    ‖P - A^{-1}‖ = ‖(PA - I) A^{-1}‖ ≤ ‖PA - I‖ ‖A^{-1}‖, and E‖(PA - I) z‖² = ‖PA - I‖_F² for random signs z.

    Parameters
    ----------
    interactions, weights
        X and ω with G = Xᵀ diag(ω) X.
    """
    signs = np.where(streams.uniform(0, 0, np.arange(len(inverse)), "probe") < 0.5, -1.0, 1.0)
    product = interactions.T @ (weights * (interactions @ signs)) + ridge * signs
    return float((inverse @ torch.from_numpy(product) - torch.from_numpy(signs)).norm())


def with_new_items(inverse: Tensor, n_items: int, ridge: float) -> Tensor:
    """P over a larger catalog whose new items nobody has touched: they stand alone, with 1/λ."""
    known = len(inverse)
    out = torch.from_numpy(np.zeros((n_items, n_items)))
    out[:known, :known] = inverse
    out.diagonal()[known:] = 1 / ridge
    return out
