"""Ed25519 keys: the private one signs versions and certificates and is nobody else's to read, the public one checks."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from retract.atomic import naming
from retract.errors import CertificateError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def default_key_path() -> Path:
    """Where the private key is: `$RETRACT_KEY`, else `retract/key.pem` in the user's settings."""
    if given := os.environ.get("RETRACT_KEY"):
        return Path(given)
    settings = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(settings) / "retract" / "key.pem"


def public_path(path: Path) -> Path:
    """Where the public half of the key in `path` is."""
    return path.with_name(f"{path.name}.pub")


def new_key(path: Path) -> Ed25519PrivateKey:
    """Make a key: the private half (PKCS8, PEM) in `path`, which only its owner may read, the public one beside it.

    Raises
    ------
    CertificateError
        If either file is there already: without its key no older certificate could be traced to its signer.
    """
    for present in (path, public_path(path)):
        if present.exists():
            raise _taken(present)
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with naming(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        try:
            _create(public_path(path), public, 0o644)
        except OSError:
            path.unlink()  # a key is made as a whole or not at all
            raise
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises
    ------
    CertificateError
        If it is missing, no Ed25519 private key, or open to anybody but its owner.
    """
    if not path.is_file():
        raise CertificateError(f"no private key at {path}; `retract keys new` makes one")
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _OTHERS:
            raise CertificateError(
                f"{path} is open to others (mode {mode:04o}), a private key must not be: chmod 600 it"
            )
        content = file.read()
    key: object = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(content, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise CertificateError(f"{path} is not an Ed25519 private key (PEM, no password); `retract keys new` makes one")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises
    ------
    CertificateError
        If it is missing or no Ed25519 public key.
    """
    if not path.is_file():
        raise CertificateError(f"no public key at {path}; it is the .pub file beside the private key")
    key: object = None
    with suppress(ValueError, UnsupportedAlgorithm):
        key = load_pem_public_key(path.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError(f"{path} is not an Ed25519 public key (PEM); it is the .pub file beside the private key")
    return key


@dataclass(frozen=True)
class Signer:
    """Who signs: a private key, where it is, and whether it was made just now."""

    key: Ed25519PrivateKey
    path: Path
    made: bool = False

    @classmethod
    def at(cls, path: Path | None) -> Signer:
        """The key in `path`, the default one unless given, made where there is none.

        Raises
        ------
        CertificateError
            As in `load_key` and `new_key`, or if no key can be made there.
        """
        place = default_key_path() if path is None else path
        if place.exists():
            return cls(load_key(place), place)
        try:
            return cls(new_key(place), place, made=True)
        except OSError as error:
            raise CertificateError(
                f"no key to sign with can be made at {place} ({error.strerror}): "
                "name a place for one with --key or in RETRACT_KEY"
            ) from None

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell of a key that was just made."""
        if not self.made:
            return ()
        return (
            f"made a key that signs versions and certificates: {self.path} (fingerprint "
            f"{fingerprint(self.key.public_key())}); {public_path(self.path)} is for those who verify; "
            "--key KEY.pem or RETRACT_KEY=KEY.pem signs with a key of your own",
        )


def fingerprint(public: Ed25519PublicKey) -> str:
    """What people compare keys by: 128 bits of the SHA-256 of the raw key."""
    return f"SHA256:{hashlib.sha256(public.public_bytes_raw()).hexdigest()[:32]}"


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a new file, whole or not at all: it gets its name when finished, by a link, which replaces nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # its owner's alone from the start
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        raise _taken(path) from None
    finally:
        os.unlink(name)


def _taken(path: Path) -> CertificateError:
    return CertificateError(
        f"{path} exists already, and no key is ever overwritten: give another path, or move it away"
    )
