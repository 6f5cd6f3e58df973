"""Signing the versions of a folder: with which key, and how the chain of their records goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from retract.errors import FolderError
from retract.stores.keys import Signer, default_key_path
from retract.stores.locking import locked
from retract.stores.manifest import Manifest
from retract.stores.records import RECORD_FORM, Chain, Link, Record, changing, following, name_of
from retract.stores.versions import VersionStore

if TYPE_CHECKING:
    from retract.stores.folder import Deed


class Seals:
    """What signs the versions of a folder.

    Parameters
    ----------
    versions
        The folder's versions.
    key
        File of the private key; your own key unless given, made where there is none.
    """

    def __init__(self, versions: VersionStore, key: Path | None = None) -> None:
        self.versions, self.folder = versions, versions.folder
        self.key = default_key_path() if key is None else key

    @property
    def chain(self) -> Chain:
        """The records of the model that is served; errors as of `VersionStore.server`."""
        return self._chain(self.versions.server().manifest)

    @cached_property
    def signer(self) -> Signer:
        """Who signs; errors as of `Signer.at`."""
        return Signer.at(self.key)

    def ready(self, *, anew: bool = False) -> tuple[str, ...]:
        """Make sure, before any work, that a new version can be signed; what to tell of the key.

        Parameters
        ----------
        anew
            Whether a new model takes the place of the one that is served: its chain begins with any key.

        Raises
        ------
        CertificateError
            If the key is none, or cannot be made.
        FolderError
            If there is no trained folder, or its chain is damaged or signed by another key.
        """
        if not anew:
            last = self.last()
            if not self.key.exists():
                raise FolderError(
                    f"the versions of {self.folder} are signed by key {name_of(last.record.key)}, and there is no key "
                    f"at {self.key}: give it with --key, or `retract keys rotate {self.folder} --lost --new NEW.pem`"
                )
            self.chain.require_key(last, self.signer.key)
        return self.signer.notes

    def seal(self, model: str, deed: Deed, *, anew: bool = False) -> Callable[[Manifest], bytes]:
        """What makes the record of a new version, once its manifest is known and while nobody else changes the folder.

        Parameters
        ----------
        model
            The model's id.
        deed
            What made the version.
        anew
            As of `ready`, whose errors it has; but a model that is saved anew goes on with its own chain.
        """
        anew = anew and not Chain(self.folder, model).root.exists()
        self.ready(anew=anew)

        def sealed(manifest: Manifest) -> bytes:
            last = None if anew else self.last()
            if last is not None:
                self.chain.require_key(last, self.signer.key)
            recorded = following(last, manifest, deed.made, deed.requests, deed.certificates)
            return RECORD_FORM.sign(asdict(recorded), self.signer.key)

        return sealed

    def change_key(self, new: Path, *, lost: bool = False) -> Record:
        """Let the chain go on with another key, made where there is none; the one so far signs the change.

        Parameters
        ----------
        lost
            Whether the key so far is lost: then the new one alone signs the change, and `verify` says so ever after.

        Raises
        ------
        CertificateError, FolderError
            As of `ready`; or if the chain goes on with the new key already.
        """
        with locked(self.versions.lock):
            last = self.last()
            if not lost:
                self.ready()
            successor = Signer.at(new)
            raw = successor.key.public_key().public_bytes_raw().hex()
            if raw == last.record.key:
                raise FolderError(f"{self.folder} is signed by key {name_of(raw)} already: give another one")
            if lost:
                self.chain.append(changing(last, "lost key", None), successor.key)
            else:
                self.chain.append(changing(last, "new key", raw), self.signer.key)
            return self.last().record

    def last(self) -> Link:
        """The last record, laid among the others and of the version that is served.

        Raises
        ------
        FolderError
            If there is no trained folder, or the last record is missing, damaged, or of another version.
        """
        manifest = self.versions.server().manifest
        self.lay(manifest)
        chain = self._chain(manifest)
        return chain.require_served(chain.last(), manifest)

    def lay(self, manifest: Manifest) -> None:
        """Lay the record that came with a version among the others."""
        self._chain(manifest).lay(self.versions.place(manifest))

    def _chain(self, manifest: Manifest) -> Chain:
        return Chain(self.folder, manifest.facts["model"])
