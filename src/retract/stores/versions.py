"""Immutable versions of what a folder holds, and a pointer to the one that is served.

```
DIR/server/current             the number of the version that is served, and its manifest's SHA-256
DIR/server/versions/N/         a version of the server's half: files that never change, and manifest.json
DIR/server/records/MODEL/      signed records of all versions of a model (see `records`)
DIR/devices/versions/N/        what stands for the devices beside that version; absent on a real server
```

A new version is written beside the old one and brought to the disk; then the pointer, a single small file, is replaced
atomically. A kill at any moment leaves the old version or the new one. A reader takes no lock: it follows the pointer,
and follows it again where the version was removed meanwhile. No older version stays, for it may hold what was
withdrawn; who has it open keeps it in memory until it looks again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from retract.atomic import sync, write_atomically, write_new
from retract.errors import FolderError
from retract.stores.locking import locked
from retract.stores.manifest import MANIFEST, Manifest, digests_of, read_manifest, sha256

CURRENT, VERSIONS = "current", "versions"
RECORD, RECORDS = "record.json", "records"
SERVER, DEVICES, LEDGER, TRAINING = "server", "devices", "ledger", "training"
MEMBERS = "federation.json"
PLACE = "place.json"
"""What names the place of an interrupted training, within its folder."""
AUDITS, CERTIFICATES = "audits.jsonl", "certificates"
CONFIG = "config.json"
"""The file of a version with what it was trained with."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Content:
    """What a new version is to hold: files of either half by name, and what its manifests say."""

    system: str
    server: Mapping[str, bytes]
    devices: Mapping[str, bytes] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    device_facts: Mapping[str, Any] = field(default_factory=dict)
    settles: Mapping[str, str] = field(default_factory=dict)


class Version:
    """One version of one half, to read from.

    Parameters
    ----------
    place
        Its folder.
    manifest
        What it holds.
    """

    def __init__(self, place: Path, manifest: Manifest) -> None:
        self.place, self.manifest = place, manifest

    def has(self, name: str) -> bool:
        """Whether it holds a file of this name."""
        return name in self.manifest.files

    def read(self, name: str) -> bytes:
        """One file's content, checked.

        Raises
        ------
        FolderError
            If the file is missing, or its SHA-256 is not the manifest's.
        """
        path = self.place / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if not self.place.exists():
                raise  # the version was removed as a whole, for there is a newer one
            raise FolderError(f"{path} is missing from the trained folder; restore it or train again") from None
        if (actual := sha256(content)) != self.manifest.files.get(name):
            expected = self.manifest.files.get(name, "none")
            raise FolderError(
                f"{path} is damaged: its SHA-256 is {actual[:12]}, the manifest has {expected[:12]}; "
                "restore it or train again"
            )
        return content


