"""Training into a folder: part the data, learn, measure, save. What is interrupted can be resumed."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from retract.data import Dataset
from retract.errors import ConfigError, FolderError
from retract.federation import Traffic
from retract.stores.admission import Admitted, admitted
from retract.stores.devices import MemoryDevices
from retract.stores.folder import TrainedFolder
from retract.stores.held import Held
from retract.stores.learning import USUAL_TEST, Choice, Learnt, Parts, learn
from retract.stores.measuring import Measured, Metrics
from retract.stores.resuming import Place
from retract.stores.suppression import Suppression
from retract.stores.versions import require_replaceable
from retract.systems.abilities import learnt_from
from retract.systems.base import Checkpoint, Progress, no_progress
from retract.systems.likes import suited_to
from retract.systems.system import System


@dataclass(frozen=True)
class TrainOptions:
    """How a training is set up.

    Parameters
    ----------
    share, test, clients
        See `Choice`.
    evaluate
        Measure first, by a model that learns from all but a part of the data; the model that is kept then learns from
        all of it. The part is a column `fold`'s, or else a fifth of every user's interactions.
    seed
        Key of split, sharing and training.
    force
        Replace the trained folder that is there, its pending requests included. Files in it that are not ours stay.
    resume
        Go on with the training that was interrupted there.
    again
        Take in what was erased from the folder, and share what was unshared: its users have consented anew.
    keep_every
        Seconds between two keepings of the training's place.
    key
        File of the private key that signs the version; your own key unless given, made where there is none.

    Raises
    ------
    ConfigError
        If both `test` and `evaluate` are given.
    """

    share: float | None = None
    clients: int | None = None
    test: float | None = None
    evaluate: bool = False
    seed: int = 0
    force: bool = False
    resume: bool = False
    again: bool = False
    keep_every: float = 20.0
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.evaluate and self.test is not None:
            raise ConfigError(
                "--test keeps a part out of the model for good, --evaluate measures on a part and then learns from "
                "all: give one of them"
            )

    @property
    def choice(self) -> Choice:
        """What is shared and what is held out of the model that is kept."""
        return Choice(self.share, self.test, self.clients)


@dataclass(frozen=True)
class TrainReport:
    """What `train_folder` did. Seconds of training alone; megabytes of the process's peak; bytes of all clients.

    `learnt` interactions, of `interactions` in the data, are what the model comes from, and `held_out` what it was not
    shown; `measured_on` is how many the metrics are of, 0 where nothing was measured. `prepare_seconds` is what came
    after training so as to forget fast later, 0 where the system prepares nothing; `resumed_at` is the step at which an
    interrupted training was taken up, None for one in a single piece. Seconds, bytes and rounds are those of this
    process, without those of measuring first.
    """

    system: str
    users: int
    items: int
    interactions: int
    learnt: int
    held_out: int
    measured_on: int
    shared: int
    private: int
    seconds: float
    prepare_seconds: float
    peak_mb: float
    metrics: Metrics
    memory_bytes: int
    bytes_up: int
    bytes_down: int
    rounds: int
    client_updates_per_second: float
    resumed_at: str | None
    notes: tuple[str, ...]


def train_folder(
    system: System,
    dataset: Dataset,
    out: Path,
    options: TrainOptions | None = None,
    progress: Progress = no_progress,
) -> TrainReport:
    """Train into a folder.

    Raises
    ------
    FolderError
        If `out` is a trained folder and `force` is not given, or holds anything else, or an interrupted training that
        is neither to be resumed nor replaced; or if a resumed training would lose pending requests and `force` is not
        given; checked before training. Or if something was withdrawn from the folder meanwhile; nothing is saved.
    DataError
        If fewer than two users have something to train on.
    ConfigError
        If training, or preparing, diverged; if `test` lies outside [0, 1) or `clients` outside [1, users]; if the
        system has one user per client and there are fewer; or if the interrupted training was another one.
    SharingError
        If `share` lies outside [0, 1], or has to be said and is not.
    """
    options, dataset = options or TrainOptions(), suited_to(system.type, dataset)
    require_replaceable(out, options.force or options.resume)
    folder = TrainedFolder(out, options.key)
    listed = folder.suppression()
    came = admitted(dataset, listed, options.again)
    whole = replace(came.dataset, is_test=None) if options.evaluate else came.dataset
    parts, kept = _parts(came, whole, system, options.choice, options.seed)
    devices = MemoryDevices(parts.sharing)
    place = Place(out, devices, options.keep_every)
    checkpoint = taken_up(place, folder, system, options.force) if options.resume else None
    if checkpoint is None:
        place.begin(options.force)
    elif has_ended(folder, checkpoint):
        place.leave()
        held = folder.load()
        told = ("the training had ended already, and its model is served: there was nothing to go on with",)
        return _report(held, Learnt(held.trained, Traffic(), 0.0, 0.0), Measured.before(held), None, told)
    said = folder.seals.ready(anew=True)
    if options.evaluate and place.measured is None:
        place.measured = _evaluated(system, came, options, progress)
    devices = place.devices or devices  # as they were where the training was interrupted
    learnt = learn(system, devices, seed=options.seed, resume_from=checkpoint, keep=place.keep, progress=progress)
    held = learnt.held(devices, parts)
    found = Measured.of(held) if place.measured is None else place.measured
    require_same_list(folder, listed, place)
    folder.save(replace(held, metrics=found.metrics))
    if options.again:
        folder.suppress(lambda known: known.without(dataset.interactions))
    place.leave()
    resumed = None if checkpoint is None else f"{checkpoint.stage}, step {checkpoint.done}"
    notes = (*said, *dataset.notes, *came.notes, *kept, *_notes(held))
    return _report(held, learnt, found, resumed, notes)


def taken_up(place: Place, folder: TrainedFolder, system: System, force: bool) -> Checkpoint:
    """The interrupted training; errors as of `train_folder`."""
    checkpoint = place.taken_up()
    if checkpoint.system != system.name:
        raise ConfigError(
            f"the interrupted training was another one (system was {checkpoint.system!r} and is {system.name!r}): "
            "resume with the same, or begin anew"
        )
    served = folder.versions.number() is not None and not has_ended(folder, checkpoint)
    if served and not force and (pending := folder.inbox.pending()):
        raise FolderError(
            f"{folder.path} serves another model, and {len(pending)} request(s) of it are pending, which the training "
            "would lose: `retract unlearn` applies them, and then train anew; --force loses them"
        )
    return checkpoint


def has_ended(folder: TrainedFolder, checkpoint: Checkpoint) -> bool:
    """Whether the model of a training is served already: a kill came between that and the end."""
    return folder.versions.number() is not None and folder.manifest().facts["run"] == checkpoint.run


def require_same_list(folder: TrainedFolder, listed: Suppression, place: Place) -> None:
    """Refuse to save a model that learnt what was withdrawn while it was trained.

    Raises
    ------
    FolderError
        If the suppression list has changed; the place of the training goes too.
    """
    if not folder.suppression().says_like(listed):
        place.leave()
        raise FolderError(
            f"something was withdrawn from {folder.path} while this model was trained, which has learnt it: nothing "
            "was saved; train anew"
        )


def _parts(
    came: Admitted, dataset: Dataset, system: System, choice: Choice, seed: int
) -> tuple[Parts, tuple[str, ...]]:
    """The parts of what came in, with a note where less is shared than was chosen."""
    parts = Parts.of(dataset, system.type.share, choice, seed)
    sharing, told = came.kept(parts.sharing)
    return replace(parts, sharing=sharing), told


def _evaluated(system: System, came: Admitted, options: TrainOptions, progress: Progress) -> Measured:
    """The metrics of a model that learns from all but a part, before another learns from everything."""

    def told(stage: str, done: int, total: int) -> None:
        progress(f"{stage}, to evaluate", done, total)

    parts, _ = _parts(came, came.dataset, system, replace(options.choice, test=USUAL_TEST), options.seed)
    devices = MemoryDevices(parts.sharing)
    return Measured.of(learn(system, devices, seed=options.seed, progress=told).held(devices, parts))


def _report(held: Held, learnt: Learnt, found: Measured, resumed_at: str | None, notes: tuple[str, ...]) -> TrainReport:
    """What a training did, in rounded figures."""
    sharing, passed = held.sharing, learnt.traffic
    everything = learnt_from(held.system.server, "erase") == "everything"
    return TrainReport(
        system=held.trained.system,
        users=len(held.interactions.active_users()),
        items=held.catalog.n_items,
        interactions=len(held.interactions) + len(held.test),
        learnt=len(held.interactions if everything else sharing.shared),
        held_out=len(held.test),
        measured_on=found.on,
        shared=len(sharing.shared),
        private=len(sharing.private),
        seconds=round(learnt.seconds, 3),
        prepare_seconds=round(learnt.prepare_seconds, 3),
        peak_mb=round(peak_bytes() / 2**20, 1),
        metrics=found.metrics,
        memory_bytes=held.trained.memory.nbytes,
        bytes_up=passed.up,
        bytes_down=passed.down,
        rounds=passed.rounds,
        client_updates_per_second=round(passed.updates / passed.seconds, 1) if passed.seconds else 0.0,
        resumed_at=resumed_at,
        notes=notes,
    )


def _notes(held: Held) -> tuple[str, ...]:
    """What is allowed but limits what can be learnt."""
    train = held.interactions
    if not held.trained.model:
        return (f"nothing is shared, and {held.trained.system} learns from nothing else: the model knows nothing",)
    untouched = int((train.item_degrees() == 0).sum())
    if not untouched:
        return ()
    return (f"items that nobody touches in the training part, kept all the same: {untouched:,} of {train.n_items:,}",)


def peak_bytes() -> int:
    """The most memory that this process held; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
