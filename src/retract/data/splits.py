"""Seeded splits into a part to train on and a part to test on."""

from __future__ import annotations

import numpy as np

from retract import streams
from retract.data.interactions import Interactions
from retract.errors import ConfigError


def split_per_user(interactions: Interactions, test: float = 0.2, seed: int = 0) -> tuple[Interactions, Interactions]:
    """Hold out a random part of every user's interactions.

    Each user keeps at least one interaction to train on, so a user with a single one is never tested.

    Parameters
    ----------
    test
        The part to hold out, in (0, 1); rounded per user to whole interactions.

    Returns
    -------
    train, test

    Raises
    ------
    ConfigError
        If `test` lies outside (0, 1).
    """
    if not 0 < test < 1:
        raise ConfigError(f"test part {test:g} lies outside (0, 1)")
    order = streams.bits(seed, 0, interactions.users, "split", interactions.items)
    by_user = np.lexsort((order, interactions.users))
    rank = np.empty(len(interactions), dtype=np.int64)
    rank[by_user] = np.arange(len(interactions)) - interactions.indptr[interactions.users]
    degrees = interactions.user_degrees()
    held_out = np.minimum(np.rint(test * degrees), np.maximum(degrees - 1, 0))
    mask = rank < held_out[interactions.users]
    return interactions.where(~mask), interactions.where(mask)
