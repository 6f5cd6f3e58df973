"""Certificates: signed JSON that says what was unlearned, how, from which model to which.

What one shows is the procedure: a key's owner states that this software made of the model with one hash the model with
another, and what data was retained, so that whoever holds that data can run it again. It cannot show that nothing of
the forgotten is left; no hash can (arXiv 2110.11891). Nor does a digest hide what can be guessed: who holds a set but
for one interaction finds by trial which one gives the digest.
"""

from __future__ import annotations

import json
import platform
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config

from retract.auditing.keys import fingerprint
from retract.data.digest import retained_digest
from retract.errors import CertificateError
from retract.stores.folder import CERTIFICATES
from retract.stores.held import MEMORY, MODEL, read_shared
from retract.stores.ledger import Kind, Request
from retract.stores.versions import Version, VersionStore
from retract.version import __version__

FORMAT = 1


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it must be printable text, for it is shown on terminals")
    return text


Text = Annotated[str, AfterValidator(_printable)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
_strict = with_config(ConfigDict(strict=True, extra="forbid"))


@_strict
@dataclass(frozen=True)
class CertifiedRequest:
    """What a certificate tells of a request: neither whose it was nor what it named.

    Parameters
    ----------
    id, kind
        UUID; "unshare" or "erase".
    count
        How many interactions.
    received
        UTC, ISO 8601.
    """

    id: Text
    kind: Kind
    count: Count
    received: Text

    @classmethod
    def of(cls, request: Request) -> CertifiedRequest:
        """The part of a folder's request that may be told."""
        return cls(request.id, request.kind, request.count, request.received)


@_strict
@dataclass(frozen=True, kw_only=True)
class Statement:
    """What is certified.

    Parameters
    ----------
    requests
        Those that were applied.
    system, settings, seed, method
        What unlearned, and how.
    model_before, model_after, memory_after
        SHA-256 (hex) of the server's files `MODEL` and `MEMORY`, as in a version's manifest.
    retained, n_retained
        `retained_digest` of the shared interactions that stayed, and how many they are.
    figures
        What the audit measured: finite numbers, text, lists and mappings of these.
    retract, python, torch, numpy
        Versions of what ran; of torch "none" where it is not installed.
    issued
        UTC, ISO 8601.
    """

    requests: tuple[CertifiedRequest, ...]
    system: Text
    settings: Mapping[str, Any]
    seed: int
    method: Text
    model_before: Hash
    model_after: Hash
    memory_after: Hash
    retained: Hash
    n_retained: Count
    figures: Mapping[str, Any]
    retract: Text = __version__
    python: Text = field(default_factory=platform.python_version)
    torch: Text = field(default_factory=lambda: version_of("torch"))
    numpy: Text = np.__version__
    issued: Text = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@_strict
@dataclass(frozen=True, kw_only=True)
class Certificate(Statement):
    """A statement and the signature that holds for it; `read` makes no other.

    Parameters
    ----------
    format
        Version of the file's layout.
    public_key
        Raw Ed25519 key, hex.
    signature
        Ed25519, hex, over the canonical JSON of all else.
    """

    format: Literal[1]
    public_key: Hash
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]

    @property
    def public(self) -> Ed25519PublicKey:
        """The signer's key."""
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))

    @property
    def state(self) -> tuple[str, str, str]:
        """Hashes of the server's model, memory and retained data that it certifies."""
        return self.model_after, self.memory_after, self.retained


@dataclass(frozen=True)
class Verdict:
    """What a valid certificate says and what of it was checked.

    Parameters
    ----------
    requests, interactions
        How many were unlearned.
    system, issued, fingerprint
        From what, when, and signed by which key.
    checked
        Of "signature", "key" (it is the one given), "model", "memory", "retained data" (they are the folder's) and
        "later certificates" (they lead to the folder's).
    later
        How many later unlearnings changed the model since.
    """

    requests: int
    interactions: int
    system: str
    issued: str
    fingerprint: str
    checked: tuple[str, ...]
    later: int = 0


_CERTIFICATE = TypeAdapter(Certificate)
_FIELDS = {each.name for each in fields(Certificate)}


def sign(statement: Statement, key: Ed25519PrivateKey) -> bytes:
    """The certificate file of a statement.

    Raises
    ------
    CertificateError
        If `read` would refuse it: a value that JSON cannot hold, such as NaN, or a field of the wrong type.
    """
    try:
        said = {**asdict(statement), "format": FORMAT, "public_key": key.public_key().public_bytes_raw().hex()}
        content = _canonical({**said, "signature": key.sign(_canonical(said)).hex()})
    except (ValueError, TypeError, RecursionError) as error:
        raise CertificateError(
            f"the statement cannot be signed ({error}): give finite numbers, text, lists and mappings as figures"
        ) from None
    read(content, "the statement to sign")
    return content


def read(content: bytes, source: str) -> Certificate:
    """Read a certificate whose signature holds for every byte of it.

    The content must be the very bytes that `sign` writes of its fields, so that nothing can change that a parser would
    pass over: white space, the case of hex digits, the spelling of numbers, the order of keys, keys given twice.

    Parameters
    ----------
    source
        What errors call it: its path.

    Raises
    ------
    CertificateError
        If it is empty, cut short, changed, of another format, or not signed by the key that it names.
    """
    found = _parsed(content, source)
    try:
        certificate = _CERTIFICATE.validate_json(content)
    except ValidationError as error:
        raise CertificateError(f"{source} is no certificate: {_explain(error)}") from None
    said = {name: value for name, value in found.items() if name != "signature"}
    try:
        certificate.public.verify(bytes.fromhex(certificate.signature), _canonical(said))
    except InvalidSignature:
        raise CertificateError(
            f"{source} is not what was signed: its signature does not hold for key {fingerprint(certificate.public)}; "
            "ask for the original"
        ) from None
    return certificate


