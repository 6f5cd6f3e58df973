"""Small trained folders for the tests of what is done with them."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import load_file

from retract.stores.folder import TrainedFolder
from retract.stores.held import Held
from retract.stores.training import TrainOptions, train_folder
from tests.tiny import TINY, TINY_OF, tiny_dataset, tiny_system

__all__ = ["TINY", "TINY_OF", "items", "load", "make_folder", "pairs_on_disk", "tiny_dataset", "tiny_system"]


def make_folder(path: Path, name: str = "fedshare", share: float = 0.5) -> Path:
    """A trained folder on the tiny data, half of it shared."""
    train_folder(tiny_system(name), tiny_dataset(), path, TrainOptions(share=share))
    return path


def load(path: Path) -> Held:
    """Both halves of a trained folder."""
    return TrainedFolder(path).load()


def pairs_on_disk(folder: Path) -> set[tuple[int, int]]:
    """Every (user, item) pair in any table of a folder."""
    found: set[tuple[int, int]] = set()
    for path in folder.rglob("*.safetensors"):
        table = load_file(path)
        if {"user", "item"} <= table.keys():
            found |= set(zip(table["user"].tolist(), table["item"].tolist(), strict=True))
    return found


def items(held: Held, where: str, user: str) -> set[str]:
    """A user's items in one part of a folder: "shared", "private" or "test"."""
    parts = {"shared": held.sharing.shared, "private": held.sharing.private, "test": held.test}
    return set(held.catalog.item_ids[parts[where].items_of(held.catalog.user(user))].tolist())
