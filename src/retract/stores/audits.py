"""The audits of a trained folder: published beside the versions, or still in the version that they were made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retract.errors import FolderError
from retract.stores.versions import AUDITS, RECORDS, SERVER, Version

STEP_AUDITS = "audits.json"
"""Where a version keeps what its making was audited with, until it is published."""


def audits_of(folder: Path, version: Version) -> list[dict[str, Any]]:
    """All audits of the model that is served, oldest first, also where a kill came before they were published.

    Raises
    ------
    FolderError
        If they are damaged.
    """
    told = [] if holds_another(folder, version.manifest.facts["model"]) else published(folder)
    known = {audit["certificate"] for audit in told}
    own = json.loads(version.read(STEP_AUDITS))["audits"] if version.has(STEP_AUDITS) else []
    return told + [audit for audit in own if audit["certificate"] not in known]


def published(folder: Path) -> list[dict[str, Any]]:
    """The audits beside the versions; errors as of `audits_of`."""
    try:
        return [json.loads(line) for line in (folder / AUDITS).read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except ValueError:
        raise FolderError(f"{folder / AUDITS} is damaged: restore it") from None


def holds_another(folder: Path, model: str) -> bool:
    """Whether something may be left of another model, whose place this one took: its records go last."""
    return any(place.name != model for place in folder.glob(f"{SERVER}/{RECORDS}/*"))
