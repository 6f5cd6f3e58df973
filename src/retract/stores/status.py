"""What a trained folder holds, without its model: quick, and without anything that computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retract.errors import FolderError
from retract.stores.ledger import FileLedger
from retract.stores.versions import AUDITS, CERTIFICATES, CONFIG, LEDGER, SERVER, Version, VersionStore


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
    pending = sum(request.pending and request.id not in manifest.settles for request in requests)
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
        verdicts=_verdicts(versions.folder / AUDITS),
    )


def _verdicts(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Of the audits of the last certificate."""
    try:
        audits = [json.loads(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return ()
    except ValueError:
        raise FolderError(f"{path} is damaged: restore it") from None
    names = ("kind", "verdict", "because", "certificate")
    return tuple(
        {name: one.get(name) for name in names} for one in audits if one["certificate"] == audits[-1]["certificate"]
    )


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
