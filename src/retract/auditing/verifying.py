"""Verifying, offline: certificates alone, certificates beside a trained folder, and a folder as a whole.

A certificate holds for a folder if the folder's chain leads from the version that it is about to the one that is
served, whatever unlearnings, extensions and signed changes of key lie between. What was checked is said in words, and
so is what was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from retract.auditing.certificate import Certificate, read
from retract.data.digest import retained_digest
from retract.errors import CertificateError, FolderError
from retract.stores.held import CATALOG, SHARED, catalog_of, interactions_of
from retract.stores.keys import fingerprint
from retract.stores.manifest import Manifest, sha256
from retract.stores.records import Chain, Link, Record, name_of, trusted_runs
from retract.stores.versions import CERTIFICATES, CURRENT, SERVER, Version, VersionStore

WHOSE = "whose key it is: --key says"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What verifying one certificate, or one folder, came to.

    Parameters
    ----------
    path, kind
        What was verified; "certificate" or "folder".
    refusal
        Why it is refused, one line; None where it is valid.
    checked, not_checked
        Phrases: what was found to hold, and what nobody looked at and why.
    system, fingerprint, issued
        Of what system; by which key it is signed; when a certificate was issued, or the served version made.
    version, later
        The version that a certificate is about, and how many came later; of a folder the one that is served. None where
        no folder is known.
    requests, interactions
        How many a certificate is about, None of a folder.
    """

    path: str
    kind: str
    refusal: str | None = None
    checked: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()
    system: str | None = None
    fingerprint: str | None = None
    issued: str | None = None
    version: int | None = None
    later: int | None = None
    requests: int | None = None
    interactions: int | None = None

    @property
    def valid(self) -> bool:
        """Whether it holds."""
        return self.refusal is None


@dataclass(frozen=True)
class Standing:
    """A trained folder whose files and chain were found whole.

    Parameters
    ----------
    folder
        Where it is.
    manifest
        Of the version that is served.
    links
        The records of all versions and changes of key.
    data
        The files of the retained data.
    devices
        Whether the devices' half is here too.
    """

    folder: Path
    manifest: Manifest
    links: tuple[Link, ...]
    data: dict[str, bytes]
    devices: bool

    @classmethod
    def of(cls, folder: Path) -> Standing:
        """Read and check a folder.

        Raises
        ------
        FolderError
            If it is none, a file of the served version is not its manifest's, or its chain is not whole.
        """
        versions = VersionStore(folder.resolve())

        def read(version: Version) -> Standing:
            chain = Chain(versions.folder, version.manifest.facts["model"])
            links = chain.walk(version.place)
            chain.require_served(links[-1] if links else None, version.manifest)
            beside = versions.devices(version)
            for half in (version, *([beside] if beside else [])):
                for name in half.manifest.files:
                    half.read(name)
            data = {name: version.read(name) for name in (SHARED, CATALOG)}
            return cls(folder, version.manifest, links, data, beside is not None)

        return versions.reading(read)

    @cached_property
    def retained(self) -> str:
        """The digest of the retained data."""
        return retained_digest(interactions_of(self.data[SHARED], catalog_of(self.data[CATALOG])))

    @property
    def key(self) -> str:
        """The key that the chain goes on with."""
        return self.links[-1].record.key

    def since(self, version: int) -> list[Link]:
        """The records of later versions."""
        return [link for link in self.links if link.record.of_version and link.record.version > version]

    def lost(self, version: int = 0) -> list[str]:
        """What nobody vouches for since a version, because a key was lost."""
        return [
            f"who changed the key after version {link.record.version}: the key before was lost, so the change to "
            f"{name_of(link.record.public_key)} is signed by nobody else"
            for link in self.links
            if link.record.made == "lost key" and link.record.version >= version
        ]


