"""Seeded splits into a part to train on and a part to test on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data.interactions import Interactions
from retract.errors import ConfigError


def split_per_user(
    interactions: Interactions, test: float = 0.2, seed: int = 0, *, latest: bool = False
) -> tuple[Interactions, Interactions]:
    """Hold out a random part of every user's interactions, or the latest.

    Each user keeps at least one interaction to train on, so a user with a single one is never tested.

    Parameters
    ----------
    test
        The part to hold out, in (0, 1); rounded per user to whole interactions.
    latest
        Hold out what the timestamps say was last; equal times are drawn.

    Returns
    -------
    train, test

    Raises
    ------
    ConfigError
        If `test` lies outside (0, 1), or the latest are asked for of data without timestamps.
    """
    if not 0 < test < 1:
        raise ConfigError(f"test part {test:g} lies outside (0, 1)")
    if latest and interactions.timestamps is None:
        raise ConfigError("the data has no timestamps, so nothing is the latest: hold out a random part")
    drawn = streams.bits(seed, 0, interactions.users, "split", interactions.items)
    first = -interactions.timestamps if latest and interactions.timestamps is not None else np.zeros(len(interactions))
    by_user = np.lexsort((drawn, first, interactions.users))
    rank = np.empty(len(interactions), dtype=np.int64)
    rank[by_user] = np.arange(len(interactions)) - interactions.indptr[interactions.users]
    mask = rank < counts_held_out(interactions.user_degrees(), test)[interactions.users]
    return interactions.where(~mask), interactions.where(mask)


def counts_held_out(degrees: NDArray[np.int64], test: float) -> NDArray[np.int64]:
    """How many interactions `split_per_user` holds out of users with so many, shape as `degrees`."""
    return np.minimum(np.rint(test * degrees), np.maximum(degrees - 1, 0)).astype(np.int64)
