"""The life of a trained folder: train, recommend, apply what was asked for. For commands and services alike."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Dataset, Interactions, Sharing
from retract.errors import ConfigError, DataError
from retract.evaluation.ranking import evaluate
from retract.evaluation.rating import rating_errors
from retract.federation import Clients, LocalEngine
from retract.models.recommender import PredictsRatings, Recommender, fallback_of, recommend_to
from retract.systems import folder as folders
from retract.systems import storage
from retract.systems.base import (
    Kind,
    LearnsFromPrivate,
    Progress,
    Stopwatch,
    System,
    no_progress,
    now,
    prepared,
    require_finite,
    withdraw,
)
from retract.systems.folder import Request, TrainedFolder
from retract.systems.isolation import isolated
from retract.systems.requests import pending_of

K = 20
"""Length of the lists that the metrics judge."""


@dataclass(frozen=True)
class TrainReport:
    """What `train_folder` did. Seconds of training alone; megabytes of the process's peak; bytes of all clients.

    `prepare_seconds` is what came after training so as to forget fast later, 0 where the system prepares nothing.
    """

    system: str
    users: int
    items: int
    shared: int
    private: int
    seconds: float
    prepare_seconds: float
    peak_mb: float
    metrics: Mapping[str, float | None]
    memory_bytes: int
    bytes_up: int
    bytes_down: int
    client_updates_per_second: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class UnlearnReport:
    """What `apply_requests` did: counts of requests and interactions, seconds of unlearning alone, metrics.

    `waiting` is how many users still wait because fewer than `at_least` of them withdraw what the model learnt.
    `isolated_users` are those still here whose last shared interaction has gone, `isolated_items` those that nobody
    shares any more; `notes` say what that changes for them.
    """

    requests: int
    forgotten: int
    seconds: float
    metrics: Mapping[str, float | None]
    metrics_before: Mapping[str, float | None]
    memory_bytes: int
    waiting: int = 0
    at_least: int = 1
    isolated_users: int = 0
    isolated_items: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One withdrawal as it was applied, while both models are still at hand; seconds, and bytes sent both ways."""

    kind: Kind
    forget: Interactions
    before: TrainedFolder
    after: TrainedFolder
    seconds: float
    bytes_sent: int


@dataclass(frozen=True)
class Applied:
    """What an unlearning did, before the old model is gone: all that an audit may look at.

    Parameters
    ----------
    steps
        The withdrawals in their order; each `after` is the next one's `before`. Empty where no model knew anything of
        what was withdrawn.
    requests
        What was asked for.
    saved
        The state that takes the folder's place.
    """

    steps: tuple[Step, ...]
    requests: tuple[Request, ...]
    saved: TrainedFolder


Witness = Callable[[Applied], Mapping[str, bytes]]
"""Looks at an unlearning and returns files to lay into the folder, written together with the new state."""


def no_witness(applied: Applied) -> Mapping[str, bytes]:
    """Nobody looks."""
    return {}


@dataclass(frozen=True)
class Status:
    """What a trained folder holds: users with an interaction, items of the catalog, interactions, requests."""

    system: str
    users: int
    items: int
    shared: int
    private: int
    pending: int
    applied: int
    requests: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Recommended:
    """One line of a list of recommendations, original ids."""

    item: str
    title: str
    score: float


@dataclass(frozen=True)
class Recommendations:
    """A list for one user, best first; `fallback` is what it goes by where the model does not know the user."""

    items: tuple[Recommended, ...]
    fallback: str | None


