"""Negative sampling that is keyed per user, uniform, and never returns a positive of that user."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract import streams


def sample_negatives(
    users: NDArray[np.int64],
    indptr: NDArray[np.int64],
    items: NDArray[np.int64],
    n_items: int,
    *,
    seed: int,
    round: int,
    per_positive: int = 1,
) -> NDArray[np.int64]:
    """Draw negatives for every positive, uniformly among the items that the user did not touch.

    The draw is a rank r among the user's n_items - |D_u| untouched items, turned into the item by counting the
    positives below it: with positives p_0 < p_1 < ..., the r-th untouched item is r + #{j : p_j - j <= r}. So there is
    no rejection loop, and a value depends only on (seed, round, user, position).

    Parameters
    ----------
    users
        User codes, shape [n_rows].
    indptr, items
        Each user's positives, ascending; shapes [n_rows + 1] and [n].
    per_positive
        Negatives for each positive.

    Returns
    -------
    ndarray
        int64, shape [n, per_positive]. A user who touched every item has no negative: its draws are -1.
    """
    degrees = np.diff(indptr)
    rows = np.repeat(np.arange(len(users)), degrees)
    position = np.arange(len(items)) - indptr[rows]
    free = (n_items - degrees)[rows, None]
    counter = position[:, None] * per_positive + np.arange(per_positive)
    rank = streams.below(free, seed, round, users[rows, None], "negatives", counter)
    gaps = rows * (n_items + 1) + (items - position)  # ascending: positives per row keep their order
    below = np.searchsorted(gaps, rows[:, None] * (n_items + 1) + rank, side="right") - indptr[rows, None]
    return np.where(free > 0, rank + below, -1)
