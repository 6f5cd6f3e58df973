"""What was asked of a model in memory and became of it since it was last written: all that saving has to carry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retract.errors import FolderError
from retract.stores.folder import Deed, TrainedFolder
from retract.stores.forgetting import Batch, Forgotten, batch_of, suppressing
from retract.stores.held import Held
from retract.stores.ledger import MemoryLedger, Request
from retract.stores.manifest import Manifest
from retract.stores.requests import Wish, Withdrawable, codes_of, pending_of
from retract.stores.suppression import ERASED, Suppression
from retract.stores.versions import require_replaceable


class Account:
    """The requests of a model in memory, and its past.

    Attributes
    ----------
    ledger
        What was asked.
    suppression
        What was withdrawn and must not come in again.
    """

    def __init__(self) -> None:
        self.ledger, self.suppression = MemoryLedger(), Suppression()
        self._codes: dict[str, NDArray[np.int64]] = {}
        self._unsaved = Deed("save")
        self._past: frozenset[str] = frozenset()  # digests of the versions that the model came from, or was written as

    @classmethod
    def of(cls, folder: TrainedFolder, held: Held) -> Account:
        """That of a model that a folder serves; errors as of `TrainedFolder.load`."""
        made, pending = cls(), pending_of(folder)
        made.ledger, made.suppression = MemoryLedger(pending), folder.suppression()
        made._codes = {request.id: codes_of(folder, request, held.sharing) for request in pending}
        manifest = folder.manifest()
        if manifest.version == held.version:
            made._past = frozenset([manifest.digest])
        return made

    @property
    def pending(self) -> list[Request]:
        """The requests that are still to be applied."""
        return [request for request in self.ledger.requests() if request.pending]

    @property
    def asked(self) -> list[tuple[Request, NDArray[np.int64]]]:
        """The pending requests, each with the codes of its items."""
        return [(request, self._codes[request.id]) for request in self.pending]

    def record(self, held: Held, wish: Wish) -> Request:
        """Record a wish; errors as of `Withdrawable.chosen`."""
        everything = replace(held.sharing, private=held.sharing.private | held.test)
        chosen = Withdrawable(everything, self.asked).chosen(wish)
        shared = held.trained.shared.items_of(held.catalog.user(wish.user))
        told = held.catalog.item_ids[np.intersect1d(chosen, shared)].tolist()
        request = self.ledger.append(Request.of(wish.kind, wish.user, len(chosen), told))
        self._codes[request.id] = chosen
        return request

    def batch(self, held: Held) -> Batch:
        """All pending requests, to be applied together."""
        return batch_of(held, self.asked)

    def settle(self, forgotten: Forgotten, certificates: Sequence[str]) -> None:
        """Complete what was applied.

        Parameters
        ----------
        certificates
            SHA-256 of the certificates of it.
        """
        self.suppression = suppressing(self.suppression, forgotten)
        done = self._unsaved.requests + len(forgotten.batch.requests)
        signed = (*self._unsaved.certificates, *certificates)
        self._unsaved = replace(self._unsaved, requests=done, certificates=signed)
        self.ledger.settle(forgotten.withdrawals, forgotten.gone)
        self._codes = {id: codes for id, codes in self._codes.items() if id not in forgotten.withdrawals}

    def save(self, folder: TrainedFolder, held: Held, *, force: bool = False) -> Manifest:
        """Write the model with its pending requests; errors as of `Model.save`."""
        served = None if folder.versions.number() is None else folder.manifest()
        same = served is not None and served.facts["model"] == held.id
        require_replaceable(folder.path, force or same)
        asked = [(one, self._beyond(held, one, items)) for one, items in self.asked]
        if served is not None and same:
            self._require_past(folder, served)
            self._require_own_list(folder, held)
            settles = {one.id: one.withdrawal for one in self.ledger.requests() if one.withdrawal is not None}
            manifest = folder.go_on(replace(held, version=served.version), settles, self._unsaved, asked)
        else:
            self._require_own_list(folder, held)
            manifest = folder.save(held, self._unsaved, asked)
        for text in folder.seals.signer.notes:
            warnings.warn(text, stacklevel=4)
        self.suppression, self._unsaved = folder.suppression(), Deed("save")
        self._past |= {manifest.digest}
        return manifest

    def _beyond(self, held: Held, request: Request, items: NDArray[np.int64]) -> list[str]:
        """The items of a request that the server does not hold."""
        found: list[str] = np.setdiff1d(held.catalog.item_ids[items], list(request.items)).tolist()
        return found

    def _require_past(self, folder: TrainedFolder, served: Manifest) -> None:
        """Refuse to replace a version of the model that this one does not come from: it may have forgotten more."""
        if served.digest not in self._past:
            raise FolderError(
                f"{folder.path} was changed by somebody else in the meantime; nothing was applied: load it"
            )

    def _require_own_list(self, folder: TrainedFolder, held: Held) -> None:
        """Take the suppression list over into the folder, unless what was withdrawn there would come back by it."""
        known, own = folder.suppression(), self.suppression
        if not known or known.same_as(own):
            folder.suppress(lambda known: known.joined(own))
            return
        verdicts = known.verdicts(held.interactions | held.test)
        if own or (verdicts == ERASED).any() or known.verdicts(held.trained.shared).any():
            raise FolderError(
                f"{folder.path} keeps a list of what was erased or unshared there, and this model, made elsewhere, "
                "holds some of it or keeps a list of its own: save it in another folder"
            )
