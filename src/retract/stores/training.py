"""Training into a folder: split, share, train, prepare to forget, measure, save. What is interrupted can be resumed.

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
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from retract.atomic import write_atomically
from retract.data import Dataset, Interactions, Sharing, sharing_of
from retract.errors import ConfigError, DataError, FolderError
from retract.federation import Traffic
from retract.stores.devices import MemoryDevices
from retract.stores.folder import TrainedFolder
from retract.stores.held import Held, devices_of, state_bytes, tables_bytes, tables_of
from retract.stores.local import engine_of
from retract.stores.manifest import sha256
from retract.stores.measuring import Metrics, measured
from retract.stores.versions import DEVICES, SERVER, require_replaceable
from retract.systems.base import Checkpoint, Progress, Stopwatch, no_progress
from retract.systems.checks import prepared, require_finite
from retract.systems.likes import suited_to
from retract.systems.system import System


@dataclass(frozen=True)
class TrainOptions:
    """How a training is set up.

    Parameters
    ----------
    share
        The part of their training interactions that users share, in [0, 1]. Unless given, a column `shared` of the data
        says it one by one; without either it is `USUAL_SHARE`.
    clients
        How many clients hold the users' data, dealt at random; every user is one unless given.
    test
        The part of every user's interactions that is held out, in (0, 1); without effect where the data names a part.
    seed
        Key of split, sharing and training.
    force
        Replace the trained folder that is there, its pending requests included. Files in it that are not ours stay.
    resume
        Go on with the training that was interrupted there.
    keep_every
        Seconds between two keepings of the training's place.
    """

    share: float | None = None
    clients: int | None = None
    test: float = 0.2
    seed: int = 0
    force: bool = False
    resume: bool = False
    keep_every: float = 20.0


@dataclass(frozen=True)
class TrainReport:
    """What `train_folder` did. Seconds of training alone; megabytes of the process's peak; bytes of all clients.

    `prepare_seconds` is what came after training so as to forget fast later, 0 where the system prepares nothing;
    `resumed_at` is the step at which an interrupted training was taken up, None for one in a single piece. Seconds,
    bytes and rounds are those of this process.
    """

    system: str
    users: int
    items: int
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
        is neither to be resumed nor replaced; checked before training.
    DataError
        If fewer than two users have something to train on.
    ConfigError
        If training, or preparing, diverged; if `test` lies outside (0, 1) or `clients` outside [1, users]; if the
        system has one user per client and there are fewer; or if the interrupted training was another one.
    SharingError
        If `share` lies outside [0, 1].
    """
    options, dataset = options or TrainOptions(), suited_to(system.type, dataset)
    require_replaceable(out, options.force or options.resume)
    train, held_out = dataset.split(seed=options.seed, test=options.test)
    devices = MemoryDevices(_shared(train, dataset.shared, options))
    if (able := len(train.active_users())) < 2:
        raise DataError(f"{dataset.name}: users with something to train on: {able}; at least 2 are needed")
    place = Place(out, devices, options)
    checkpoint = place.taken_up() if options.resume else None
    if checkpoint is None:
        place.begin(options.force)
    devices = place.devices
    engine, watch = engine_of(system, devices), Stopwatch()
    trained = system.server.train(
        devices.sharing.shared,
        engine,
        seed=options.seed,
        resume_from=checkpoint,
        keep=place.keep,
        progress=progress,
    )
    seconds = watch.seconds
    require_finite(trained)
    trained, preparing = prepared(system.server, trained, engine, seed=options.seed, progress=progress)
    devices.forget_runs(but=trained.run)
    held = Held(trained, devices, held_out)
    metrics = measured(held.recommender(), held, held_out)
    TrainedFolder(out).save(held)
    place.leave()
    resumed = None if checkpoint is None else f"{checkpoint.stage}, step {checkpoint.done}"
    return _report(held, engine.traffic, seconds, preparing, metrics, resumed, (*dataset.notes, *_notes(train)))


def _report(
    held: Held,
    passed: Traffic,
    seconds: float,
    preparing: float,
    metrics: Metrics,
    resumed_at: str | None,
    notes: tuple[str, ...],
) -> TrainReport:
    """What a training did, in rounded figures."""
    sharing = held.sharing
    return TrainReport(
        system=held.trained.system,
        users=len(sharing.everything.active_users()),
        items=held.catalog.n_items,
        shared=len(sharing.shared),
        private=len(sharing.private),
        seconds=round(seconds, 3),
        prepare_seconds=round(preparing, 3),
        peak_mb=round(_peak_bytes() / 2**20, 1),
        metrics=metrics,
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
    """

    def __init__(self, out: Path, devices: MemoryDevices, options: TrainOptions) -> None:
        self.out, self.devices, self.every = out.resolve(), devices, options.keep_every
        self.server, self.beside = self.out / SERVER / "training", self.out / DEVICES / "training"
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
            name, data, digests = (told.pop(key) for key in ("tables", "data", "digests"))
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
        self._number = int(name.split(".")[0])
        self.devices = devices_of(state, self.devices.sharing, checkpoint.run)
        return checkpoint

    def leave(self) -> None:
        """Keep nothing any more: the training is over, or begins anew."""
        for room in (self.server, self.beside):
            shutil.rmtree(room, ignore_errors=True)


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


def _shared(train: Interactions, said: Interactions | None, options: TrainOptions) -> Sharing:
    sharing = sharing_of(train, options.share, said, seed=options.seed)
    return sharing if options.clients is None else sharing.held_by(options.clients, options.seed)


def _notes(train: Interactions) -> tuple[str, ...]:
    """What is allowed but limits what can be learnt."""
    untouched = int((train.item_degrees() == 0).sum())
    if not untouched:
        return ()
    return (f"items that nobody touches in the training part, kept all the same: {untouched:,} of {train.n_items:,}",)


def _peak_bytes() -> int:
    """The most memory that this process held; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
