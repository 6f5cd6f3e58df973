"""A small world with taste and with noise, in which attacks have something to find."""

from __future__ import annotations

import numpy as np

from retract.data import Dataset, Interactions
from tests.samples import numbered_catalog


def clustered(n_users: int = 120, n_items: int = 90, seed: int = 0) -> Dataset:
    """Three groups of users, each with its own third of the items; 80 % of a group's picks lie there."""
    draw = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), 14)
    own = (users % 3) * (n_items // 3) + draw.integers(0, n_items // 3, len(users))
    items = np.where(draw.random(len(users)) < 0.8, own, draw.integers(0, n_items, len(users)))
    return Dataset("clustered", Interactions.of(numbered_catalog(n_users, n_items), users, items), None, ())
