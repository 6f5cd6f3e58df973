"""The place of a training, kept while it runs, so that what is interrupted can be resumed.

```
DIR/server/training/place.json, N.safetensors    what the server's half needs to go on
DIR/devices/training/N.safetensors               what the devices keep then
```
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from retract.atomic import write_atomically
from retract.data import Sharing
from retract.errors import ConfigError, FolderError
from retract.stores.devices import MemoryDevices
from retract.stores.held import devices_of, state_bytes, tables_bytes, tables_of
from retract.stores.manifest import sha256
from retract.stores.measuring import Measured
from retract.stores.versions import DEVICES, PLACE, SERVER, TRAINING, remove_training
from retract.systems.base import Checkpoint


class Place:
    """Where an interrupted training is kept.

    Parameters
    ----------
    out
        The folder that is trained into.
    devices
        The devices that are trained on; None where they are on other machines, and keep their state themselves.
    every
        Seconds between two keepings.
    data
        The data that is trained on, see `fingerprint`; that of the devices unless given.

    Attributes
    ----------
    measured
        What measuring first found, where that is done.
    """

    def __init__(self, out: Path, devices: MemoryDevices | None, every: float, *, data: str | None = None) -> None:
        self.out, self.devices, self.every = out.resolve(), devices, every
        assert data is not None or devices is not None
        self.data = data if devices is None else fingerprint(devices.sharing)
        self.server, self.beside = self.out / SERVER / TRAINING, self.out / DEVICES / TRAINING
        self.measured: Measured | None = None
        self._kept, self._number = time.monotonic(), 0

    @staticmethod
    def told(out: Path) -> str | None:
        """The place of the training that was interrupted in a folder, in words; None where none was."""
        try:
            found = json.loads((out / SERVER / TRAINING / PLACE).read_bytes())
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
        halves = {self.server: tables_bytes(kept.tables)}
        if self.devices is not None:
            halves = {self.beside: state_bytes(self.devices, kept.run), **halves}
        for room, content in halves.items():
            write_atomically(room / name, content)
        told = {
            **{field.name: getattr(kept, field.name) for field in fields(kept) if field.name != "tables"},
            "tables": name,
            "digests": [sha256(content) for content in halves.values()],
            "data": self.data,
            "measured": None if self.measured is None else asdict(self.measured),
        }
        write_atomically(self.server / PLACE, json.dumps(told).encode())
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
            told: dict[str, Any] = json.loads((self.server / PLACE).read_bytes())
            name, data, digests, found = (told.pop(key) for key in ("tables", "data", "digests", "measured"))
            rooms = (self.server,) if self.devices is None else (self.beside, self.server)
            *state, tables = ((room / name).read_bytes() for room in rooms)
            if [sha256(content) for content in (*state, tables)] != digests:
                raise ValueError
            checkpoint = Checkpoint(**{**told, "tables": tables_of(tables), "log": tuple(told["log"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            raise FolderError(f"{self.server} is damaged: --force begins anew") from None
        if data != self.data:
            raise ConfigError(
                f"{self.out} holds a training on other data or another sharing: resume with the same, or begin anew"
            )
        self._number, self.measured = int(name.split(".")[0]), None if found is None else Measured(**found)
        if self.devices is not None:
            self.devices = devices_of(state[0], self.devices.sharing, checkpoint.run)
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
