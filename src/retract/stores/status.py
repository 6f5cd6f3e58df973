"""What a trained folder holds, without its model: quick, and without anything that computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retract.stores.ledger import FileLedger
from retract.stores.versions import CERTIFICATES, CONFIG, LEDGER, SERVER, Version, VersionStore


@dataclass(frozen=True)
class Status:
    """What a trained folder holds: users with an interaction, items of the catalog, interactions, requests.

    `settings` are those of the training, `metrics` those measured last, and `certificates` lie where the paths say.
    `private` is None where the devices' half is not here; `version` is the number of the version that is served.
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
        requests=tuple(request.public() for request in requests),
        seed=config["seed"],
        settings=config["settings"],
        metrics=manifest.facts.get("metrics"),
        certificates=tuple(str(file) for file in sorted((path / CERTIFICATES).glob("[!.]*.json"))),
    )
