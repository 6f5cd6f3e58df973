"""Small trained folders for the tests of what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import UnlearnOptions, UnlearnReport, unlearn_folder
from retract.stores.held import Held
from retract.stores.ledger import Kind, Request
from retract.stores.requests import Wish, add_request
from retract.stores.training import TrainOptions, train_folder
from retract.systems.base import Progress, no_progress
from tests.tiny import TINY, TINY_OF, tiny_dataset, tiny_system

__all__ = ["TINY", "TINY_OF", "items", "load", "make_folder", "pairs_on_disk", "tiny_dataset", "tiny_system"]


def make_folder(path: Path, name: str = "fedshare", share: float = 0.5) -> Path:
    """A trained folder on the tiny data, half of it shared, a fifth held out."""
    train_folder(tiny_system(name), tiny_dataset(), path, TrainOptions(share=share, test=0.2))
    return path


def load(path: Path) -> Held:
    """Both halves of a trained folder."""
    return TrainedFolder(path).load()


def ask(folder: Path, kind: Kind, user: str, key: str | None = None, **wish: Any) -> Request:
    """Record a request."""
    return add_request(TrainedFolder(folder), Wish(kind, user, **wish), key)[0]


def requests(folder: Path) -> tuple[Request, ...]:
    """All requests of a folder."""
    return TrainedFolder(folder).ledger.requests()


def wanted(folder: Path, request: Request) -> set[str]:
    """All items that a request names, in both halves."""
    return {*request.items, *TrainedFolder(folder).inbox.told_to_devices(request)}


def apply(folder: Path, progress: Progress = no_progress, **options: Any) -> UnlearnReport:
    """Apply the pending requests."""
    return unlearn_folder(TrainedFolder(folder), UnlearnOptions(**options), progress=progress)


def on_disk(room: Path) -> dict[str, bytes]:
    """Every file below `room` and what it holds, but for the locks, which are empty and stay."""
    files = [path for path in sorted(room.rglob("*")) if path.is_file() and not path.name.endswith("lock")]
    return {path.relative_to(room).as_posix(): path.read_bytes() for path in files}


def served(folder: Path, half: str = "server") -> Path:
    """The place of the version that is served."""
    number = TrainedFolder(folder).versions.number()
    return folder / half / "versions" / str(number)


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
