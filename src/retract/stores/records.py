"""The chain of a model's versions: a small signed record of each, which names the record before it.

```
DIR/server/records/MODEL/N.json         the N-th record
DIR/server/versions/V/record.json       that of the version that is served, until it is laid among the others
```

A record is written with its version, before the pointer moves to that, and laid among the others afterwards: so a
record beyond the version that is served is never what a kill left, but tells that an older version was put back. The
records of versions that are gone stay. They hold hashes, counts and times; nobody's id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from retract.atomic import sync, write_atomically
from retract.errors import FolderError
from retract.stores.held import MEMORY, MODEL, SHARED
from retract.stores.keys import fingerprint
from retract.stores.manifest import Manifest, sha256
from retract.stores.signed import Count, Form, Hash, Signed, Text, public_of, strict
from retract.stores.versions import RECORD, RECORDS, SERVER

Making = Literal["train", "unlearn", "refresh", "extend", "save"]
KeyChange = Literal["new key", "lost key"]


@strict
@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a record says.

    Parameters
    ----------
    number
        Its place in the chain, from 1.
    made
        What made the version: "train", "unlearn", "refresh" of what an unlearning left out, "extend", or "save" of a
        model in memory. Or "new key": the chain
        goes on with `next_key`; or "lost key": it goes on with the key that signs this, for the one before was lost.
    version
        The version that it is about; of a change of key the one that is served then.
    before
        SHA-256 of the record before it; none before the first.
    manifest, model, memory, shared
        SHA-256 of the version's manifest, and of these files of the server's half.
    certificates
        SHA-256 of the certificates of what made it.
    requests
        How many requests it is the answer to.
    next_key
        Raw Ed25519 key, hex, of a "new key".
    time
        UTC, ISO 8601.
    """

    number: Count
    made: Making | KeyChange
    version: Count
    before: Hash | None
    manifest: Hash
    model: Hash
    memory: Hash
    shared: Hash
    certificates: tuple[Hash, ...] = ()
    requests: Count = 0
    next_key: Hash | None = None
    time: Text = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@strict
@dataclass(frozen=True, kw_only=True)
class Record(Recorded, Signed):
    """A record and the signature that holds for it."""

    @property
    def of_version(self) -> bool:
        """Whether it is about the making of a version, not about a change of key."""
        return self.made not in ("new key", "lost key")

    @property
    def key(self) -> str:
        """The key that the chain goes on with, raw, hex."""
        return self.next_key or self.public_key


@dataclass(frozen=True)
class Link:
    """A record with the SHA-256 of its file."""

    record: Record
    digest: str


RECORD_FORM = Form("record of a version", Record, "restore it", FolderError)


