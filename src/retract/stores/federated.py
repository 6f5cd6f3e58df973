"""Training and unlearning of a server whose devices are on other machines: the server's half of a folder alone.

The model, the forgetting and the folder are those of a single machine; what differs is who is asked, see `meeting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError, FolderError
from retract.federation import Broadcast, Engine, TaskSpec, Traffic
from retract.federation.flower import FlowerEngine, Link, Seen
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import UnlearnOptions, UnlearnReport, unlearn_folder
from retract.stores.held import Held
from retract.stores.judging_task import JUDGE, JUDGED, metrics_of
from retract.stores.ledger import Request
from retract.stores.local import begun
from retract.stores.measuring import Metrics
from retract.stores.meeting import Meeting, Told, Wanted
from retract.stores.members import NO_ITEMS, Members
from retract.stores.reach import Reach
from retract.stores.resuming import Place, fingerprint
from retract.stores.suppression import Suppression
from retract.stores.training import has_ended, peak_bytes, require_same_list, taken_up
from retract.stores.versions import require_replaceable
from retract.systems.base import Progress, Stopwatch, Trained, no_progress
from retract.systems.checks import prepared, require_finite
from retract.systems.registry import system_of
from retract.systems.system import System


@dataclass(frozen=True)
class FederateOptions:
    """How a federated training is set up.

    Parameters
    ----------
    items
        A file that names the items that users may hold; needed for a new folder.
    seed, force, resume, key
        As of `TrainOptions`. The place of a training is kept after every round.
    wanted
        Whom to wait for.
    """

    items: Path | None = None
    seed: int = 0
    force: bool = False
    resume: bool = False
    key: Path | None = None
    wanted: Wanted = field(default_factory=Wanted)


@dataclass(frozen=True)
class FederatedReport:
    """What a federated training did: as a `TrainReport`, of what a server can know.

    `metrics` are means over what the nodes held out, `measured_on` interactions. `bytes_up` and `bytes_down` are those
    of the rounds, and `all_up` and `all_down` of all messages: what is shared, and the model that nodes get, too.
    `seen` says of every kind of message what its answers held: all that the server could see.
    """

    system: str
    nodes: int
    users: int
    items: int
    shared: int
    measured_on: int
    seconds: float
    prepare_seconds: float
    peak_mb: float
    metrics: Metrics
    memory_bytes: int
    bytes_up: int
    bytes_down: int
    all_up: int
    all_down: int
    seen: Mapping[str, Seen]
    rounds: int
    client_updates_per_second: float
    resumed_at: str | None
    notes: tuple[str, ...]


def train_federated(
    system: System,
    link: Link,
    out: Path,
    options: FederateOptions,
    progress: Progress = no_progress,
) -> FederatedReport:
    """Train into the server's half of a folder, with the nodes that a link reaches; publish the model to them.

    Raises
    ------
    ConfigError
        If the system cannot run over a network, training diverged, or a resumed training would be of other data.
    DataError
        If no items are named.
    FolderError
        As of `train_folder`.
    FederationError
        If too few nodes take part, or the system needs everybody and somebody did not answer.
    """
    require_federated(system)
    require_replaceable(out, options.force or options.resume)
    folder, said = TrainedFolder(out, options.key), list[str]()
    meeting = Meeting(link, system, _members(out, options), options.wanted)
    engine = meeting.gather(admit=not options.resume, shared=True)
    listed = folder.suppression()
    shared = _admitted(meeting, listed, said)
    place = Place(out, None, 0.0, data=fingerprint(Sharing(shared, Interactions.empty(shared.catalog))))
    if options.resume and any(asked for asked in meeting.requests.values()):
        raise ConfigError(f"something was withdrawn since the training in {out} was interrupted: --force begins anew")
    checkpoint = taken_up(place, folder, system, options.force) if options.resume else None
    if checkpoint is None:
        place.begin(options.force)
    elif has_ended(folder, checkpoint):
        place.leave()
        return _ended(folder, meeting, engine)
    said += folder.seals.ready(anew=True)
    meeting.members.keep(out)
    watch = Stopwatch()
    trained = begun(
        system,
        shared,
        None,
        engine,
        seed=options.seed,
        resume_from=checkpoint,
        keep=place.keep,
        progress=progress,
    )
    seconds = watch.seconds
    require_finite(trained)
    trained, preparing = prepared(system.server, trained, engine, seed=options.seed, progress=progress)
    require_same_list(folder, listed, place)
    passed = replace(engine.traffic)  # before it is judged
    meeting.publish(trained)
    metrics, on = judged(trained, engine)
    folder.save(Held(trained, None, Interactions.empty(shared.catalog), metrics=metrics))
    place.leave()
    meeting.settle()
    resumed = None if checkpoint is None else f"{checkpoint.stage}, step {checkpoint.done}"
    found = _report(trained, meeting, engine, passed, metrics, on)
    return replace(
        found, seconds=round(seconds, 3), prepare_seconds=round(preparing, 3), resumed_at=resumed, notes=tuple(said)
    )


def unlearn_federated(
    folder: TrainedFolder,
    link: Link,
    options: UnlearnOptions,
    wanted: Wanted | None = None,
    progress: Progress = no_progress,
) -> UnlearnReport:
    """Fetch what users asked of their nodes, let the model forget it, and publish what it became.

    Raises
    ------
    FolderError
        If the folder is not one of a federation, or damaged, or another unlearning works on it.
    FederationError
        If too few nodes take part, or the system needs everybody and somebody did not answer; nothing is applied.
    ConfigError
        If unlearning diverged; nothing is applied.
    """
    members = Members.at(folder.path)
    if members is None:
        raise FolderError(f"{folder.path} has no nodes: `retract unlearn` applies what was asked of it")
    trained = folder.load_server()
    meeting = Meeting(link, system_of(trained), members, wanted or Wanted())
    engine = meeting.gather(admit=False, shared=False)
    told = [one for asked in meeting.requests.values() for one in asked]
    record_told(folder, told, trained)
    here = {name for names in meeting.hosts.values() for name in names}
    gone = {one.user for one in told if one.kind == "erase" and one.user not in here}
    known = set(trained.shared.catalog.known_users)
    report = unlearn_folder(
        folder, replace(options, measure=False), progress=progress, reach=Reach(engine, frozenset(gone & known))
    )
    after = folder.load_server()
    meeting.members = members = meeting.members.over(after.shared.catalog)
    members.keep(folder.path)
    if report.requests:
        meeting.publish(after)
    if not report.waiting:
        meeting.settle()
    metrics, _ = judged(after, engine) if options.measure else (report.metrics, 0)
    before = folder.manifest().facts.get("metrics") or {}
    return replace(report, metrics=metrics, metrics_before={name: before.get(name) for name in metrics})


def judged(trained: Trained, engine: FlowerEngine) -> tuple[Metrics, int]:
    """The metrics of the model that the nodes have got, and how many interactions they are of."""
    if not trained.model or not len(engine.users):
        return metrics_of(JUDGED.zeros().tensors), 0
    spec = TaskSpec(trained.system, JUDGE, trained.config.model_dump(mode="json"), trained.run, JUDGED)
    sums = engine.run(spec, Broadcast(0, {}), engine.users, seed=trained.seed).update.tensors
    return metrics_of(sums), int(sums["interactions"])


def require_federated(system: System) -> None:
    """Refuse a system whose devices have nothing to do.

    Raises
    ------
    ConfigError
        If it is central.
    """
    if not system.device.tasks:
        raise ConfigError(
            f"{system.name} is central, so it cannot run over a network: take exact, fedshare or personalfr, or gather "
            f"what is shared and call `retract train {system.name}`"
        )


def record_told(folder: TrainedFolder, told: list[Told], trained: Trained) -> None:
    """Record what nodes told of, once each; of items that are not the server's nothing is recorded."""
    shared = trained.shared
    with folder.asking():
        for one in told:
            if folder.ledger.by_key(one.id) is not None or one.user not in shared.catalog.known_users:
                continue
            own = shared.catalog.item_ids[shared.items_of(shared.catalog.user(one.user))]
            held = own[np.isin(own, np.array(one.items, dtype=np.str_))].tolist()
            if held or one.kind == "erase":
                folder.inbox.record(Request.of(one.kind, one.user, len(held), held), (), one.id)


