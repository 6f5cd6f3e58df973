"""Training into a folder: part the data, learn, measure, save. What is interrupted can be resumed.

While a training runs, its place is kept beside where the model will be:

```
DIR/server/training/place.json, N.safetensors    what the server's half needs to go on
DIR/devices/training/N.safetensors               what the devices keep then
```
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from retract.atomic import write_atomically
from retract.data import Dataset, Sharing
from retract.errors import ConfigError, FolderError
from retract.stores.admission import Admitted, admitted
from retract.stores.devices import MemoryDevices
from retract.stores.folder import TrainedFolder
from retract.stores.held import Held, devices_of, state_bytes, tables_bytes, tables_of
from retract.stores.learning import USUAL_TEST, Choice, Learnt, Parts, learn
from retract.stores.manifest import sha256
from retract.stores.measuring import Metrics, measured
from retract.stores.versions import DEVICES, SERVER, remove_training, require_replaceable
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


@dataclass(frozen=True)
class Measured:
    """Metrics, and how many held-out interactions they are of."""

    metrics: Metrics
    on: int

    @classmethod
    def of(cls, held: Held) -> Measured:
        """Those of a model on what was held out of it."""
        return cls(measured(held.recommender(), held, held.test), len(held.test))


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
        is neither to be resumed nor replaced; checked before training.
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
    came = admitted(dataset, folder.suppression(), options.again)
    whole = replace(came.dataset, is_test=None) if options.evaluate else came.dataset
    parts, kept = _parts(came, whole, system, options.choice, options.seed)
    place = Place(out, MemoryDevices(parts.sharing), options)
    checkpoint = place.taken_up() if options.resume else None
    if checkpoint is None:
        place.begin(options.force)
    said = folder.seals.ready(anew=True)
    if options.evaluate and place.measured is None:
        place.measured = _evaluated(system, came, options, progress)
    learnt = learn(system, place.devices, seed=options.seed, resume_from=checkpoint, keep=place.keep, progress=progress)
    held = learnt.held(place.devices, parts)
    found = Measured.of(held) if place.measured is None else place.measured
    folder.save(replace(held, metrics=found.metrics))
    if options.again:
        folder.suppress(lambda known: known.without(dataset.interactions))
    place.leave()
    resumed = None if checkpoint is None else f"{checkpoint.stage}, step {checkpoint.done}"
    notes = (*said, *dataset.notes, *came.notes, *kept, *_notes(held))
    return _report(held, learnt, found, resumed, notes)


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
        peak_mb=round(_peak_bytes() / 2**20, 1),
        metrics=found.metrics,
        memory_bytes=held.trained.memory.nbytes,
        bytes_up=passed.up,
        bytes_down=passed.down,
        rounds=passed.rounds,
        client_updates_per_second=round(passed.updates / passed.seconds, 1) if passed.seconds else 0.0,
        resumed_at=resumed_at,
        notes=notes,
    )


class Place:
    """Where an interrupted training is kept.

    Parameters
    ----------
    out
        The folder that is trained into.
    devices
        The devices that are trained on.
    options
        Of the training: how often its place is kept.

    Attributes
    ----------
    measured
        What measuring first found, where that is done.
    """

    def __init__(self, out: Path, devices: MemoryDevices, options: TrainOptions) -> None:
        self.out, self.devices, self.every = out.resolve(), devices, options.keep_every
        self.server, self.beside = self.out / SERVER / "training", self.out / DEVICES / "training"
        self.measured: Measured | None = None
        self._kept, self._number = time.monotonic(), 0

    @staticmethod
    def told(out: Path) -> str | None:
        """The place of the training that was interrupted in a folder, in words; None where none was."""
        try:
            found = json.loads((out / SERVER / "training" / "place.json").read_bytes())
            return f"{found['stage']}, step {found['done']}"
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return "damaged"

    @staticmethod
    def left(out: Path) -> str | None:
        """What to tell who interrupts a training."""
        place = Place.told(out)
        return None if place is None else f"the training is kept as of {place}; run it again with --resume to go on"

    def begin(self, force: bool) -> None:
        """Begin anew.

        Raises
        ------
        FolderError
            If that would lose an interrupted training, and `force` is not given.
        """
        if (told := self.told(self.out)) is not None and not force:
            raise FolderError(
                f"{self.out} holds an interrupted training ({told}): --resume goes on with it, --force begins anew"
            )
        self.leave()

    def keep(self, checkpoint: Callable[[], Checkpoint]) -> None:
        """Keep the place of a training, if the last keeping is long enough ago."""
        if time.monotonic() - self._kept < self.every:
            return
        self._kept, self._number = time.monotonic(), self._number + 1
        kept, name = checkpoint(), f"{self._number}.safetensors"
        halves = {self.beside: state_bytes(self.devices, kept.run), self.server: tables_bytes(kept.tables)}
        for room, content in halves.items():
            write_atomically(room / name, content)
        told = {
            **{field.name: getattr(kept, field.name) for field in fields(kept) if field.name != "tables"},
            "tables": name,
            "digests": [sha256(content) for content in halves.values()],
            "data": fingerprint(self.devices.sharing),
            "measured": None if self.measured is None else asdict(self.measured),
        }
        write_atomically(self.server / "place.json", json.dumps(told).encode())
        for room in (self.server, self.beside):
            for older in room.glob("*.safetensors"):
                if older.name != name:
                    older.unlink()

    def taken_up(self) -> Checkpoint:
        """The server's half as it was when the place was last kept; the devices too are then as they were.

        Raises
        ------
        FolderError
            If nothing was interrupted here, or what is kept is damaged.
        ConfigError
            If it was a training on other data.
        """
        if self.told(self.out) is None:
            raise FolderError(f"{self.out} holds no interrupted training: leave --resume out")
        try:
            told: dict[str, Any] = json.loads((self.server / "place.json").read_bytes())
            name, data, digests, found = (told.pop(key) for key in ("tables", "data", "digests", "measured"))
            state, tables = ((room / name).read_bytes() for room in (self.beside, self.server))
            if [sha256(state), sha256(tables)] != digests:
                raise ValueError
            checkpoint = Checkpoint(**{**told, "tables": tables_of(tables), "log": tuple(told["log"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            raise FolderError(f"{self.server} is damaged: --force begins anew") from None
        if data != fingerprint(self.devices.sharing):
            raise ConfigError(
                f"{self.out} holds a training on other data or another sharing: resume with the same, or begin anew"
            )
        self._number, self.measured = int(name.split(".")[0]), None if found is None else Measured(**found)
        self.devices = devices_of(state, self.devices.sharing, checkpoint.run)
        return checkpoint

    def leave(self) -> None:
        """Keep nothing any more: the training is over, or begins anew."""
        remove_training(self.out)


def fingerprint(sharing: Sharing) -> str:
    """What tells the data of a training from other data: SHA-256 of ids, codes, ratings, and what is shared."""
    digest = hashlib.sha256()
    for part in (sharing.shared, sharing.private):
        for column in (part.users, part.items, part.ratings, part.timestamps):
            digest.update(b"-" if column is None else column.tobytes())
    for ids in (sharing.shared.catalog.user_ids, sharing.shared.catalog.item_ids):
        digest.update("\n".join(ids.tolist()).encode())
    if sharing.client_of is not None:
        digest.update(sharing.client_of.tobytes())
    return digest.hexdigest()


def _notes(held: Held) -> tuple[str, ...]:
    """What is allowed but limits what can be learnt."""
    train = held.interactions
    if not held.trained.model:
        return (f"nothing is shared, and {held.trained.system} learns from nothing else: the model knows nothing",)
    untouched = int((train.item_degrees() == 0).sum())
    if not untouched:
        return ()
    return (f"items that nobody touches in the training part, kept all the same: {untouched:,} of {train.n_items:,}",)


def _peak_bytes() -> int:
    """The most memory that this process held; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