class Chain:
    """The chain of one model, on the disk.

    Parameters
    ----------
    folder
        The trained folder.
    model
        The model's id.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.root = folder, folder / SERVER / RECORDS / model

    def lay(self, version: Path) -> None:
        """Lay the record that a served version holds among the others, if that is still to be done."""
        held = version / RECORD
        try:
            number = RECORD_FORM.read(held.read_bytes(), str(held)).number
        except FileNotFoundError:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        os.replace(held, self._place(number))
        for room in (version, self.root, self.root.parent, self.root.parent.parent):
            sync(room)

    def last(self) -> Link | None:
        """The last record that was laid; errors as of `walk`, but those before it are not read."""
        numbers = self._numbers()
        return self._read(len(numbers), self._place(len(numbers)).read_bytes()) if numbers else None

    def append(self, recorded: Recorded, key: Ed25519PrivateKey) -> None:
        """Write a record that comes with no version."""
        write_atomically(self._place(recorded.number), RECORD_FORM.sign(asdict(recorded), key))

    def walk(self, version: Path) -> tuple[Link, ...]:
        """All records, the served version's among them.

        Raises
        ------
        FolderError
            If one is missing, damaged, of another place, signed by another key than the chain says, or follows
            another record than the one before it.
        """
        held = _content(version / RECORD)  # first: from there it may move among the others, never back
        contents = [self._place(number).read_bytes() for number in self._numbers()]
        links = [self._read(number, content) for number, content in enumerate(contents, start=1)]
        if held is not None and held not in contents:
            links.append(self._read(len(links) + 1, held, version / RECORD))
        for before, link in zip([None, *links], links, strict=False):
            self._require_next(before, link.record)
        return tuple(links)

    def require_served(self, last: Link | None, manifest: Manifest) -> Link:
        """The last record, if it is that of the version that is served.

        Raises
        ------
        FolderError
            If there is none, or it is of another version.
        """
        if last is None:
            raise FolderError(
                f"{self.folder} has no record of version {manifest.version}, which it serves: "
                f"restore {self.root}, or train again"
            )
        if (last.record.version, last.record.manifest) != (manifest.version, sha256(manifest.to_bytes())):
            raise FolderError(
                f"{self.folder} serves version {manifest.version}, and the last record of its chain is of version "
                f"{last.record.version}: a version was put back, or records were removed; restore the folder as a whole"
            )
        return last

    def require_key(self, last: Link, key: Ed25519PrivateKey) -> None:
        """Refuse to go on with a key that the chain does not know.

        Raises
        ------
        FolderError
            If it is another key.
        """
        if key.public_key().public_bytes_raw().hex() != last.record.key:
            raise FolderError(
                f"the versions of {self.folder} are signed by key {name_of(last.record.key)}, not by "
                f"{fingerprint(key.public_key())}: give that one with --key, or change it: "
                f"`retract keys rotate {self.folder} --old OLD.pem --new NEW.pem`"
            )

    def _place(self, number: int) -> Path:
        return self.root / f"{number}.json"

    def _numbers(self) -> list[int]:
        """The numbers of all records that were laid, from 1 without a gap."""
        found = sorted(int(path.stem) for path in self.root.glob("*.json") if path.stem.isdecimal())
        if missing := sorted({*range(1, (found or [0])[-1] + 1)} - {*found}):
            raise FolderError(f"{self._place(missing[0])} is missing, and the chain goes on after it: restore it")
        return found

    def _read(self, number: int, content: bytes, path: Path | None = None) -> Link:
        path = path or self._place(number)
        record = RECORD_FORM.read(content, str(path))
        if record.number != number:
            raise FolderError(f"{path} is record {record.number} of its chain, not {number}: put each in its place")
        return Link(record, sha256(content))

    def _require_next(self, before: Link | None, record: Record) -> None:
        """Refuse a record that does not follow the one before it."""
        path = self._place(record.number)
        if record.before != (None if before is None else before.digest):
            what = "is not the first of its chain" if before is None else "follows another record than the one before"
            raise FolderError(f"{path} {what}: a record was replaced or removed; restore the chain")
        if before is None:
            return
        if record.made != "lost key" and record.public_key != before.record.key:
            raise FolderError(
                f"{path} is signed by key {fingerprint(record.public)}, and the chain by "
                f"{name_of(before.record.key)}, which signed no change of key; restore the chain"
            )
        if record.version < before.record.version + record.of_version:
            raise FolderError(f"{path} is of version {record.version}, and the record before it is no older")


def following(
    last: Link | None, manifest: Manifest, made: Making, requests: int, certificates: tuple[str, ...]
) -> Recorded:
    """What the record of a new version says."""
    files = manifest.files
    return Recorded(
        number=1 if last is None else last.record.number + 1,
        made=made,
        version=manifest.version,
        before=None if last is None else last.digest,
        manifest=sha256(manifest.to_bytes()),
        model=files[MODEL],
        memory=files[MEMORY],
        shared=files[SHARED],
        certificates=certificates,
        requests=requests,
    )


def changing(last: Link, made: KeyChange, next_key: str | None) -> Recorded:
    """What the record of a change of key says: it is about the version that is served then."""
    same = {name: getattr(last.record, name) for name in ("version", "manifest", "model", "memory", "shared")}
    return Recorded(number=last.record.number + 1, made=made, before=last.digest, next_key=next_key, **same)


def name_of(key: str) -> str:
    """The fingerprint of a raw key in hex."""
    return fingerprint(public_of(key))


def trusted_runs(links: Sequence[Link]) -> Iterator[set[str]]:
    """The keys that vouch for each other by signed changes, one set up to each lost key."""
    run = set[str]()
    for link in links:
        if link.record.made == "lost key":
            yield run
            run = set()
        run |= {link.record.public_key, link.record.key}
    yield run


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
