"""What users asked of one model, in both halves: the ledger, and what erasures name beyond what the server holds.

```
DIR/server/ledger/MODEL/             the ledger (see `ledger`)
DIR/devices/requests/MODEL/ID.json   private items that a pending erasure names; the server never hears of them
```
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from retract.atomic import write_atomically
from retract.errors import FolderError, SharingError
from retract.stores.ledger import FileLedger, Request
from retract.stores.locking import locked
from retract.stores.versions import DEVICES, LEDGER, SERVER

REQUESTS = "requests"


class Inbox:
    """The requests of one model of a trained folder.

    Parameters
    ----------
    folder
        The folder.
    model
        The model's id; it need not be served.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.ledger = FileLedger(folder / SERVER / LEDGER / model)
        self.beside = folder / DEVICES / REQUESTS / model
        self.lock = folder / SERVER / "requests.lock"

    def begin(self, requests: Iterable[tuple[Request, Sequence[str]]]) -> None:
        """Hold these requests, each with its private items, and nothing that a killed process left under this id."""
        for room in (self.ledger.root, self.beside):
            shutil.rmtree(room, ignore_errors=True)
        for request, private in requests:
            self.record(request, private)

    def record(self, request: Request, private: Sequence[str] = (), key: str | None = None) -> Request:
        """Record a request in the ledger, and in the devices' half what it covers beyond what the server holds.

        Parameters
        ----------
        private
            Original ids of those items.
        key
            See `Ledger.append`; errors too.
        """
        with locked(self.lock):  # so that nobody takes for a leftover what is told before it is recorded
            if len(private):
                told = {"user": request.user, "items": list(private)}
                write_atomically(self._told(request.id), json.dumps(told).encode())
            try:
                recorded = self.ledger.append(request, key)
            except (SharingError, OSError):
                self._told(request.id).unlink(missing_ok=True)
                raise
            if recorded.id != request.id:
                self._told(request.id).unlink(missing_ok=True)
        return recorded

    def told_to_devices(self, request: Request) -> tuple[str, ...]:
        """What `record` named in the devices' half.

        Raises
        ------
        FolderError
            If that is damaged.
        """
        path = self._told(request.id)
        try:
            return tuple(json.loads(path.read_bytes())["items"])
        except FileNotFoundError:
            return ()
        except (ValueError, KeyError, TypeError):
            raise FolderError(f"{path} is damaged: restore it") from None

    def pending(self) -> list[Request]:
        """The requests that are still to be applied."""
        return [request for request in self.ledger.requests() if request.pending]

    def settle(self, withdrawals: Mapping[str, str], gone: Sequence[str]) -> None:
        """Complete requests in the ledger, see `Ledger.settle`, and drop what the devices' half named for them."""
        self.ledger.settle(withdrawals, gone)
        for request in self.ledger.requests():
            if not request.pending:
                self._told(request.id).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what a killed process told of requests that are not recorded, or not pending any more."""
        with locked(self.lock):
            self.ledger.tidy()
            names = {f"{request.id}.json" for request in self.pending()}
            for path in self.beside.glob("*"):
                if path.name not in names:
                    path.unlink()

    def _told(self, id: str) -> Path:
        return self.beside / f"{id}.json"
