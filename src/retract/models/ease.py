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


def item_weights(inverse: Tensor, begin: int = 0, end: int | None = None) -> Tensor:
    """Columns [begin, end) of B = I - P diag(P)^{-1}, whose diagonal is zero; float32, all columns unless told."""
    block = (inverse[:, begin:end] / -inverse.diagonal()[begin:end]).float()
    block.diagonal(-begin).zero_()
    return block


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


def exchanged_inverse(
    inverse: Tensor,
    items: NDArray[np.int64],
    now: NDArray[np.int64],
    columns: NDArray[np.float64],
    ridge: float,
) -> Tensor:
    """(G' + λI)^{-1} over the items `now` from that over `items`: some go, some come, by their Schur complements.

    Parameters
    ----------
    inverse
        P over `items`; left as it is.
    items, now
        Item codes, ascending; the Gram matrix among those that stay is the same.
    columns
        Columns of the new Gram matrix of the items that come, over the rows `now`; shape [len(now), came].
    ridge
        λ.

    Returns
    -------
    Tensor
        float64, shape [len(now), len(now)].
    """
    stays, goes = (np.flatnonzero(mask) for mask in (np.isin(items, now), ~np.isin(items, now)))
    old, comes = (np.flatnonzero(mask) for mask in (np.isin(now, items), ~np.isin(now, items)))
    full = inverse.numpy()
    kept = full[np.ix_(stays, stays)]
    if len(goes):
        link = full[np.ix_(goes, stays)]
        kept -= link.T @ np.linalg.solve(full[np.ix_(goes, goes)], link)
    out = np.empty((len(now), len(now)))
    moved = kept @ columns[old]
    corner = np.linalg.inv(columns[comes] + ridge * np.eye(len(comes)) - columns[old].T @ moved)
    side = moved @ corner
    kept += side @ moved.T
    out[np.ix_(old, old)] = kept
    out[np.ix_(old, comes)] = -side
    out[np.ix_(comes, old)] = -side.T
    out[np.ix_(comes, comes)] = corner
    return torch.from_numpy(out)


def inverse_error(
    inverse: Tensor,
    interactions: sp.csr_matrix,
    weights: NDArray[np.float64],
    ridge: float,
    items: NDArray[np.int64] | None = None,
) -> float:
    """An estimate of ‖P (G + λI) - I‖_F, which bounds the relative error of P.

    ‖P - A^{-1}‖ = ‖(PA - I) A^{-1}‖ ≤ ‖PA - I‖ ‖A^{-1}‖, and E‖(PA - I) z‖² = ‖PA - I‖_F² for random signs z.

    Parameters
    ----------
    interactions, weights
        X and ω with G = Xᵀ diag(ω) X.
    items
        The items that P is over, where these are not all.
    """
    items = np.arange(len(inverse)) if items is None else items
    signs = np.where(streams.uniform(0, 0, items, "probe") < 0.5, -1.0, 1.0)
    spread = np.zeros(interactions.shape[1])
    spread[items] = signs
    product = (interactions.T @ (weights * (interactions @ spread)))[items] + ridge * signs
    return float((inverse @ torch.from_numpy(product) - torch.from_numpy(signs)).norm())


def with_new_items(inverse: Tensor, n_items: int, ridge: float) -> Tensor:
    """P over a larger catalog whose new items nobody has touched: they stand alone, with 1/λ."""
    known = len(inverse)
    if known == n_items:
        return inverse
    out = torch.from_numpy(np.zeros((n_items, n_items)))
    out[:known, :known] = inverse
    out.diagonal()[known:] = 1 / ridge
    return out
