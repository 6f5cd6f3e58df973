"""What a trained folder holds, without its model: quick, and without anything that computes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retract.stores.audits import audits_of
from retract.stores.ledger import FileLedger, MemoryLedger, Request
from retract.stores.versions import CERTIFICATES, CONFIG, LEDGER, SERVER, Version, VersionStore


@dataclass(frozen=True)
class Status:
    """What a trained folder holds: users with an interaction, items of the catalog, interactions, requests.

    Of a request it says who asked, as the caller wrote it and while that is known; what for, and when; and the name of
    its certificate within the folder.

    `settings` are those of the training, `metrics` those measured last, and `certificates` lie where the paths say.
    `private` is None where the devices' half is not here; `version` is the number of the version that is served;
    `verdicts` are those of the last certificate, one for each kind of request: kind, verdict, because, certificate.
    """

    system: str
    version: int
    users: int
    items: int
    shared: int
    private: int | None
    pending: int
    applied: int
    requests: tuple[Mapping[str, Any], ...]
    seed: int
    settings: Mapping[str, Any]
    metrics: Mapping[str, float | None] | None
    certificates: tuple[str, ...]
    verdicts: tuple[Mapping[str, Any], ...] = ()


def status(path: Path) -> Status:
    """What a trained folder holds.

    Raises
    ------
    FolderError
        If it is no trained folder, of another version, or damaged.
    """
    versions = VersionStore(path.resolve())

    def read(version: Version) -> tuple[Version, Mapping[str, Any], Mapping[str, Any]]:
        half = versions.devices(version)
        return version, {} if half is None else half.manifest.facts, json.loads(version.read(CONFIG))

    version, device_facts, config = versions.reading(read)
    manifest = version.manifest
    requests = FileLedger(versions.folder / SERVER / LEDGER / manifest.facts["model"]).requests()
    certificates = certificates_of(versions.folder)
    if any(request.pending and request.id in manifest.settles for request in requests):
        requests = _settled(requests, version)
    pending = sum(request.pending for request in requests)
    return Status(
        system=manifest.system,
        version=manifest.version,
        users=manifest.facts["users"],
        items=manifest.facts["items"],
        shared=manifest.facts["shared"],
        private=device_facts.get("private"),
        pending=pending,
        applied=len(requests) - pending,
        requests=tuple({**one.public(), "certificate": certificates.get(one.id)} for one in requests),
        seed=config["seed"],
        settings=config["settings"],
        metrics=manifest.facts.get("metrics"),
        certificates=tuple(str(file) for file in sorted((path / CERTIFICATES).glob("[!.]*.json"))),
        verdicts=_verdicts(versions.reading(lambda version: audits_of(versions.folder, version))),
    )


def _verdicts(audits: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Of the audits of the last certificate."""
    names = ("kind", "verdict", "because", "certificate")
    return tuple(
        {name: one.get(name) for name in names} for one in audits if one["certificate"] == audits[-1]["certificate"]
    )


def _settled(requests: Sequence[Request], version: Version) -> tuple[Request, ...]:
    """The requests as they will be once the ledger completes those that the version settles: a kill came before."""
    from retract.stores.held import CATALOG, catalog_of  # computes, and is needed after a kill alone

    known = set(catalog_of(version.read(CATALOG)).known_users)
    ledger = MemoryLedger(requests)
    ledger.settle(version.manifest.settles, [request.user for request in requests if request.user not in known])
    return ledger.requests()


def certificates_of(folder: Path) -> dict[str, str]:
    """The certificate of each request that has one: its name within the folder, by the request's id.

    Nothing is verified here, and what is no certificate is passed over.
    """
    found = {}
    for path in sorted((folder / CERTIFICATES).glob("*.json")):
        with suppress(ValueError, KeyError, TypeError):
            for request in json.loads(path.read_bytes())["requests"]:
                found[request["id"]] = f"{CERTIFICATES}/{path.name}"
    return found
