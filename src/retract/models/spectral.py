"""The leading singular vectors of a user-item graph: where an embedding table can start without a single step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data import Interactions

OVERSAMPLING = 16
ITERATIONS = 4


def spectral_embeddings(interactions: Interactions, dimension: int, scale: float, seed: int) -> NDArray[np.float32]:
    """Users and items at the leading singular vectors of D_u^{-1/2} R D_i^{-1/2}, every column of deviation `scale`.

    Found by a randomised range finder (Halko, Martinsson, Tropp, SIAM Review 2011, algorithm 4.4), its start
    keyed.
    A node without an edge is zero, and so are the columns beyond the rank.

    Parameters
    ----------
    dimension
        d.
    scale
        Root mean square of each column, over users and over items.

    Returns
    -------
    ndarray
        float32, shape [n_users + n_items, d].
    """
    n_users, n_items = interactions.n_users, interactions.n_items
    degrees = interactions.user_degrees()[interactions.users] * interactions.item_degrees()[interactions.items]
    matrix = interactions.csr(degrees**-0.5)
    transposed = matrix.T.tocsr()
    width = min(dimension + OVERSAMPLING, n_users, n_items)
    basis = streams.normal(seed, 0, np.arange(n_items), "spectral", width)
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(matrix @ basis)[0]
        basis = np.linalg.qr(transposed @ basis)[0]
    left, values, mixing = np.linalg.svd(matrix @ basis, full_matrices=False)
    rank = min(dimension, int((values > 1e-6 * values[0]).sum()))
    users = left[:, :rank] * n_users**0.5
    items = (basis @ mixing.T)[:, :rank] * n_items**0.5
    table = np.zeros((n_users + n_items, dimension), dtype=np.float32)
    table[:, :rank] = np.concatenate([users, items]) * scale
    return table
