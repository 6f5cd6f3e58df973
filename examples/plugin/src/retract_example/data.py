"""A data set whose right answer is known."""

from __future__ import annotations

import numpy as np

from retract.data import Catalog, Dataset, Interactions


def checkerboard(n_users: int = 40, n_items: int = 40) -> Dataset:
    """Even users like even items and odd users odd ones; a fifth of each user's items is left to be found."""
    users, items = np.meshgrid(np.arange(n_users), np.arange(n_items), indexing="ij")
    like = (users % 2) == (items % 2)
    catalog = Catalog(np.array([f"u{n}" for n in range(n_users)]), np.array([f"i{n}" for n in range(n_items)]))
    held_out = ((users + items) // 2 % 5 == 0)[like]
    return Dataset("checkerboard", Interactions.of(catalog, users[like], items[like]), held_out, ())