def verify_paths(paths: Sequence[Path], public: Ed25519PublicKey | None = None) -> list[Verdict]:
    """Verify certificates and at most one folder; each on its own, so that one refusal hides no other.

    Parameters
    ----------
    paths
        Certificate files, and a trained folder that they are about. Without it each is held against the folder in whose
        `certificates/` it lies, or stands alone. A folder without files is verified with every certificate in it.
    public
        The key that must have signed them, or that must lead to theirs.

    Raises
    ------
    CertificateError
        If several folders are given.
    """
    folders = [path for path in paths if path.is_dir()]
    files = [path for path in paths if not path.is_dir()]
    if len(folders) > 1:
        raise CertificateError(f"{folders[0]} and {folders[1]} are two folders: give one, and verify the other apart")
    if folders and not files:
        files = sorted((folders[0] / CERTIFICATES).glob("*.json"))
    known: dict[Path, Standing | FolderError] = {}

    def standing(folder: Path) -> Standing:
        if folder not in known:
            try:
                known[folder] = Standing.of(folder)
            except FolderError as error:
                known[folder] = error
        found = known[folder]
        if isinstance(found, FolderError):
            raise found
        return found

    def certificate(path: Path) -> Verdict:
        if not path.is_file():
            raise CertificateError(f"no such certificate: {path}; check the path")
        folder = folders[0] if folders else _around(path)
        return verify(path.read_bytes(), str(path), public, None if folder is None else standing(folder))

    found = [_judged(folder, "folder", lambda path: verify_folder(standing(path), public)) for folder in folders]
    return found + [_judged(path, "certificate", certificate) for path in files]


def verify(
    content: bytes, source: str, public: Ed25519PublicKey | None = None, standing: Standing | None = None
) -> Verdict:
    """Verify a certificate.

    Parameters
    ----------
    source
        What errors call it: its path.
    public
        The key that must have signed it, or that must lead to the one that did; without it any key may have.
    standing
        The trained folder whose chain it must be a part of.

    Raises
    ------
    CertificateError
        If it is damaged, of another key, or of another model, memory or retained data than the folder's versions.
    """
    certificate = read(content, source)
    checked, unchecked = ["the signature holds"], list[str]()
    if public is None:
        unchecked.append(WHOSE)
    else:
        checked.append(_same_key(certificate.public_key, public, standing, source))
    version = later = None
    if standing is None:
        unchecked.append("the model and the data: no folder was given")
    else:
        record = _link_of(certificate, content, source, standing).record
        since, version = standing.since(record.version), record.version
        later = len(since)
        checked.append(_place_of(version, since, standing))
        held, missing = _state_of(certificate, record, standing, source)
        checked += held
        unchecked += [*missing, *standing.lost(version)]
    return Verdict(
        path=source,
        kind="certificate",
        checked=tuple(checked),
        not_checked=tuple(unchecked),
        system=certificate.system,
        fingerprint=fingerprint(certificate.public),
        issued=certificate.issued,
        version=version,
        later=later,
        requests=len(certificate.requests),
        interactions=sum(request.count for request in certificate.requests),
    )


def verify_folder(standing: Standing, public: Ed25519PublicKey | None = None) -> Verdict:
    """Verify a folder whose files and chain were found whole.

    Raises
    ------
    CertificateError
        If it is signed by another key than the one given.
    """
    records = [link.record for link in standing.links]
    versions = [record for record in records if record.of_version]
    changes = sum(record.made == "new key" for record in records)
    files = len(standing.manifest.files)
    checked = [
        f"the chain of {len(versions)} version(s) is unbroken: {_steps(record.made for record in versions)}",
        f"all {len(records)} signatures of it hold",
        f"the {files} files of version {versions[-1].version}, which is served, are those that were signed",
    ]
    if changes:
        checked.append(f"{changes} change(s) of key, each signed by the key before")
    unchecked = standing.lost()
    if public is None:
        unchecked.append(WHOSE)
    else:
        checked.append(_same_key(standing.key, public, standing, str(standing.folder)))
    here = {sha256(path.read_bytes()) for path in (standing.folder / CERTIFICATES).glob("*.json") if path.is_file()}
    if elsewhere := sum(digest not in here for record in records for digest in record.certificates):
        unchecked.append(f"{elsewhere} certificate(s) that the chain names: they are not in {CERTIFICATES}/")
    if standing.manifest.devices and not standing.devices:
        unchecked.append("the devices' half: it is elsewhere")
    return Verdict(
        path=str(standing.folder),
        kind="folder",
        checked=tuple(checked),
        not_checked=tuple(unchecked),
        system=standing.manifest.system,
        fingerprint=name_of(standing.key),
        issued=versions[-1].time,
        version=versions[-1].version,
        later=0,
    )


