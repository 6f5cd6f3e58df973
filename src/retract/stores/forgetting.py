"""Forgetting, in four steps that can each be tested alone: batch, forget, judge, commit.

- *batch*: which of the pending requests go together;
- *forget*: from both halves and a batch to both halves after it; pure;
- *judge*: what an audit makes of it while both models are at hand; only its figures and a certificate stay;
- *commit*: the new version first, then the ledger. A version names the requests that it is the answer to, so whoever
  comes after a kill between the two can finish it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import ConfigError, FederationError
from retract.stores.folder import Deed, TrainedFolder
from retract.stores.held import Held
from retract.stores.ledger import Kind, Request
from retract.stores.measuring import Metrics, isolated, measured
from retract.stores.reach import Reach, askers, learns_everything
from retract.stores.requests import codes_of, named_by, pending_of
from retract.stores.suppression import Suppression
from retract.stores.versions import PLACE, SERVER, TRAINING
from retract.stores.withdrawing import USUAL, Manner, Step, withdrawn
from retract.systems.abilities import Staged, learnt_from
from retract.systems.base import Progress, Stopwatch, no_progress
from retract.systems.checks import require_finite

NOTHING_KNOWN = "nothing is left to learn from: the model knows nothing now, and its lists are empty"


@dataclass(frozen=True)
class Batch:
    """Requests that are applied together.

    Parameters
    ----------
    requests
        What was asked for.
    erase, unshare
        All interactions that they name: of erasures those held out for testing too, of unsharings none that is erased.
    learners
        Users who withdraw something that the model learnt, int64.
    """

    requests: tuple[Request, ...]
    erase: Interactions
    unshare: Interactions
    learners: NDArray[np.int64]

    @property
    def users(self) -> int:
        """How many users ask."""
        return len({request.user for request in self.requests})

    def waits(self, at_least: int) -> bool:
        """Whether too few users withdraw what the model learnt to hide among each other.

        Requests that change no model do not count; they wait for those that do, where there are any.
        """
        return not self.requests or 0 < len(self.learners) < at_least


@dataclass(frozen=True)
class Forgotten:
    """What forgetting a batch did, before the old model is gone: all that an audit may look at.

    Parameters
    ----------
    batch
        What was asked for.
    before, after
        Both halves; `after` under the ids that stay.
    steps
        The withdrawals in their order; each `after` is the next one's `before`. Empty where no model knew anything of
        what was withdrawn.
    withdrawals
        By request, the id of the withdrawal that it was a part of.
    gone
        Original ids of users of whom nothing is left.
    """

    batch: Batch
    before: Held
    after: Held
    steps: tuple[Step, ...]
    withdrawals: Mapping[str, str]
    gone: tuple[str, ...]


Judge = Callable[[Forgotten], Mapping[str, bytes]]
"""Looks at a forgetting and returns files to lay into the new version."""


def no_judge(forgotten: Forgotten) -> Mapping[str, bytes]:
    """Nobody looks."""
    return {}


@dataclass(frozen=True)
class UnlearnOptions:
    """How requests are applied.

    Parameters
    ----------
    seed
        Key of what unlearning draws.
    at_least
        Apply nothing while fewer users than so many withdraw something that the model learnt: whoever compares the
        models before and after learns of the batch, not of one person.
    measure
        Whether to measure the models before and after; with many users that takes longer than to unlearn.

    Raises
    ------
    ConfigError
        If `at_least` is below 1.
    """

    seed: int = 0
    at_least: int = 1
    measure: bool = True

    def __post_init__(self) -> None:
        if self.at_least < 1:
            raise ConfigError(f"at-least is {self.at_least}: a batch has at least 1 user")


@dataclass(frozen=True)
class UnlearnReport:
    """What was forgotten: counts of requests and interactions, seconds of unlearning alone, rounds, metrics.

    `held_out` is how many of the forgotten were held out for testing: no model had learnt them, and no audit counts
    them.
    `waiting` is how many users still wait because fewer than `at_least` of them withdraw what the model learnt.
    `refresh_seconds` is what it took to make anew what was left out at first; 0 where nothing was.
    `isolated_users` are those still here whose last shared interaction has gone, `isolated_items` those that nobody
    shares any more; `notes` say what that changes for them.
    """

    requests: int
    forgotten: int
    seconds: float
    rounds: int
    metrics: Metrics
    metrics_before: Metrics
    memory_bytes: int
    waiting: int = 0
    at_least: int = 1
    isolated_users: int = 0
    isolated_items: int = 0
    held_out: int = 0
    refresh_seconds: float = 0.0
    notes: tuple[str, ...] = ()


def unlearn_folder(
    folder: TrainedFolder,
    options: UnlearnOptions | None = None,
    *,
    judge: Judge = no_judge,
    progress: Progress = no_progress,
    reach: Reach | None = None,
) -> UnlearnReport:
    """Apply the pending requests of a trained folder. Requests that arrive meanwhile stay pending.

    Parameters
    ----------
    reach
        Reaches devices that are on other machines; unless given, they are the folder's own.

    Raises
    ------
    ConfigError
        If unlearning diverged; nothing is applied.
    FederationError
        If an erasure needs devices that cannot be reached; nothing is applied.
    FolderError
        If the folder is damaged, or another unlearning works on it; nothing is applied.
    """
    options = options or UnlearnOptions()
    with folder.unlearning():
        how = Manner(options.seed, progress, reach, at_once=judge is no_judge)
        report, held = _applied(folder, options, judge, how)
        server = held.system.server
        if isinstance(server, Staged) and server.awaits(held.trained):  # now, or since a kill
            return _refreshed(folder, server, report, options, progress)
    return report


def _applied(folder: TrainedFolder, options: UnlearnOptions, judge: Judge, how: Manner) -> tuple[UnlearnReport, Held]:
    """Apply what is pending. Where nobody judges, what can be served at once is; a judge sees the whole model."""
    held, ledger = folder.load(), folder.ledger
    requests = [(request, codes_of(folder, request, held.sharing)) for request in pending_of(folder)]
    batch = batch_of(held, requests)
    if batch.waits(options.at_least):
        return waiting(held, batch, options), held
    said = (*folder.seals.ready(), *told_of_training(folder.path))
    ids = [request.id for request in batch.requests]
    ledger.claim(ids)
    try:
        forgotten = forget(held, batch, how)
        report = report_on(forgotten, options)
        files = judge(forgotten)
        commit(folder, replace(forgotten, after=replace(forgotten.after, metrics=report.metrics)), files)
    except BaseException:
        ledger.release(ids)
        raise
    return replace(report, notes=(*said, *report.notes)), forgotten.after


def _refreshed(
    folder: TrainedFolder, server: Staged, report: UnlearnReport, options: UnlearnOptions, progress: Progress
) -> UnlearnReport:
    """Serve what an unlearning left out; the report with what it took."""
    held, watch = folder.load(), Stopwatch()
    progress("making the rest anew", 0, 1)
    after = replace(held, trained=server.refresh(held.trained))
    seconds = watch.seconds
    metrics = measured(after.recommender(), after, after.test, options.measure)
    folder.replace(held, replace(after, metrics=metrics), deed=Deed("refresh"))
    progress("making the rest anew", 1, 1)
    return replace(report, metrics=metrics, refresh_seconds=round(seconds, 3))


def batch_of(held: Held, requests: Sequence[tuple[Request, NDArray[np.int64]]]) -> Batch:
    """All pending requests as one batch.

    Parameters
    ----------
    requests
        Each with the codes of its items.
    """
    erase = named_by(requests, "erase", held.trained.shared)
    # What is shared no longer was withdrawn by another request, which the asker could not know of yet.
    unshare = (held.trained.shared & named_by(requests, "unshare", held.trained.shared)) - erase
    seen = (_learnt(held, "erase") & erase | _learnt(held, "unshare") & unshare).active_users()
    if held.devices is None and learns_everything(held):  # what an erasure withdraws besides, its device alone knows
        seen = np.union1d(seen, askers(held, [request for request, _ in requests], "erase"))
    return Batch(tuple(request for request, _ in requests), erase, unshare, seen)


def forget(held: Held, batch: Batch, how: Manner = USUAL) -> Forgotten:
    """Both halves after a batch: all erasures as one withdrawal, and then all unsharings as another.

    Erasures come first: nothing is learnt once more from what is about to be erased.

    Raises
    ------
    ConfigError
        If unlearning diverged.
    FederationError
        If an erasure needs devices that cannot be reached.
    """
    reach = how.reach
    if reach is None:
        _require_reachable(held, batch)
    state, steps, ids = held, list[Step](), {}
    for kind, named in (("erase", batch.erase), ("unshare", batch.unshare)):
        asking = named.active_users() if reach is None else askers(held, batch.requests, kind)
        state, step, ids[kind] = withdrawn(state, kind, named, asking, how)  # type: ignore[arg-type]
        steps += [step] if step is not None else []
    require_finite(state.trained)
    gone = np.setdiff1d(batch.erase.users, (state.interactions | state.test).users)
    if reach is not None:  # what a device still holds, it alone knows
        gone = np.array([held.catalog.user(name) for name in sorted(reach.gone)], dtype=np.int64)
    names = tuple(str(name) for name in held.catalog.user_ids[gone])
    withdrawals = {request.id: ids[request.kind] for request in batch.requests}
    after = state.renamed(state.catalog.without_users(gone))
    return Forgotten(batch, held, after, tuple(steps), withdrawals, names)


def commit(folder: TrainedFolder, forgotten: Forgotten, files: Mapping[str, bytes]) -> None:
    """Suppress what is withdrawn, serve the new version, and then complete the requests.

    Raises
    ------
    FolderError
        If another version is served by now; nothing is written.
    """
    folder.suppress(lambda known: suppressing(known, forgotten))  # first: what is suppressed too early harms nobody
    folder.replace(forgotten.before, forgotten.after, forgotten.withdrawals, files)
    folder.inbox.settle(forgotten.withdrawals, forgotten.gone)
    folder.publish()


def told_of_training(folder: Path) -> tuple[str, ...]:
    """What to tell of an interrupted training whose place a withdrawal removes."""
    if not (folder / SERVER / TRAINING / PLACE).exists():
        return ()
    return ("the training that was interrupted here had learnt what is withdrawn: its place is gone, train anew",)


def suppressing(known: Suppression, forgotten: Forgotten) -> Suppression:
    """The suppression list with what a batch withdraws."""
    batch, shared = forgotten.batch, forgotten.before.trained.shared
    asked = {(one.kind, one.user): one.received for one in sorted(batch.requests, key=lambda one: one.received)}
    return known.after(batch.erase, batch.unshare, shared, forgotten.gone, asked)


def report_on(forgotten: Forgotten, options: UnlearnOptions) -> UnlearnReport:
    """What to tell of a forgetting."""
    before, after, batch = forgotten.before, forgotten.after, forgotten.batch
    model, test = after.recommender(), after.test
    left_alone = isolated(before.sharing, after.sharing)
    return UnlearnReport(
        requests=len(batch.requests),
        forgotten=len(batch.erase) + len(batch.unshare),
        seconds=round(sum(step.seconds for step in forgotten.steps), 3),
        rounds=sum(step.rounds for step in forgotten.steps),
        metrics=measured(model, after, test, options.measure),
        metrics_before=measured(before.recommender(), before, replace(test, catalog=before.catalog), options.measure),
        memory_bytes=after.trained.memory.nbytes,
        at_least=options.at_least,
        isolated_users=len(left_alone.users),
        isolated_items=len(left_alone.items),
        held_out=len(batch.erase & before.test),
        notes=left_alone.notes(model) if after.trained.model else (NOTHING_KNOWN,),
    )


def waiting(held: Held, batch: Batch, options: UnlearnOptions) -> UnlearnReport:
    """What to tell where nothing was applied."""
    metrics = measured(held.recommender(), held, held.test, options.measure)
    memory = held.trained.memory.nbytes
    return UnlearnReport(0, 0, 0.0, 0, metrics, metrics, memory, batch.users, options.at_least)


def _require_reachable(held: Held, batch: Batch) -> None:
    """Refuse an erasure from a model that private data went into, where nobody can be asked for the rest."""
    erasing = any(request.kind == "erase" for request in batch.requests)
    if erasing and held.devices is None and learns_everything(held):
        raise FederationError(
            f"{held.trained.system} learns from its devices, so an erasure has to ask them, and the devices' half is "
            "not here: nothing was applied; run this where the devices are"
        )


def _learnt(held: Held, kind: Kind) -> Interactions:
    """What the model would change by if it were withdrawn so."""
    part = learnt_from(held.system.server, kind)
    if part == "everything":
        return held.interactions
    return held.trained.shared if part == "shared" else Interactions.empty(held.catalog)
