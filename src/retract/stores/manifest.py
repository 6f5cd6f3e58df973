"""What a version says of itself: its files with their checksums, and what people ask for without reading them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retract.errors import FolderError
from retract.version import __version__

FORMAT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a version holds.

    Parameters
    ----------
    system
        Name of the system that was trained.
    version
        The version's number.
    files
        SHA-256 of every file, by its name.
    facts
        What people ask for without reading the files: counts, the run.
    settles
        Requests that this version is the answer to, by id, with the withdrawal that each was a part of: whoever finds
        them pending in the ledger knows that a kill came between the two.
    devices
        Of the server's half: whether the devices' half beside it belongs to it.
    retract, format
        Version of retract that wrote it, and of the layout.
    """

    system: str
    version: int
    files: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    settles: Mapping[str, str] = field(default_factory=dict)
    devices: bool = False
    retract: str = __version__
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 of its file: what tells a version from every other one."""
        return sha256(self.to_bytes())

    def to_bytes(self) -> bytes:
        """JSON that carries its own checksum."""
        fields = asdict(self)
        return json.dumps({**fields, "checksum": _digest_of(fields)}, indent=1, sort_keys=True).encode()


def read_manifest(place: Path, digest: str | None = None) -> Manifest:
    """Read and check a version's manifest.

    Parameters
    ----------
    digest
        The SHA-256 that it must have.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FolderError
        If its layout has another version, or it is damaged.
    """
    path = place / MANIFEST
    content = path.read_bytes()
    fields: Any = None
    with suppress(ValueError):
        fields = json.loads(content)
    if not (isinstance(fields, dict) and {"format", "retract", "files"} <= fields.keys()):
        raise FolderError(f"{path} is damaged, or not ours: it is not the JSON that retract writes; train elsewhere")
    if (found := fields["format"]) != FORMAT:
        raise FolderError(
            f"{place} has folder format {found!r}, this retract {__version__} reads format {FORMAT}: "
            f"use the version that wrote it ({fields['retract']}) or train again"
        )
    written = fields.pop("checksum", None)
    if written != (actual := _digest_of(fields)):
        raise FolderError(
            f"{path} is damaged: its checksum is {actual[:12]}, {str(written)[:12]} was written; "
            "restore it or train again"
        )
    if digest not in (None, found := sha256(content)):
        raise FolderError(
            f"{path} is damaged: its SHA-256 is {found[:12]}, the pointer to it has {str(digest)[:12]}; "
            "restore it or train again"
        )
    return Manifest(**fields)


def digests_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of every file, by its name."""
    return {name: sha256(content) for name, content in files.items()}


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _digest_of(fields: Mapping[str, Any]) -> str:
    return sha256(json.dumps(fields, sort_keys=True).encode())