def _judged(path: Path, kind: str, look: Callable[[Path], Verdict]) -> Verdict:
    """What `look` finds, a refusal included."""
    try:
        return look(path)
    except (CertificateError, FolderError) as error:
        return Verdict(path=str(path), kind=kind, refusal=str(error))
    except OSError as error:
        return Verdict(path=str(path), kind=kind, refusal=f"{path} cannot be read: {error.strerror}")


def _around(certificate: Path) -> Path | None:
    """The trained folder in whose `certificates/` a file lies."""
    if certificate.resolve().parent.name != CERTIFICATES:
        return None
    room = certificate.parent.parent if certificate.parent.name == CERTIFICATES else certificate.resolve().parents[1]
    return room if (room / SERVER / CURRENT).exists() else None


def _same_key(raw: str, public: Ed25519PublicKey, standing: Standing | None, source: str) -> str:
    """That a key is the given one, or is bound to it by signed changes in the folder's chain."""
    given = public.public_bytes_raw().hex()
    if given == raw:
        return "the key is the one given"
    runs = () if standing is None else trusted_runs(standing.links)
    if any({given, raw} <= run for run in runs):
        return f"the key {name_of(raw)} and the one given are bound by signed changes of key"
    raise CertificateError(
        f"{source} is signed by key {name_of(raw)}, not by {name_of(given)}: it is not theirs whose key you gave"
    )


def _link_of(certificate: Certificate, content: bytes, source: str, standing: Standing) -> Link:
    """The record of the version that a certificate is about: the one that names it, else the last that is alike."""
    digest = sha256(content)
    for link in standing.links:
        if digest in link.record.certificates:
            return link
    links = [link for link in reversed(standing.links) if link.record.of_version]
    models = [link for link in links if link.record.model == certificate.model_after]
    alike = [link for link in models if link.record.memory == certificate.memory_after]
    ours = [link for link in alike if link.record.public_key == certificate.public_key]
    found = [link for link in ours if standing.since(link.record.version) or standing.retained == certificate.retained]
    if found:
        return found[0]
    what = "set of retained data" if ours else "key" if alike else "memory" if models else "model"
    named = {
        "model": certificate.model_after,
        "memory": certificate.memory_after,
        "key": fingerprint(certificate.public),
        "set of retained data": certificate.retained,
    }[what]
    raise CertificateError(
        f"{source} is the certificate of another {what}: it certifies {named[:19]}, and no version in the chain of "
        f"{standing.folder} has that; give the folder it was issued for (a model that was trained anew has a new chain)"
    )


def _place_of(version: int, since: Sequence[Link], standing: Standing) -> str:
    """Where in the folder's chain a version is."""
    place = f"version {version} of the chain of {standing.folder}"
    if not since:
        return f"{place}, which is the one served"
    steps = _steps(link.record.made for link in since)
    return f"{place}, and {len(since)} version(s) later ({steps}) is the one served"


def _state_of(certificate: Certificate, record: Record, standing: Standing, source: str) -> tuple[list[str], list[str]]:
    """What of the certified model and data a version confirms, and what cannot be told any more."""
    served = not standing.since(record.version)
    alike = (record.model, record.memory) == (certificate.model_after, certificate.memory_after)
    if not alike or (served and standing.retained != certificate.retained):
        if record.made == "save":
            return [], ["the model and the retained data, for the model changed again before it was saved"]
        raise CertificateError(f"{source} certifies another state than version {record.version}, whose record names it")
    if served:
        return ["the model, the memory and the retained data are the folder's"], []
    return ["the model and the memory are those of its record"], ["the retained data, for it has changed since"]


def _steps(made: Iterable[str]) -> str:
    """What made some versions, in their order, what is repeated counted."""
    steps: list[tuple[str, int]] = []
    for one in made:
        steps = [*steps[:-1], (one, steps[-1][1] + 1)] if steps and steps[-1][0] == one else [*steps, (one, 1)]
    return ", ".join(one if count == 1 else f"{count} × {one}" for one, count in steps)
