"""New users, new items and new interactions enter a trained folder, without training again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retract.data import Catalog, Dataset, Interactions, Sharing
from retract.errors import ConfigError
from retract.federation import Clients, LocalEngine
from retract.systems import folder as folders
from retract.systems.base import Extendable, Progress, Stopwatch, no_progress
from retract.systems.folder import TrainedFolder
from retract.systems.lifecycle import measure
from retract.systems.requests import pending_of


@dataclass(frozen=True)
class ExtendReport:
    """What `extend_folder` did: what the folder holds now, what was added, and what it held already."""

    system: str
    users: int
    items: int
    shared: int
    private: int
    added: int
    already_held: int
    seconds: float
    metrics: Mapping[str, float | None]
    memory_bytes: int
    notes: tuple[str, ...]


def extend_folder(
    path: Path, dataset: Dataset, *, share: float, seed: int = 0, progress: Progress = no_progress
) -> ExtendReport:
    """Add what a data set holds and a trained folder does not.

    Parameters
    ----------
    dataset
        All of it goes to training, but for what it holds out itself.
    share
        The part of their new interactions that users share, in [0, 1].

    Raises
    ------
    ConfigError
        If the folder's system cannot take in data without training again.
    DataError
        If it cannot take in this data: the message says what of it.
    SharingError
        If `share` lies outside [0, 1].
    FolderError
        If the folder is damaged, or was replaced meanwhile; nothing is added.
    """
    held = folders.load(path)
    system = held.system
    if not isinstance(system, Extendable):
        raise ConfigError(
            f"{held.trained.system} cannot take in new data without training again; exact and personalfr can"
        )
    catalog = held.catalog.extended_by(dataset.interactions.catalog)
    before = _over(held, catalog)
    offered = _recoded(dataset.interactions, catalog)
    held_out = np.zeros(len(offered), dtype=np.bool_) if dataset.is_test is None else _test_part(dataset, offered)
    known = before.clients.interactions | before.test
    fresh, fresh_test = (offered.where(part) - known for part in (~held_out, held_out))
    new = Sharing.by_ratio(fresh, share, seed)  # also where nothing is new: a wrong ratio is refused in any case
    notes = _notes_on_held(before, offered, pending_of(held, "erase").over(catalog))
    if dropped := dataset.interactions.duplicates:
        notes.append(f"duplicates dropped, the last of each kept: {dropped:,}")
    after, seconds = held, 0.0
    if len(fresh) or len(fresh_test):
        clients, test, forgone = _joined(before, new, fresh_test)
        watch = Stopwatch()
        trained = system.extend(before.trained, new.shared, LocalEngine(clients), seed=seed, progress=progress)
        seconds = watch.seconds
        trained = replace(trained, shared=clients.sharing.shared)  # its columns too are those that both sides have
        after = replace(before, trained=trained, clients=clients, test=test)
        folders.replace_state(path, held, after, lambda request: request)
        notes += [*forgone, *_notes_on_cold(after, fresh_test)]
    sharing = after.clients.sharing
    return ExtendReport(
        system=after.trained.system,
        users=len(after.clients.interactions.active_users()),
        items=after.catalog.n_items,
        shared=len(sharing.shared),
        private=len(sharing.private),
        added=len(fresh) + len(fresh_test),
        already_held=int(known.contains(offered).sum()),
        seconds=round(seconds, 3),
        metrics=measure(after.recommender(), after.clients.interactions, after.test),
        memory_bytes=after.trained.memory.nbytes,
        notes=tuple(notes),
    )


def _over(held: TrainedFolder, catalog: Catalog) -> TrainedFolder:
    """The same folder over a larger catalog; the model stays that of the smaller one until it is extended."""
    sharing = held.clients.sharing
    return replace(held, clients=held.clients.with_sharing(sharing.over(catalog)), test=held.test.over(catalog))


def _recoded(interactions: Interactions, catalog: Catalog) -> Interactions:
    """The interactions by the codes of another catalog that knows their ids."""
    own = interactions.catalog
    users = np.array([catalog.user(name) for name in own.user_ids], dtype=np.int64)
    items = catalog.items(own.item_ids)
    codes = users[interactions.users], items[interactions.items]
    return Interactions.of(catalog, *codes, interactions.ratings, interactions.timestamps)


def _test_part(dataset: Dataset, offered: Interactions) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the offered interactions the data set holds out."""
    assert dataset.is_test is not None
    held_out = _recoded(dataset.interactions.where(dataset.is_test), offered.catalog)
    return held_out.contains(offered)


def _joined(before: TrainedFolder, new: Sharing, fresh_test: Interactions) -> tuple[Clients, Interactions, list[str]]:
    """The clients and the test part with what is new, and a note for every column that is lost by it.

    Ratings and times stay where the folder and the data both have them; else no part of the folder keeps them.
    """
    old = before.clients.sharing
    parts = [old.shared, old.private, before.test, new.shared, new.private, fresh_test]
    rated = [[part.ratings is not None for part in some if len(part)] for some in (parts[:3], parts[3:])]
    timed = [[part.timestamps is not None for part in some if len(part)] for some in (parts[:3], parts[3:])]
    notes = []
    for name, (mine, theirs) in (("ratings", map(all, rated)), ("times", map(all, timed))):
        if mine != theirs:
            whose, other = ("the folder's", "the new data") if mine else ("the new data's", "the folder")
            notes.append(f"{whose} {name} are dropped: {other} has none")
    if not all(map(all, rated)):
        parts = [replace(part, ratings=None) for part in parts]
    if not all(map(all, timed)):
        parts = [replace(part, timestamps=None) for part in parts]
    shared, private, test, new_shared, new_private, new_test = parts
    clients = before.clients.with_sharing(
        replace(before.clients.sharing, shared=shared | new_shared, private=private | new_private)
    )
    return clients, test | new_test, notes


def _notes_on_held(held: TrainedFolder, offered: Interactions, asked: Interactions) -> list[str]:
    """What the data offers and the folder has, and so is not added."""
    counts = {
        "in the folder already, left as they are": held.clients.interactions - asked,
        "held out for testing, where they stay": held.test - asked,
        "left out because their erasure is pending": asked,
    }
    found = {text: int(part.contains(offered).sum()) for text, part in counts.items()}
    return [f"{text}: {count:,}" for text, count in found.items() if count]


def _notes_on_cold(after: TrainedFolder, fresh_test: Interactions) -> list[str]:
    cold = np.setdiff1d(fresh_test.users, after.clients.interactions.users)
    return [f"new users with interactions to test on but none to train on: {len(cold):,}"] if len(cold) else []