class VersionStore:
    """The versions of a trained folder.

    Parameters
    ----------
    folder
        The trained folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def pointer(self) -> Path:
        """The file that names the version that is served."""
        return self.folder / SERVER / CURRENT

    @property
    def lock(self) -> Path:
        """Held by who changes the folder."""
        return self.folder / SERVER / "lock"

    def number(self) -> int | None:
        """The version that is served; None where the folder is no trained one.

        Raises
        ------
        FolderError
            If the pointer is damaged.
        """
        found = self._pointed()
        return None if found is None else int(found["version"])

    def server(self) -> Version:
        """The server's half of the version that is served.

        Raises
        ------
        FolderError
            If there is no trained folder, it has another layout, or its manifest is damaged.
        """
        return self.reading(lambda version: version)

    def reading(self, read: Callable[[Version], Made]) -> Made:
        """What `read` makes of the version that is served; again, where a newer one took its place meanwhile.

        Raises
        ------
        FolderError
            If there is no trained folder, it has another layout, or something that `read` reads is damaged.
        """
        while True:
            pointed = self._pointed()
            if pointed is None:
                raise self._no_folder()
            number = int(pointed["version"])
            place = self.folder / SERVER / VERSIONS / str(number)
            try:
                return read(Version(place, read_manifest(place, pointed["manifest"])))
            except FileNotFoundError:
                if self.number() == number:
                    raise FolderError(
                        f"{place} is missing, and {self.pointer} names it; restore it or train again"
                    ) from None
            except FolderError:  # files of a version go one by one, so what looks damaged may only be old
                if self.number() == number:
                    raise

    def devices(self, server: Version) -> Version | None:
        """What stands for the devices beside a version of the server's half; None where that is elsewhere, or nowhere.

        Raises
        ------
        FolderError
            If there is one, but not of this version, or it is damaged.
        """
        versions, number = self.folder / DEVICES / VERSIONS, server.manifest.version
        if not server.manifest.devices or not versions.exists():
            return None
        place = versions / str(number)
        try:
            return Version(place, read_manifest(place))
        except FileNotFoundError:
            raise FolderError(
                f"{self.folder / DEVICES} holds no version {number}, which the server's half is of: restore it, or "
                f"remove {self.folder / DEVICES} to go on with the server's half alone"
            ) from None

    def commit(
        self, content: Content, based_on: int | None, seal: Callable[[Manifest], bytes] | None = None
    ) -> Manifest:
        """Write a new version, serve it, and remove the one before.

        Parameters
        ----------
        based_on
            The version that the new one was made from; None for a training, which takes the place of any.
        seal
            Makes the record of the new version, which is written with it.

        Raises
        ------
        FolderError
            If another version is served by now; nothing is written.
        """
        with locked(self.lock):
            number = self._next(based_on)
            before = self._files_of(based_on)
            self._clean()
            try:
                server = self._write(number, content, before, seal)
                pointed = {"version": number, "manifest": server.digest}
                write_atomically(self.pointer, json.dumps(pointed).encode())
            finally:
                self._clean()  # what was served until now, or what could not be written
        return server

    def tidy(self) -> None:
        """Remove what a killed process left: versions before the one that is served, and what was not finished."""
        with locked(self.lock):
            self._clean()

    def _next(self, based_on: int | None) -> int:
        try:
            current = self.number()
        except FolderError:
            current = None if based_on is None else based_on + 1  # a damaged pointer: only a training goes on
        if based_on is not None and current != based_on:
            raise FolderError(
                f"{self.folder} was changed by somebody else in the meantime; nothing was applied: run again"
            )
        known = [int(place.name) for place in (self.folder / SERVER / VERSIONS).glob("*") if place.name.isdecimal()]
        return max([current or 0, *known]) + 1 if based_on is None else based_on + 1

    def _files_of(self, number: int | None) -> dict[str, Path]:
        """The files of a version by their SHA-256, to be linked to instead of written again."""
        if number is None:
            return {}
        found: dict[str, Path] = {}
        for half in (SERVER, DEVICES):
            place = self.folder / half / VERSIONS / str(number)
            if (place / MANIFEST).exists():
                found |= {digest: place / name for name, digest in read_manifest(place).files.items()}
        return found

    def _clean(self) -> None:
        """Remove every version but the one that is served: older ones, and what a killed process left."""
        try:
            current = self.number()
        except FolderError:
            current = None
        for half in (SERVER, DEVICES):
            for place in (self.folder / half / VERSIONS).glob("*"):
                if place.name != str(current):
                    shutil.rmtree(place)
        for unfinished in self.pointer.parent.glob(f".{CURRENT}.*"):
            unfinished.unlink()

    def place(self, manifest: Manifest) -> Path:
        """Where the server's half of a version is."""
        return self.folder / SERVER / VERSIONS / str(manifest.version)

    def _write(
        self,
        number: int,
        content: Content,
        before: Mapping[str, Path],
        seal: Callable[[Manifest], bytes] | None,
    ) -> Manifest:
        """Write both halves of a version; the server's manifest."""
        if content.devices is not None:
            half = Manifest(content.system, number, digests_of(content.devices), content.device_facts)
            self._write_half(DEVICES, half, content.devices, before)
        server = Manifest(
            content.system,
            number,
            digests_of(content.server),
            content.facts,
            content.settles,
            devices=content.devices is not None,
        )
        record = {} if seal is None else {RECORD: seal(server)}
        self._write_half(SERVER, server, {**content.server, **record}, before)
        return server

    def _write_half(
        self, half: str, manifest: Manifest, files: Mapping[str, bytes], before: Mapping[str, Path]
    ) -> None:
        """Write one half of a version, and bring it to the disk."""
        place = self.folder / half / VERSIONS / str(manifest.version)
        for name, content in {**files, MANIFEST: manifest.to_bytes()}.items():
            same = before.get(manifest.files.get(name, ""))
            if same is None or not _linked(same, place / name):
                write_new(place / name, content)
        for folder in (place, place.parent, place.parent.parent, self.folder):
            sync(folder)

    def _pointed(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.pointer.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            found = None
        if not (isinstance(found, dict) and isinstance(found.get("version"), int) and "manifest" in found):
            raise FolderError(f"{self.pointer} is damaged, or not ours: restore it or train again")
        return found

    def _no_folder(self) -> FolderError:
        what = f"is not a retract folder: it has no {SERVER}/{CURRENT}" if self.folder.exists() else "does not exist"
        return FolderError(f"{self.folder} {what}; `retract train` makes one")


def require_replaceable(folder: Path, force: bool) -> None:
    """Refuse to train where another model, or somebody's files, would be lost.

    Raises
    ------
    FolderError
        If the folder is a file, cannot be written, holds a trained system and `force` is not given, or holds anything
        else: that is never replaced.
    """
    ancestor = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder} is a file: give a folder that does not exist yet")
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise FolderError(f"{folder} cannot be made: {ancestor} is not a folder that you can write to")
    if all(path.is_dir() for path in folder.rglob("*")):  # empty folders are what a kill at the very start leaves
        return
    if not is_ours(folder):
        raise FolderError(
            f"{folder} holds files and is not a trained folder, so nothing in it is replaced: give another folder"
        )
    if not force and ((folder / SERVER / CURRENT).exists() or _of_first_layout(folder)):
        raise FolderError(
            f"{folder} holds a trained system: training anew would lose it and its pending requests; "
            "--force replaces it, or give another folder"
        )


def remove_training(folder: Path) -> None:
    """Remove the place of a training; the file that names it last, so that whoever finds it can do the rest."""
    place = folder / SERVER / TRAINING
    shutil.rmtree(folder / DEVICES / TRAINING, ignore_errors=True)
    for path in place.glob("*"):
        if path.name != PLACE:
            path.unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a trained system, one of the first layout, or what an interrupted training left."""
    ours = (CURRENT, "lock", TRAINING, MEMBERS)
    return any((folder / SERVER / name).exists() for name in ours) or _of_first_layout(folder)


def _of_first_layout(folder: Path) -> bool:
    try:
        fields = json.loads((folder / MANIFEST).read_bytes())  # where the first layout had it
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(fields, dict) and {"format", "retract", "files"} <= fields.keys()


def _linked(source: Path, target: Path) -> bool:
    """Link a file that is the same in both versions; whether that could be done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        return False
    return True