def verify(
    content: bytes, source: str, *, public: Ed25519PublicKey | None = None, folder: Path | None = None
) -> Verdict:
    """Check a certificate, offline.

    Parameters
    ----------
    source
        What errors call it: its path.
    public
        The key that must have signed it; without it any key may have.
    folder
        The trained folder that must hold what it certifies, or what later certificates of the same key made of that.

    Raises
    ------
    CertificateError
        If it is damaged, of another key, or of another model, memory or retained data than the folder's.
    FolderError
        If the folder is not one, or damaged.
    """
    certificate = read(content, source)
    checked, later = ["signature"], 0
    if public is not None:
        if public.public_bytes_raw().hex() != certificate.public_key:
            theirs, ours = fingerprint(certificate.public), fingerprint(public)
            raise CertificateError(
                f"{source} is signed by key {theirs}, not by {ours}: it is not theirs whose key you gave"
            )
        checked.append("key")
    if folder is not None:
        later = _steps_to_folder(certificate, source, folder)
        checked += ["later certificates"] if later else ["model", "memory", "retained data"]
    return Verdict(
        requests=len(certificate.requests),
        interactions=sum(request.count for request in certificate.requests),
        system=certificate.system,
        issued=certificate.issued,
        fingerprint=fingerprint(certificate.public),
        checked=tuple(checked),
        later=later,
    )


def _parsed(content: bytes, source: str) -> dict[str, Any]:
    """The fields of a certificate of this format, if `content` is their canonical JSON."""
    if not content:
        raise CertificateError(f"{source} is empty: ask for the original")
    try:
        found = json.loads(content)
        canonical = _canonical(found)
    except (ValueError, RecursionError):
        raise CertificateError(f"{source} is no certificate, or a damaged one: it is not the JSON of one") from None
    if not isinstance(found, dict) or "format" not in found:
        raise CertificateError(f"{source} is no certificate: it has no field 'format'")
    if found["format"] != FORMAT:
        shown = reprlib.repr(found["format"])
        raise CertificateError(f"{source} has certificate format {shown}, this retract {__version__} reads {FORMAT}")
    if absent := sorted(_FIELDS - found.keys()):
        raise CertificateError(f"{source} is no certificate: it has no field {absent[0]!r}")
    if content != canonical:
        raise CertificateError(f"{source} is not what was signed: it was written anew or changed; ask for the original")
    return found


def _explain(error: ValidationError) -> str:
    """The first problem of a certificate's fields."""
    problem = error.errors()[0]
    if not problem["loc"]:  # of the JSON as a whole, such as too deep a nesting
        return problem["msg"]
    name = ".".join(str(part) for part in problem["loc"])
    return f"field {name!r} is {reprlib.repr(problem['input'])}: {problem['msg']}"


def _steps_to_folder(certificate: Certificate, source: str, folder: Path) -> int:
    """How many later unlearnings lead from what is certified to what the folder holds."""
    held = _state_of(folder)
    steps = _steps_to(held, certificate, _certificates_in(folder, certificate.public_key))
    if steps is not None:
        return steps
    names = ("model", "memory", "set of retained data")
    name, theirs, ours = next(each for each in zip(names, certificate.state, held, strict=True) if each[1] != each[2])
    raise CertificateError(
        f"{source} is the certificate of another {name}: it certifies {theirs[:12]}, {folder} holds {ours[:12]}, "
        "and no later certificates of the same key there lead to it; give the folder it was issued for"
    )


def _steps_to(held: tuple[str, str, str], certificate: Certificate, others: list[Certificate]) -> int | None:
    """The fewest of `others`, each of which begins with the model before it, from `certificate` to what is held."""
    reached, passed, steps = [certificate], set[str](), 0
    while reached:
        if any(one.state == held for one in reached):
            return steps
        models = {one.model_after for one in reached} - passed
        passed |= models
        reached = [one for one in others if one.model_before in models]
        steps += 1
    return None


def _certificates_in(folder: Path, public_key: str) -> list[Certificate]:
    """The folder's own certificates by one key; what cannot be read or does not hold proves nothing."""
    found = []
    for path in sorted((folder / CERTIFICATES).glob("*.json")):
        with suppress(CertificateError, OSError):
            found.append(read(path.read_bytes(), str(path)))
    return [certificate for certificate in found if certificate.public_key == public_key]


def _state_of(folder: Path) -> tuple[str, str, str]:
    """Hashes of the model, memory and retained data that a folder's server holds, each file being checked."""

    def read(version: Version) -> tuple[str, str, str]:
        for name in (MODEL, MEMORY):
            version.read(name)
        files = version.manifest.files
        return files[MODEL], files[MEMORY], retained_digest(read_shared(version))

    return VersionStore(folder.resolve()).reading(read)


def version_of(package: str) -> str:
    """The version of an installed package; "none" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _canonical(found: Any) -> bytes:
    """The one way to write a value as JSON."""
    return (json.dumps(found, sort_keys=True, ensure_ascii=True, indent=1, allow_nan=False) + "\n").encode()
