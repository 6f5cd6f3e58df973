"""A model in memory becomes a folder, or the next version of one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retract.stores.folder import Deed, TrainedFolder
from retract.stores.held import Held
from retract.stores.ledger import MemoryLedger, Request
from retract.stores.suppression import Suppression
from retract.stores.versions import require_replaceable


def keep(
    folder: TrainedFolder,
    held: Held,
    ledger: MemoryLedger,
    asked: Mapping[str, NDArray[np.int64]],
    suppression: Suppression,
    deed: Deed,
    *,
    force: bool = False,
) -> int:
    """Write a model with its pending requests; the number of its version.

    Parameters
    ----------
    asked
        Codes of the items that each request names.
    suppression
        What was withdrawn and must not come in again.
    deed
        What happened to the model since it was last written.
    force
        Replace another model that is there.

    Raises
    ------
    FolderError
        As of `Model.save`.
    """
    same = folder.versions.number() is not None and folder.manifest().facts["model"] == held.id
    require_replaceable(folder.path, force or same)
    folder.adopt(suppression, held)
    if same:
        applied = {one.id: one.withdrawal for one in ledger.requests() if one.withdrawal is not None}
        folder.go_on(held, applied, deed)
    else:
        folder.save(held, deed)
    for text in folder.seals.signer.notes:
        warnings.warn(text, stacklevel=3)
    known = {request.id for request in folder.ledger.requests()}
    for request in ledger.requests():
        if request.pending and request.id not in known:
            _record(folder, held, request, asked[request.id])
    return folder.manifest().version


def _record(folder: TrainedFolder, held: Held, request: Request, items: NDArray[np.int64]) -> None:
    beyond = np.setdiff1d(held.catalog.item_ids[items], list(request.items)).tolist()
    folder.record(request, beyond)