def _admitted(meeting: Meeting, listed: Suppression, said: list[str]) -> Interactions:
    """What is shared, without what was withdrawn before; says how much that is."""
    assert meeting.shared is not None
    if not listed:
        return meeting.shared
    shared = meeting.shared.where(listed.verdicts(meeting.shared) == 0)
    if dropped := len(meeting.shared) - len(shared):
        said.append(f"left out of what is shared because it was withdrawn before: {dropped:,}")
    return shared


def _members(out: Path, options: FederateOptions) -> Members:
    """Those of the folder; nobody yet over the items that are named where it is new."""
    known = Members.at(out)
    if options.items is None:
        if known is None:
            raise DataError(f"{out} knows no items yet: {NO_ITEMS}")
        return known
    named = Members.of_items(options.items)
    if known is None or known.catalog.item_ids.tolist() != named.catalog.item_ids.tolist():
        return named if known is None else replace(named, hosts=known.hosts).with_codes()
    return known


def _ended(folder: TrainedFolder, meeting: Meeting, engine: FlowerEngine) -> FederatedReport:
    """What to tell where the interrupted training had ended already."""
    trained = folder.load_server()
    meeting.publish(trained)
    metrics, on = judged(trained, engine)
    told = ("the training had ended already, and its model is served: there was nothing to go on with",)
    return replace(_report(trained, meeting, engine, Traffic(), metrics, on), notes=told)


def _report(
    trained: Trained, meeting: Meeting, engine: Engine, passed: Traffic, metrics: Metrics, on: int
) -> FederatedReport:
    return FederatedReport(
        system=trained.system,
        nodes=len(meeting.hosts),
        users=len(engine.users),
        items=trained.shared.n_items,
        shared=len(trained.shared),
        measured_on=on,
        seconds=0.0,
        prepare_seconds=0.0,
        peak_mb=round(peak_bytes() / 2**20, 1),
        metrics=metrics,
        memory_bytes=trained.memory.nbytes,
        bytes_up=passed.up,
        bytes_down=passed.down,
        all_up=sum(one.up for one in meeting.link.seen.values()),
        all_down=sum(one.down for one in meeting.link.seen.values()),
        seen=meeting.link.seen,
        rounds=passed.rounds,
        client_updates_per_second=round(passed.updates / passed.seconds, 1) if passed.seconds else 0.0,
        resumed_at=None,
        notes=(),
    )
