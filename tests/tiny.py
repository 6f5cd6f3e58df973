"""Small data and systems with little to do, which need no store and no device."""

from __future__ import annotations

import numpy as np

from retract.data import Catalog, Dataset, Interactions
from retract.systems.registry import make_system
from retract.systems.system import System

TINY = {"dimension": 4, "rounds": 3, "start_rounds": 2}

TINY_OF: dict[str, dict[str, object]] = {
    "exact": {},
    "fedshare": dict(TINY),
    "lightgcn": {"dimension": 4, "steps": 3},
    "personalfr": {**TINY, "links": 2},
    "receraser": {"dimension": 4, "steps": 3, "shards": 2, "aggregation_steps": 2},
    "unlearnrec": {"dimension": 4, "epochs": 4, "pretrain_steps": 2},
}
"""Settings with little to do, of every system of ours."""


def tiny_system(name: str = "fedshare") -> System:
    """A system with little to do."""
    return make_system(name, TINY_OF[name])


def tiny_dataset(n_users: int = 12, n_items: int = 15, seed: int = 0) -> Dataset:
    """Users u0, u1, ... with five items each; with ratings, times and titles."""
    draw = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), 5)
    items = np.concatenate([draw.choice(n_items, 5, replace=False) for _ in range(n_users)])
    catalog = Catalog(
        np.array([f"u{n}" for n in range(n_users)]),
        np.array([f"i{n}" for n in range(n_items)]),
        np.array([f"Film {n}" for n in range(n_items)]),
    )
    ratings, times = draw.integers(1, 6, len(users)), draw.integers(10**9, 2 * 10**9, len(users))
    return Dataset("tiny", Interactions.of(catalog, users, items, ratings, times), None, ())
