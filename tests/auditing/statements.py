"""Certificates for the tests, and a trained folder that they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from retract.auditing.certificate import CertifiedRequest, Statement, sign
from retract.data.digest import retained_digest
from retract.stores.folder import TrainedFolder
from retract.stores.held import MEMORY, MODEL
from retract.stores.versions import CERTIFICATES
from tests.stores.folders import load

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))

STATEMENT = Statement(
    requests=(
        CertifiedRequest("5f0c", "unshare", 3, "2026-07-01T10:00:00+00:00"),
        CertifiedRequest("77", "erase", 1, "x"),
    ),
    system="exact",
    settings={"form": "ease", "regularisation": 0.1},
    seed=0,
    method="block inverse",
    model_before="a" * 64,
    model_after="b" * 64,
    memory_after="c" * 64,
    retained="d" * 64,
    n_retained=56,
    figures={"after": {"attack_auc": 0.5, "note": "Ärger\x00"}, "ks": [1e-300, -0.0, 10**30, None, True]},
    issued="2026-07-27T10:00:00+00:00",
)


def files_of(folder: Path) -> Mapping[str, str]:
    """What the served version's manifest says: the SHA-256 of each of the server's files."""
    return TrainedFolder(folder).manifest().files


def statement_about(folder: Path, **changes: Any) -> Statement:
    """What is true of a folder, but for `changes`."""
    files, shared = files_of(folder), load(folder).trained.shared
    found = {"model_after": files[MODEL], "memory_after": files[MEMORY], "retained": retained_digest(shared)}
    return replace(STATEMENT, n_retained=len(shared), **{**found, **changes})


def certify(folder: Path, name: str, key: Ed25519PrivateKey = KEY, **changes: Any) -> Path:
    """Write a certificate about a folder into it."""
    path = folder / CERTIFICATES / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(sign(statement_about(folder, **changes), key))
    return path
