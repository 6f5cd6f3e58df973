"""New users, new items and new interactions enter a model, without training again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retract.data import Catalog, Dataset, Interactions, Sharing, sharing_of
from retract.errors import ConfigError, FederationError
from retract.stores.admission import Admitted, admitted
from retract.stores.devices import MemoryDevices
from retract.stores.folder import Deed, TrainedFolder
from retract.stores.held import Held
from retract.stores.learning import learn
from retract.stores.ledger import Request
from retract.stores.local import engine_of
from retract.stores.measuring import Metrics, measured
from retract.stores.recoding import recoded
from retract.stores.requests import codes_of, named_by, pending_of
from retract.stores.suppression import Suppression
from retract.systems.abilities import Extendable, FixedItems
from retract.systems.base import Progress, Stopwatch, no_progress
from retract.systems.likes import suited_to


@dataclass(frozen=True)
class ExtendReport:
    """What was taken in: what is held now, what was added, and what was held already."""

    system: str
    users: int
    items: int
    shared: int
    private: int
    added: int
    already_held: int
    seconds: float
    metrics: Metrics
    memory_bytes: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Extended:
    """A model with what is new, what to tell of it, and the suppression list as it is then."""

    held: Held
    report: ExtendReport
    changed: bool
    suppression: Suppression


def extend_folder(
    folder: TrainedFolder,
    dataset: Dataset,
    *,
    share: float | None = None,
    again: bool = False,
    seed: int = 0,
    progress: Progress = no_progress,
) -> ExtendReport:
    """Add what a data set holds and a trained folder does not; see `extended`.

    Raises
    ------
    FolderError
        If the folder is damaged, or was replaced meanwhile; nothing is added.
    """
    folder.finish()
    said = folder.seals.ready()
    held = folder.load()
    asked = [(request, codes_of(folder, request, held.sharing)) for request in pending_of(folder)]
    listed = folder.suppression()
    found = extended(held, dataset, asked, listed, share=share, again=again, seed=seed, progress=progress)
    if found.changed:
        folder.replace(held, replace(found.held, metrics=found.report.metrics), deed=Deed("extend"))
    if again:
        folder.suppress(lambda known: known.without(dataset.interactions))
    return replace(found.report, notes=(*said, *found.report.notes))


def extended(
    held: Held,
    dataset: Dataset,
    asked: Sequence[tuple[Request, NDArray[np.int64]]] = (),
    suppression: Suppression | None = None,
    *,
    share: float | None = None,
    again: bool = False,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Extended:
    """Add what a data set holds and a model does not.

    Parameters
    ----------
    dataset
        All of it goes to training, but for what it holds out itself.
    asked
        Pending requests, each with the codes of its items: what is to be erased is not taken in again.
    suppression
        What was withdrawn before: what was erased is left out, and what was unshared is taken in as private alone.
    again
        Whether it is taken in all the same, for its users have consented anew.
    share
        The part of their new interactions that users share, in [0, 1]. Unless given, a column `shared` of the data says
        it one by one; without either it is what users shared when the model was trained.

    Raises
    ------
    ConfigError
        If the system cannot take in data without training again.
    DataError
        If it cannot take in this data: the message says what of it.
    FederationError
        If the devices, which would hold it, are elsewhere.
    SharingError
        If `share` lies outside [0, 1], or has to be said and is not.
    """
    server = _extendable(held)
    came = _admitted(held, suited_to(held.system.type, dataset), suppression or Suppression(), again)
    dataset, catalog = came.dataset, held.catalog.extended_by(came.dataset.interactions.catalog)
    before = _over(held, catalog)
    offered = recoded(dataset.interactions, catalog)
    held_out = np.zeros(len(offered), dtype=np.bool_) if dataset.is_test is None else _test_part(dataset, offered)
    known = before.interactions | before.test
    fresh, fresh_test = (offered.where(part) - known for part in (~held_out, held_out))
    said = None if dataset.shared is None else recoded(dataset.shared, catalog)
    usual = held.share if len(fresh) else 0.0
    # Also where nothing is new: a wrong ratio is refused in any case.
    new, told = came.kept(sharing_of(fresh, share, said, usual, seed))
    pending = named_by(asked, "erase", held.trained.shared).over(catalog)
    notes = [*came.notes, *told, *_notes_on_held(before, offered, pending), *dataset.reading_notes]
    after, seconds, changed = held, 0.0, bool(len(fresh) or len(fresh_test))
    if changed:
        after, seconds, forgone = _taken_in(before, server, new, fresh_test, seed, progress)
        notes += [*forgone, *_notes_on_cold(after, fresh_test)]
    report = _report(after, len(fresh) + len(fresh_test), int(known.contains(offered).sum()), seconds, notes)
    return Extended(after, report, changed, came.suppression)


def _taken_in(
    before: Held, server: Extendable, new: Sharing, fresh_test: Interactions, seed: int, progress: Progress
) -> tuple[Held, float, list[str]]:
    """Both halves with what is new, the seconds that took, and what to tell of it."""
    devices, test, forgone = _joined(before, new, fresh_test)
    system, watch = before.system, Stopwatch()
    engine = engine_of(system, devices)
    if before.trained.model:
        trained = server.extend(before.trained, new.shared, engine, seed=seed, progress=progress)
    else:
        trained = learn(system, devices, seed=before.trained.seed, progress=progress).trained
    seconds = watch.seconds
    # The server's columns too are those that both sides have.
    trained = replace(trained, shared=devices.sharing.shared)
    return replace(before, trained=trained, devices=devices, test=test), seconds, forgone


def _admitted(held: Held, dataset: Dataset, suppression: Suppression, again: bool) -> Admitted:
    """What of a data set the model has a place for, and of that what may come in."""
    told: tuple[str, ...] = ()
    rows = dataset.interactions
    known = np.isin(rows.catalog.item_ids, held.catalog.item_ids)
    if not known.all() and isinstance(held.system.server, FixedItems):
        stays = known[rows.items]
        dataset = dataset.only(stays, idle=False)
        told = (
            f"left out, for {held.trained.system} knows only the items that it was trained on: "
            f"{int((~stays).sum()):,} interactions with {int((~known).sum()):,} new items",
        )
    came = admitted(dataset, suppression, again)
    return replace(came, notes=(*told, *came.notes))


def _extendable(held: Held) -> Extendable:
    """The half that takes in data; errors as of `extended`."""
    server = held.system.server
    if not isinstance(server, Extendable):
        raise ConfigError(
            f"{held.trained.system} cannot take in new data without training again; exact and personalfr can"
        )
    if held.devices is None:
        raise FederationError("new data enters where the devices are, and their half is not here: extend it there")
    return server


def _report(after: Held, added: int, already: int, seconds: float, notes: Sequence[str]) -> ExtendReport:
    sharing = after.sharing
    return ExtendReport(
        system=after.trained.system,
        users=len(after.interactions.active_users()),
        items=after.catalog.n_items,
        shared=len(sharing.shared),
        private=len(sharing.private),
        added=added,
        already_held=already,
        seconds=round(seconds, 3),
        metrics=measured(after.recommender(), after, after.test),
        memory_bytes=after.trained.memory.nbytes,
        notes=tuple(notes),
    )


def _over(held: Held, catalog: Catalog) -> Held:
    """The same over a larger catalog; the model stays that of the smaller one until it is extended."""
    assert held.devices is not None
    devices = held.devices.with_sharing(held.devices.sharing.over(catalog))
    return replace(held, devices=devices, test=held.test.over(catalog))


def _test_part(dataset: Dataset, offered: Interactions) -> NDArray[np.bool_]:
    """Which of the offered interactions the data set holds out."""
    assert dataset.is_test is not None
    held_out = recoded(dataset.interactions.where(dataset.is_test), offered.catalog)
    return held_out.contains(offered)


def _joined(before: Held, new: Sharing, fresh_test: Interactions) -> tuple[MemoryDevices, Interactions, list[str]]:
    """The devices and the test part with what is new, and a note for every column that is lost by it.

    Ratings and times stay where the folder and the data both have them; else no part of the folder keeps them.
    """
    assert before.devices is not None
    old = before.devices.sharing
    parts = [old.shared, old.private, before.test, new.shared, new.private, fresh_test]
    rated = [[part.ratings is not None for part in some if len(part)] for some in (parts[:3], parts[3:])]
    timed = [[part.timestamps is not None for part in some if len(part)] for some in (parts[:3], parts[3:])]
    notes = []
    for name, (mine, theirs) in (("ratings", rated), ("times", timed)):
        if mine and theirs and all(mine) != all(theirs):
            whose, other = ("the folder's", "the new data") if all(mine) else ("the new data's", "the folder")
            notes.append(f"{whose} {name} are dropped: {other} has none")
    if not all(map(all, rated)):
        parts = [replace(part, ratings=None) for part in parts]
    if not all(map(all, timed)):
        parts = [replace(part, timestamps=None) for part in parts]
    shared, private, test, new_shared, new_private, new_test = parts
    sharing = replace(old, shared=shared | new_shared, private=private | new_private)
    return before.devices.with_sharing(sharing), test | new_test, notes


def _notes_on_held(held: Held, offered: Interactions, asked: Interactions) -> list[str]:
    """What the data offers and the folder has, and so is not added."""
    counts = {
        "in the folder already, left as they are": held.interactions - asked,
        "held out for testing, where they stay": held.test - asked,
        "left out because their erasure is pending": asked,
    }
    found = {text: int(part.contains(offered).sum()) for text, part in counts.items()}
    return [f"{text}: {count:,}" for text, count in found.items() if count]


def _notes_on_cold(after: Held, fresh_test: Interactions) -> list[str]:
    cold = np.setdiff1d(fresh_test.users, after.interactions.users)
    return [f"new users with interactions to test on but none to train on: {len(cold):,}"] if len(cold) else []
