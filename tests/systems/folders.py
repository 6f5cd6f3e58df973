"""Small trained folders for the tests of what is done with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from retract.data import Catalog, Dataset, Interactions
from retract.systems.fedshare import FedShare, FedShareConfig
from retract.systems.folder import TrainedFolder
from retract.systems.lifecycle import train_folder

TINY = {
    "dimension": 4,
    "layers": 1,
    "rounds": 3,
    "server_steps": 1,
    "snapshots": 2,
    "unlearn_steps": 1,
    "unlearn_rounds": 1,
}


def tiny_system() -> FedShare:
    """FedShare with little to do."""
    return FedShare(FedShareConfig.model_validate(TINY))


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


def make_folder(path: Path) -> Path:
    """A trained folder on the tiny data, half of it shared."""
    train_folder(tiny_system(), tiny_dataset(), path, share=0.5)
    return path


def pairs_on_disk(folder: Path) -> set[tuple[int, int]]:
    """Every (user, item) pair in any table of a folder."""
    found: set[tuple[int, int]] = set()
    for path in folder.rglob("*.parquet"):
        table = pl.read_parquet(path)
        if {"user", "item"} <= set(table.columns):
            found |= set(table.select("user", "item").iter_rows())
    return found


def items(held: TrainedFolder, where: str, user: str) -> set[str]:
    """A user's items in one part of a folder: "shared", "private" or "test"."""
    parts = {"shared": held.clients.sharing.shared, "private": held.clients.sharing.private, "test": held.test}
    return set(held.catalog.item_ids[parts[where].items_of(held.catalog.user(user))].tolist())
