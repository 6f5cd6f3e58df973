"""Small data that several tests share."""

import numpy as np

from retract.data import Catalog, Interactions


def numbered_catalog(n_users: int, n_items: int) -> Catalog:
    """Users u0, u1, ... and items i0, i1, ..."""
    return Catalog(np.array([f"u{n}" for n in range(n_users)]), np.array([f"i{n}" for n in range(n_items)]))


def random_interactions(seed: int, n_users: int = 12, n_items: int = 15, density: float = 0.3) -> Interactions:
    """Random pairs; some users and items may stay without any."""
    draw = np.random.default_rng(seed)
    users, items = np.nonzero(draw.random((n_users, n_items)) < density * draw.random((n_users, 1)) * 2)
    return Interactions.of(numbered_catalog(n_users, n_items), users, items)


def checkerboard(n_users: int = 40, n_items: int = 40) -> tuple[Interactions, Interactions]:
    """Even users like even items and odd users odd ones; the held-out part has a known right answer."""
    users, items = np.meshgrid(np.arange(n_users), np.arange(n_items), indexing="ij")
    like = (users % 2) == (items % 2)
    held = like & ((users + items) // 2 % 5 == 0)
    catalog = numbered_catalog(n_users, n_items)
    return (
        Interactions.of(catalog, users[like & ~held], items[like & ~held]),
        Interactions.of(catalog, users[held], items[held]),
    )