def train_folder(
    system: System,
    dataset: Dataset,
    out: Path,
    *,
    share: float,
    n_clients: int | None = None,
    test: float = 0.2,
    seed: int = 0,
    force: bool = False,
    progress: Progress = no_progress,
) -> TrainReport:
    """Split, share, train, prepare to forget where the system does so, evaluate, and save.

    Parameters
    ----------
    share
        The part of their training interactions that users share, in [0, 1].
    n_clients
        How many clients hold the users' data, dealt at random; every user is one unless given.
    test
        The part of every user's interactions that is held out, in (0, 1); without effect where the data names a part.
    force
        Replace the trained folder that `out` is, its pending requests included. Files in it that are not ours stay.

    Raises
    ------
    FolderError
        If `out` is a trained folder and `force` is not given, or holds anything else; checked before training.
    DataError
        If fewer than two users have something to train on.
    ConfigError
        If training, or preparing, diverged; if `test` lies outside (0, 1) or `n_clients` outside [1, users]; or if the
        system has one user per client and there are fewer.
    SharingError
        If `share` lies outside [0, 1].
    """
    storage.require_replaceable(out, force)
    train, held_out = dataset.split(seed=seed, test=test)
    sharing = Sharing.by_ratio(train, share, seed)
    clients = Clients(sharing if n_clients is None else sharing.held_by(n_clients, seed))
    if (able := len(train.active_users())) < 2:
        raise DataError(f"{dataset.name}: users with something to train on: {able}; at least 2 are needed")
    engine, watch = LocalEngine(clients), Stopwatch()
    trained = system.train(clients.sharing.shared, engine, seed=seed, progress=progress)
    seconds = watch.seconds
    require_finite(trained)
    trained, preparing = prepared(system, trained, engine, seed=seed, progress=progress)
    metrics = measure(system.recommender(trained, clients), train, held_out)
    folders.save(out, trained, clients, held_out, force=force)
    traffic, sharing = engine.traffic, clients.sharing
    return TrainReport(
        system=trained.system,
        users=able,
        items=train.n_items,
        shared=len(sharing.shared),
        private=len(sharing.private),
        seconds=round(seconds, 3),
        prepare_seconds=round(preparing, 3),
        peak_mb=round(_peak_bytes() / 2**20, 1),
        metrics=metrics,
        memory_bytes=trained.memory.nbytes,
        bytes_up=int(traffic.up.sum()),
        bytes_down=int(traffic.down.sum()),
        client_updates_per_second=round(traffic.updates / traffic.seconds, 1) if traffic.seconds else 0.0,
        notes=(*dataset.notes, *_notes(train)),
    )


def recommend_folder(path: Path, user: str, k: int | None = None) -> Recommendations:
    """The best items that a user has not had yet; fewer where fewer are left.

    Parameters
    ----------
    k
        How many: 10, or all of a smaller catalog, unless given.

    Raises
    ------
    UnknownIdError
        If there is no such user; the message names the nearest known ids.
    ConfigError
        If k lies outside [1, number of items].
    DataError
        If the user holds no interaction.
    """
    held = folders.load(path)
    code, history = held.catalog.user(user), held.clients.interactions
    if not len(history.items_of(code)):
        raise DataError(f"user {user!r} holds no interaction in {path}: there is nothing to recommend from")
    model = held.recommender()
    best = tuple(Recommended(*line) for line in recommend_to(model, code, history, k))
    return Recommendations(best, fallback_of(model, code))


def apply_requests(
    path: Path,
    *,
    seed: int = 0,
    at_least: int = 1,
    judge: bool = True,
    witness: Witness = no_witness,
    progress: Progress = no_progress,
) -> UnlearnReport:
    """Unlearn what the pending requests name, all erasures as one withdrawal and then all unsharings as another.

    Requests that arrive meanwhile stay pending.

    Parameters
    ----------
    at_least
        Apply nothing while fewer users than so many withdraw something that the model learnt, of most systems something
        shared: whoever compares the models before and after learns of the batch, not of one person. Requests that
        change no model do not count; they wait for those that do, where there are any.
    judge
        Whether to measure the models before and after; with many users that takes longer than to unlearn.
    witness
        Called while the old model is still at hand; if it raises, nothing is applied.

    Raises
    ------
    DataError
        If the erasures would leave nobody with an interaction.
    ConfigError
        If `at_least` is below 1, or unlearning diverged; nothing is applied.
    FolderError
        If the folder is damaged, or was replaced meanwhile; nothing is applied.
    """
    if at_least < 1:
        raise ConfigError(f"at-least is {at_least}: a batch has at least 1 user")
    before = folders.load(path)
    erase = pending_of(before, "erase")
    unshare = pending_of(before, "unshare") - erase
    seen = (_learnt(before, "erase") & erase | _learnt(before, "unshare") & unshare).active_users()
    if not before.pending or 0 < len(seen) < at_least:
        waiting = len({request.user for request in before.pending})
        metrics = _judged(before.recommender(), before, before.test, judge)
        return UnlearnReport(0, 0, 0.0, metrics, metrics, before.trained.memory.nbytes, waiting, at_least)
    if not len(before.clients.interactions - erase):
        raise DataError(f"these erasures leave nobody with an interaction: nothing was applied; delete {path} instead")
    # Erasures first: nothing is learnt once more from what is about to be erased.
    erased, erasure_id, erasing = _forget(before, "erase", erase, seed, progress)
    after, unsharing_id, unsharing = _forget(erased, "unshare", unshare, seed, progress)
    steps = (*erasing, *unsharing)
    require_finite(after.trained)
    model = after.recommender()
    metrics_before = _judged(before.recommender(), before, after.test, judge)
    metrics = _judged(model, after, after.test, judge)
    withdrawals = {"erase": erasure_id, "unshare": unsharing_id}
    applied, settled_at, gone = {request.id for request in before.pending}, now(), _gone(after.clients, erase)
    names = {str(before.catalog.user_ids[user]) for user in gone}

    def settle(request: Request) -> Request:
        # What somebody who is gone asked for meanwhile is done too: nothing of theirs is left to withdraw.
        over = request.id in applied or (request.pending and request.user in names)
        done = request.settled(settled_at, withdrawals[request.kind]) if over else request
        return replace(done, user="") if done.user in names else done

    saved = after.renamed(after.catalog.without_users(gone))
    files = witness(Applied(steps, before.pending, saved))
    folders.replace_state(path, before, saved, settle, files)
    left_alone = isolated(before.clients, after.clients)
    return UnlearnReport(
        requests=len(applied),
        forgotten=len(erase) + len(unshare),
        seconds=round(sum(step.seconds for step in steps), 3),
        metrics=metrics,
        metrics_before=metrics_before,
        memory_bytes=after.trained.memory.nbytes,
        at_least=at_least,
        isolated_users=len(left_alone.users),
        isolated_items=len(left_alone.items),
        notes=left_alone.notes(model),
    )


