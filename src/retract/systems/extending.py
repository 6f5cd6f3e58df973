"""New users, new items and new interactions enter a trained folder, without training again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retract.data import Catalog, Dataset, Interactions, Sharing
from retract.errors import ConfigError
from retract.federation import LocalEngine
from retract.systems import folder as folders
from retract.systems.base import Extendable, Progress, Stopwatch, no_progress
from retract.systems.folder import TrainedFolder
from retract.systems.lifecycle import measure, pending_of


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
    SharingError
        If `share` lies outside [0, 1].
    FolderError
        If the folder is damaged, or was replaced meanwhile; nothing is added.
    """
    held = folders.load(path)
    system = held.system
    if not isinstance(system, Extendable):
        raise ConfigError(f"{held.trained.system} cannot take in new data without training again; exact can")
    catalog = held.catalog.extended_by(dataset.interactions.catalog)
    before = _over(held, catalog)
    offered = _recoded(dataset.interactions, catalog)
    held_out = np.zeros(len(offered), dtype=np.bool_) if dataset.is_test is None else _test_part(dataset, offered)
    known = before.clients.interactions | before.test
    asked = pending_of(held, "erase").over(catalog)
    fresh, fresh_test = (offered.where(part) - known - asked for part in (~held_out, held_out))
    notes = (*dataset.notes, *_notes(before, offered, asked))
    after, seconds = held, 0.0
    if len(fresh) or len(fresh_test):
        new = Sharing.by_ratio(fresh, share, seed)
        sharing = before.clients.sharing
        both = Sharing(sharing.shared | new.shared, sharing.private | new.private)
        clients, watch = before.clients.with_sharing(both), Stopwatch()
        trained = system.extend(before.trained, new.shared, LocalEngine(clients), seed=seed, progress=progress)
        seconds = watch.seconds
        after = replace(before, trained=trained, clients=clients, test=before.test | fresh_test)
        folders.replace_state(path, held, after, lambda request: request)
    sharing = after.clients.sharing
    return ExtendReport(
        system=after.trained.system,
        users=len(after.clients.interactions.active_users()),
        items=catalog.n_items,
        shared=len(sharing.shared),
        private=len(sharing.private),
        added=len(fresh) + len(fresh_test),
        already_held=int(known.contains(offered).sum()),
        seconds=round(seconds, 3),
        metrics=measure(after.recommender(), after.clients.interactions, after.test),
        memory_bytes=after.trained.memory.nbytes,
        notes=notes,
    )


def _over(held: TrainedFolder, catalog: Catalog) -> TrainedFolder:
    """The same folder over a larger catalog; the model stays that of the smaller one until it is extended."""
    sharing = held.clients.sharing
    larger = Sharing(sharing.shared.over(catalog), sharing.private.over(catalog))
    return replace(held, clients=held.clients.with_sharing(larger), test=held.test.over(catalog))


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


def _notes(held: TrainedFolder, offered: Interactions, asked: Interactions) -> tuple[str, ...]:
    notes = []
    if skipped := int(asked.contains(offered).sum()):
        notes.append(f"left out because their erasure is pending: {skipped:,}")
    ours = held.clients.interactions
    for name, mine, theirs in (
        ("ratings", ours.ratings, offered.ratings),
        ("times", ours.timestamps, offered.timestamps),
    ):
        if len(ours) and (mine is None) != (theirs is None):
            notes.append(f"{name} are dropped: only one of the folder and the data has them")
    return tuple(notes)
