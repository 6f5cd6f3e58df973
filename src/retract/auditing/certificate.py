"""Certificates: signed JSON that says what was unlearned, how, from which model to which.

What one shows is the procedure: a key's owner states that this software made of the model with one hash the model with
another, and what data was retained, so that whoever holds that data can run it again. It cannot show that nothing of
the forgotten is left; no hash can (arXiv 2110.11891). Nor does a digest hide what can be guessed: who holds a set but
for one interaction finds by trial which one gives the digest.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from retract.errors import CertificateError
from retract.stores.ledger import Kind, Request
from retract.stores.signed import Count, Form, Hash, Signed, Text, strict
from retract.version import __version__


@strict
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


@strict
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


@strict
@dataclass(frozen=True, kw_only=True)
class Certificate(Statement, Signed):
    """A statement and the signature that holds for it; `read` makes no other."""


_FORM = Form("certificate", Certificate, "ask for the original")


def sign(statement: Statement, key: Ed25519PrivateKey) -> bytes:
    """The certificate file of a statement.

    Raises
    ------
    CertificateError
        If `read` would refuse it: a value that JSON cannot hold, such as NaN, or a field of the wrong type.
    """
    try:
        content = _FORM.sign(asdict(statement), key)
    except (ValueError, TypeError, RecursionError) as error:
        raise CertificateError(
            f"the statement cannot be signed ({error}): give finite numbers, text, lists and mappings as figures"
        ) from None
    read(content, "the statement to sign")
    return content


def read(content: bytes, source: str) -> Certificate:
    """Read a certificate whose signature holds for every byte of it; `source` is what errors call it: its path.

    Raises
    ------
    CertificateError
        If it is empty, cut short, changed, of another format, or not signed by the key that it names.
    """
    return _FORM.read(content, source)


def version_of(package: str) -> str:
    """The version of an installed package; "none" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