def status(path: Path) -> Status:
    """What a trained folder holds. Errors as in `folder.load`."""
    held = folders.load(path)
    sharing = held.clients.sharing
    return Status(
        system=held.trained.system,
        users=len(held.clients.interactions.active_users()),
        items=held.catalog.n_items,
        shared=len(sharing.shared),
        private=len(sharing.private),
        pending=len(held.pending),
        applied=len(held.requests) - len(held.pending),
        requests=tuple(_public(request) for request in held.requests),
    )


def measure(model: Recommender, history: Interactions, test: Interactions) -> dict[str, float | None]:
    """Mean Recall@20 and NDCG@20 over the tested users, and of who predicts ratings RMSE and MAE; None where nobody is.

    A catalog of fewer than 20 items gives the same figures: no list can be longer than the catalog.
    """
    found = evaluate(model, history, test, k=K)
    metrics = dict(zip((f"recall@{K}", f"ndcg@{K}"), found.mean().values(), strict=True))
    if isinstance(model, PredictsRatings):
        judged = rating_errors(model, history, test)
        metrics |= {"rmse": judged.rmse, "mae": judged.mae}
    return {name: None if np.isnan(value) else round(value, 6) for name, value in metrics.items()}


def _judged(model: Recommender, held: TrainedFolder, test: Interactions, judge: bool) -> dict[str, float | None]:
    """The metrics of a folder's model; None each where they are not wanted."""
    return measure(model, held.clients.interactions, test if judge else Interactions.empty(held.catalog))


def _notes(train: Interactions) -> tuple[str, ...]:
    """What is allowed but limits what can be learnt."""
    untouched = int((train.item_degrees() == 0).sum())
    if not untouched:
        return ()
    return (f"items that nobody touches in the training part, kept all the same: {untouched:,} of {train.n_items:,}",)


def _forget(
    held: TrainedFolder, kind: Kind, forget: Interactions, seed: int, progress: Progress
) -> tuple[TrainedFolder, str, tuple[Step, ...]]:
    """Both halves after one withdrawal, its id, and what was done: nothing where no model knew of it."""
    learnt = held.clients.interactions & forget  # the rest was held out for testing: no model knows it
    clients, withdrawal = withdraw(held.clients, kind, learnt)
    trained, test, engine, watch = held.trained, held.test, LocalEngine(clients), Stopwatch()
    if len(learnt):
        trained = held.system.unlearn(trained, withdrawal, engine, seed=seed, progress=progress)
    seconds = watch.seconds
    if kind == "erase":
        test = test - forget
        test = test.where(~np.isin(test.users, _gone(clients, forget)))
    after = replace(held, trained=trained, clients=clients, test=test)
    sent = int(engine.traffic.up.sum() + engine.traffic.down.sum())
    steps = (Step(kind, learnt, held, after, seconds, sent),) if len(learnt) else ()
    return after, withdrawal.request_id, steps


def _learnt(held: TrainedFolder, kind: Kind) -> Interactions:
    """What the model would change by if it were withdrawn so."""
    part = held.system.learnt(kind) if isinstance(held.system, LearnsFromPrivate) else "shared"
    if part == "everything":
        return held.clients.interactions
    return held.trained.shared if part == "shared" else Interactions.empty(held.catalog)


def _gone(clients: Clients, erased: Interactions) -> NDArray[np.int64]:
    """Users whose erasure left them nothing to train on: they are no longer tested, and their ids go too."""
    return np.setdiff1d(erased.users, clients.interactions.users)


def _public(request: Request) -> dict[str, Any]:
    """A request without its items: what they are is the user's business."""
    fields = {key: value for key, value in asdict(request).items() if key != "items"}
    return {**fields, "status": "pending" if request.pending else "applied"}


def _peak_bytes() -> int:
    """The most memory that this process held; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
