"""A trained folder: versions of both halves, the ledger of requests, audits and certificates.

```
DIR/server/current, versions/N/     what a server holds (see `versions` and `held`)
DIR/server/ledger/MODEL/            what users asked of this model (see `inbox`)
DIR/server/records/MODEL/           signed records of its versions (see `records`)
DIR/devices/versions/N/             what stands for the devices beside version N; absent on a real server
DIR/devices/requests/MODEL/         what erasures name beyond what the server holds (see `inbox`)
DIR/server, devices/suppressed.json what was withdrawn and must not come in again (see `suppression`)
DIR/audits.jsonl, certificates/     figures of the audits, and what was signed
```
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retract.atomic import write_atomically
from retract.data import Catalog, Interactions
from retract.stores.audits import STEP_AUDITS, audits_of, holds_another, published
from retract.stores.held import CATALOG, Held, catalog_of, read_devices, read_server, read_shared, to_content
from retract.stores.inbox import REQUESTS, Inbox
from retract.stores.ledger import FileLedger, Request
from retract.stores.locking import locked
from retract.stores.manifest import Manifest, sha256
from retract.stores.suppression import SUPPRESSED, Suppressed, Suppression
from retract.stores.versions import (
    AUDITS,
    CERTIFICATES,
    DEVICES,
    LEDGER,
    PLACE,
    RECORDS,
    SERVER,
    TRAINING,
    Version,
    VersionStore,
    remove_training,
)
from retract.systems.base import Trained

if TYPE_CHECKING:
    from retract.stores.records import Making
    from retract.stores.sealing import Seals

STEP_CERTIFICATE = "certificate.json"
"""Where a version keeps the certificate of its making, until it is published beside the versions."""


@dataclass(frozen=True)
class Deed:
    """What made a version: how, of how many requests it is the answer to, and SHA-256 of the certificates of it."""

    made: Making
    requests: int = 0
    certificates: tuple[str, ...] = ()


TRAINED = Deed("train")


class TrainedFolder:
    """A trained folder on the disk.

    Parameters
    ----------
    path
        The folder; need not exist yet.
    key
        File of the private key that signs new versions; your own key unless given, made where there is none.
    """

    def __init__(self, path: Path, key: Path | None = None) -> None:
        self.path, self.key = path.resolve(), key
        self.versions = VersionStore(self.path)

    @property
    def inbox(self) -> Inbox:
        """What was asked of the model that is served; errors as of `load`."""
        return Inbox(self.path, self.manifest().facts["model"])

    @property
    def ledger(self) -> FileLedger:
        """The requests of the model that is served; errors as of `load`."""
        return self.inbox.ledger

    def load(self) -> Held:
        """Read and check both halves; the server's alone where there is no devices' half.

        Raises
        ------
        FolderError
            If it is no trained folder, of another version, incomplete or damaged; the message names the file.
        """

        def read(version: Version) -> Held:
            trained, half = read_server(version), self.versions.devices(version)
            devices, test = None, Interactions.empty(trained.shared.catalog)
            if half is not None:
                devices, test = read_devices(half, trained.shared, trained.run)
            facts = version.manifest.facts
            return Held(
                trained,
                devices,
                test,
                facts.get("share"),
                version.manifest.version,
                facts["model"],
                facts.get("metrics"),
            )

        return self.versions.reading(read)

    def load_server(self) -> Trained:
        """Read and check the server's half alone; errors as of `load`."""
        return self.versions.reading(read_server)

    def manifest(self) -> Manifest:
        """What the served version says of itself; errors as of `load`."""
        return self.versions.server().manifest

    def save(self, held: Held, deed: Deed = TRAINED, asked: Iterable[tuple[Request, Sequence[str]]] = ()) -> Manifest:
        """Write a new model; of one that was there before, nothing stays, its requests and its chain included.

        Parameters
        ----------
        asked
            Requests that are pending already, each with the private items that it names.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        seal = self.seals.seal(held.id, deed, anew=True)
        Inbox(self.path, held.id).begin(asked)  # first: a model must not be served without what was asked of it
        manifest = self.versions.commit(to_content(held), None, seal)
        self.seals.lay(manifest)
        for name in _OLD:
            (self.path / name).unlink(missing_ok=True)
        self._clear(but=held.id)
        return manifest

    def replace(
        self,
        before: Held,
        after: Held,
        settles: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
        deed: Deed | None = None,
    ) -> Manifest:
        """Serve `after` in the place of `before`.

        Parameters
        ----------
        deed
            What made it; unless given, an unlearning of the requests that it settles.

        Raises
        ------
        FolderError
            If another version is served by now, or another key signed it; nothing is written.
        """
        if deed is None:
            signed = (sha256(content) for name, content in (files or {}).items() if name == STEP_CERTIFICATE)
            deed = Deed("unlearn", len(settles or {}), tuple(signed))
        seal = self.seals.seal(after.id, deed)
        if settles:
            remove_training(self.path)  # the place of an interrupted training holds what was learnt with what is gone
        manifest = self.versions.commit(to_content(after, settles, files), before.version, seal)
        self.seals.lay(manifest)
        return manifest

    def go_on(
        self, held: Held, settles: Mapping[str, str], deed: Deed, asked: Iterable[tuple[Request, Sequence[str]]] = ()
    ) -> Manifest:
        """Serve what became of the model that is served, with the requests that were applied to it elsewhere.

        Parameters
        ----------
        asked
            Requests that are pending, each with the private items that it names.

        Raises
        ------
        FolderError
            If another version is served by now; no version is written.
        """
        with self.unlearning():
            inbox = self.inbox
            known = {request.id for request in inbox.ledger.requests()}
            for request, private in asked:
                if request.id not in known:
                    inbox.record(request, private)
            pending = {request.id for request in inbox.pending()}
            settled = {id: withdrawal for id, withdrawal in settles.items() if id in pending}
            manifest = self.replace(held, held, settled, deed=deed)
            inbox.settle(settled, self._gone(inbox.ledger.requests()))
        return manifest

    @contextmanager
    def unlearning(self) -> Iterator[None]:
        """Be the only one who applies requests.

        Raises
        ------
        FolderError
            If somebody else does so now, or there is no trained folder.
        """
        self.manifest()
        busy = f"another unlearning works on {self.path}: wait for it, nothing was applied"
        with locked(self.path / SERVER / "unlearning.lock", wait=False, busy=busy):
            self.reconcile()
            yield

    def reconcile(self) -> None:
        """Finish what a kill cut off, wherever that was; call it under `unlearning`."""
        self.versions.tidy()
        manifest, inbox = self.manifest(), self.inbox
        self.seals.lay(manifest)
        self._clear(but=manifest.facts["model"])
        if manifest.settles:
            inbox.settle(manifest.settles, self._gone(inbox.ledger.requests()))
        inbox.ledger.release([request.id for request in inbox.ledger.requests()])
        inbox.tidy()
        self._leave_training(manifest.facts["run"])
        unfinished = (f".{AUDITS}.*", f"{CERTIFICATES}/.*.json.*", f"{SERVER}/{RECORDS}/*/.*.json.*")
        with locked(inbox.lock):
            for pattern in (*unfinished, f"*/.{SUPPRESSED}.*"):
                for path in self.path.glob(pattern):
                    path.unlink()
        self.publish()

    @cached_property
    def seals(self) -> Seals:
        """What signs its versions; reading alone needs no keys, so that they are loaded only now."""
        from retract.stores.sealing import Seals

        return Seals(self.versions, self.key)

    def finish(self) -> None:
        """Finish what a kill cut off between a new version and the ledger; errors as of `unlearning`.

        Whoever is about to serve another version calls it, for that one does not name the requests.
        """
        settles = self.manifest().settles
        if any(request.id in settles for request in self.inbox.pending()):
            with self.unlearning():
                pass

    def publish(self) -> None:
        """Lay audits and certificate of the served version beside the versions, if that is still to be done."""
        version = self.versions.server()
        if not version.has(STEP_CERTIFICATE):
            return
        found = json.loads(version.read(STEP_AUDITS))
        place = self.path / found["certificate"]
        if not place.exists():
            write_atomically(place, version.read(STEP_CERTIFICATE))
        told = published(self.path)
        if not any(audit["certificate"] == found["certificate"] for audit in told):
            records = "".join(json.dumps(record) + "\n" for record in [*told, *found["audits"]])
            write_atomically(self.path / AUDITS, records.encode())

    def audits(self) -> list[dict[str, Any]]:
        """The audits done so far, oldest first, published or not; errors as of `load`."""
        return self.versions.reading(lambda version: audits_of(self.path, version))

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Be the only one who looks at what is pending and records a request; errors as of `load`."""
        self.manifest()
        with locked(self.path / SERVER / "asking.lock"):
            yield

    def suppression(self) -> Suppression:
        """What was withdrawn from any model that was ever served here, as keyed hashes.

        Raises
        ------
        FolderError
            If that is damaged.
        """
        return Suppression(*(Suppressed.at(self.path / half / SUPPRESSED) for half in (SERVER, DEVICES)))

    def suppress(self, change: Callable[[Suppression], Suppression]) -> None:
        """Change the suppression list; errors as of `suppression`."""
        with locked(self.path / SERVER / "requests.lock"):
            before = self.suppression()
            after = change(before)
            lists = (SERVER, before.server, after.server), (DEVICES, before.devices, after.devices)
            for half, known, now in lists:
                if now.users != known.users:
                    write_atomically(self.path / half / SUPPRESSED, now.to_bytes())

    def shared(self) -> Interactions:
        """What the server holds, without its model; errors as of `load`."""
        return self.versions.reading(read_shared)

    def catalog(self) -> Catalog:
        """The ids behind all codes; errors as of `load`."""
        return self.versions.reading(lambda version: catalog_of(version.read(CATALOG)))

    def _leave_training(self, run: str) -> None:
        """Remove the place of a training whose model is served: what it holds would outlive every withdrawal."""
        place = self.path / SERVER / TRAINING
        try:
            told = json.loads((place / PLACE).read_bytes())
        except FileNotFoundError:
            with suppress(OSError):  # it holds something, or is not there
                place.rmdir()
            return
        except ValueError:
            return
        if told.get("run") == run:
            remove_training(self.path)

    def _gone(self, requests: Sequence[Request]) -> list[str]:
        """Users who asked for something, and whom the catalog does not know any more."""
        known = set(self.catalog().known_users)
        return sorted({request.user for request in requests if request.user and request.user not in known})

    def _clear(self, but: str) -> None:
        """Remove what belonged to another model.

        Its records last: whoever finds some knows that a kill came before the end of this. Requests without records
        are of a model that was never served, and certificates are none of its.
        """
        if holds_another(self.path, but):
            shutil.rmtree(self.path / CERTIFICATES, ignore_errors=True)
            (self.path / AUDITS).unlink(missing_ok=True)
        for room in (f"{DEVICES}/{REQUESTS}", f"{SERVER}/{LEDGER}", f"{SERVER}/{RECORDS}"):
            for place in (self.path / room).glob("*"):
                if place.name != but:
                    shutil.rmtree(place, ignore_errors=True)


_OLD = (
    "manifest.json",
    "requests.jsonl",
    *(f"server/{name}" for name in ("users.parquet", "items.parquet", "shared.parquet", "config.json", "log.jsonl")),
    *(f"server/{name}" for name in ("model.safetensors", "memory.safetensors")),
    *(f"clients/{name}" for name in ("private.parquet", "test.parquet", "state.safetensors")),
)
"""Files of the first layout, which a forced training replaces."""
