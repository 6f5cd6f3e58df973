"""The ledger of requests: what users asked for, what is being worked on, and what was done. Append-only.

An event says that a request was received, claimed for a batch, released, or completed; it names neither a user nor an
item. Who asked for what stands beside the ledger while it is needed, in a file per request: once a request is completed
its items are gone, for a record of the forgotten is not forgetting. Of whoever erased everything the name goes too.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from retract.atomic import naming, sync, write_atomically
from retract.errors import FolderError, SharingError
from retract.stores.locking import locked

Kind = Literal["unshare", "erase"]
State = Literal["pending", "in_progress", "completed"]


@dataclass(frozen=True)
class Request:
    """What one user wants withdrawn.

    Parameters
    ----------
    id, kind, user
        UUID; "unshare" or "erase"; the user's original id, empty once the user is gone.
    count
        How many interactions.
    items
        Original ids of the items that the server holds, while pending. An erasure's private items are named in the
        device's own half alone.
    received, completed
        UTC, ISO 8601; `completed` is None until then.
    withdrawal
        Once completed, the id of the withdrawal that it was a part of, as in the server's log.
    status
        "pending", "in_progress" or "completed".
    """

    id: str
    kind: Kind
    user: str
    count: int
    items: tuple[str, ...]
    received: str
    completed: str | None = None
    withdrawal: str | None = None
    status: State = "pending"

    @classmethod
    def of(cls, kind: Kind, user: str, count: int, items: Sequence[str]) -> Request:
        """A new one, received now."""
        return cls(str(uuid.uuid4()), kind, user, count, tuple(items), _now())

    @property
    def pending(self) -> bool:
        """Whether it has still to be applied."""
        return self.status != "completed"

    def settled(self, at: str, withdrawal: str, gone: bool) -> Request:
        """The record that stays once it was applied: the count, no item, and no user who is gone."""
        user = "" if gone else self.user
        return replace(self, user=user, items=(), completed=at, withdrawal=withdrawal, status="completed")

    def public(self) -> dict[str, Any]:
        """It without its items: what they are is the user's business."""
        return {name: value for name, value in asdict(self).items() if name != "items"}


class Ledger(Protocol):
    """Requests in the order received."""

    def requests(self) -> tuple[Request, ...]:
        """All of them."""
        ...

    def append(self, request: Request, key: str | None = None) -> Request:
        """Record a request; when this returns it is on the disk.

        Parameters
        ----------
        key
            The caller's own, for a call that may be repeated: the same key again changes nothing and returns the first.

        Raises
        ------
        SharingError
            If the key was used for another request.
        """
        ...

    def by_key(self, key: str) -> Request | None:
        """The request that was recorded under a caller's key."""
        ...

    def claim(self, ids: Sequence[str]) -> None:
        """Mark requests as worked on.

        Raises
        ------
        FolderError
            If one of them is not pending any more.
        """
        ...

    def release(self, ids: Sequence[str]) -> None:
        """Mark claimed requests as pending again, as after an error."""
        ...

    def settle(self, withdrawals: Mapping[str, str], gone: Sequence[str] = ()) -> None:
        """Complete requests, for good; those that are completed already stay as they are.

        Parameters
        ----------
        withdrawals
            By request, the id of the withdrawal that it was a part of.
        gone
            Users of whom nothing is left: their names go from every request, and what else they asked for is done too.
        """
        ...


class MemoryLedger:
    """A ledger that lives as long as its process."""

    def __init__(self, requests: Sequence[Request] = ()) -> None:
        self._requests = {request.id: request for request in requests}
        self._keys: dict[str, str] = {}

    def requests(self) -> tuple[Request, ...]:
        """All of them."""
        return tuple(self._requests.values())

    def append(self, request: Request, key: str | None = None) -> Request:
        """Record a request; see `Ledger`."""
        if key is not None and key in self._keys:
            return same_request(self._requests[self._keys[key]], request, key)
        if key is not None:
            self._keys[key] = request.id
        self._requests[request.id] = request
        return request

    def by_key(self, key: str) -> Request | None:
        """The request that was recorded under a caller's key."""
        return self._requests[self._keys[key]] if key in self._keys else None

    def claim(self, ids: Sequence[str]) -> None:
        """Mark requests as worked on; see `Ledger`."""
        require_pending([self._requests[id] for id in ids])
        self._set(ids, "in_progress")

    def release(self, ids: Sequence[str]) -> None:
        """Mark claimed requests as pending again."""
        self._set([id for id in ids if self._requests[id].pending], "pending")

    def settle(self, withdrawals: Mapping[str, str], gone: Sequence[str] = ()) -> None:
        """Complete requests; see `Ledger`."""
        at = _now()
        for id, request in self._requests.items():
            over = request.user in gone
            if request.pending and (id in withdrawals or over):
                self._requests[id] = request.settled(at, withdrawals.get(id, _any_of(withdrawals)), over)
            elif over:
                self._requests[id] = replace(request, user="")

    def _set(self, ids: Sequence[str], status: State) -> None:
        for id in ids:
            self._requests[id] = replace(self._requests[id], status=status)


class FileLedger:
    """A ledger in a server's folder, for one machine.

    ```
    ROOT/ledger.jsonl      one event a line, appended and brought to the disk before anybody is told
    ROOT/requests/ID.json  who asked for what
    ```

    Parameters
    ----------
    root
        A folder of its own.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / "ledger.jsonl"

    def requests(self) -> tuple[Request, ...]:
        """All of them."""
        return tuple(replay(self._events(), self._details).values())

    def append(self, request: Request, key: str | None = None) -> Request:
        """Record a request; see `Ledger`."""
        with locked(self.root / "lock"):
            if key is not None and (first := self.by_key(key)) is not None:
                return same_request(first, request, key)
            self._tell(request.id, {"user": request.user, "items": list(request.items)})
            event = {"event": "received", "id": request.id, "kind": request.kind, "count": request.count}
            try:
                self._write({**event, "at": request.received, **({} if key is None else {"key": key})})
            except OSError:
                self._untell(request.id)
                raise
        return request

    def by_key(self, key: str) -> Request | None:
        """The request that was recorded under a caller's key."""
        events = self._events()
        ids = [event["id"] for event in events if event.get("key") == key]
        return replay(events, self._details)[ids[0]] if ids else None

    def claim(self, ids: Sequence[str]) -> None:
        """Mark requests as worked on; see `Ledger`."""
        with locked(self.root / "lock"):
            known = replay(self._events(), self._details)
            if lost := [id for id in ids if id not in known]:
                raise FolderError(f"request {lost[0]} went with its model, which was replaced: nothing was applied")
            require_pending([known[id] for id in ids])
            self._write({"event": "claimed", "ids": list(ids), "at": _now()})

    def release(self, ids: Sequence[str]) -> None:
        """Mark claimed requests as pending again."""
        if not self.root.exists():  # another model took the place of this one, and its requests are gone with it
            return
        with locked(self.root / "lock"):
            known = replay(self._events(), self._details)
            if claimed := [id for id in ids if id in known and known[id].status == "in_progress"]:
                self._write({"event": "released", "ids": claimed, "at": _now()})

    def settle(self, withdrawals: Mapping[str, str], gone: Sequence[str] = ()) -> None:
        """Complete requests; see `Ledger`."""
        with locked(self.root / "lock"):
            known = replay(self._events(), self._details)
            over = [id for id, request in known.items() if request.user and request.user in gone]
            asked = {**dict.fromkeys(over, _any_of(withdrawals)), **withdrawals}
            done = {id: given for id, given in asked.items() if id in known and known[id].pending}
            if done or over:
                self._write({"event": "completed", "withdrawals": done, "gone": over, "at": _now()})
            for id in over:
                self._untell(id)
            for id in withdrawals.keys() & known.keys() - set(over):
                if self._details(id)["items"]:
                    self._tell(id, {"user": known[id].user, "items": []})

    def tidy(self) -> None:
        """Remove what a killed process told of a request that it did not record, or left of somebody who is gone."""
        with locked(self.root / "lock"):
            requests = replay(self._events(), self._details)
            known = {f"{id}.json" for id, request in requests.items() if request.user}
            for path in (self.root / "requests").glob("*"):
                if path.name not in known:
                    path.unlink()

    def _events(self) -> list[dict[str, Any]]:
        """Every event; a line that a killed process left unfinished is none.

        Raises
        ------
        FolderError
            If a line before the last is no event: the ledger was changed by something else.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines[:-1], start=1):
            try:
                event = json.loads(line)
                found.append({**event, "event": event["event"]})
            except (ValueError, KeyError, TypeError):
                raise FolderError(f"{self.path}, line {number} is damaged: restore the ledger") from None
        return found

    def _write(self, event: Mapping[str, Any]) -> None:
        """Append an event, whole or not at all, after cutting off what a killed process left unfinished."""
        with naming(self.path):
            self.root.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            with self.path.open("ab", buffering=0) as file:
                if not new and file.tell() and not self._ends_whole():
                    file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
                whole, line = file.seek(0, os.SEEK_END), json.dumps(dict(event)).encode() + b"\n"
                try:
                    while line:
                        line = line[file.write(line) :]
                    os.fsync(file.fileno())
                    if new:
                        sync(self.root)
                except OSError:
                    file.truncate(whole)
                    if new:
                        self.path.unlink()
                    raise

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _details(self, id: str) -> Mapping[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.root / "requests" / f"{id}.json").read_bytes())
        except FileNotFoundError:
            return {"user": "", "items": []}
        except ValueError:
            raise FolderError(f"{self.root / 'requests' / id}.json is damaged: restore it") from None
        return found

    def _tell(self, id: str, details: Mapping[str, Any]) -> None:
        write_atomically(self.root / "requests" / f"{id}.json", json.dumps(dict(details)).encode())

    def _untell(self, id: str) -> None:
        with suppress(FileNotFoundError):
            (self.root / "requests" / f"{id}.json").unlink()


def replay(events: Sequence[Mapping[str, Any]], details: Any) -> dict[str, Request]:
    """The requests that events tell of, by id.

    Parameters
    ----------
    details
        Called with an id: who asked for what.
    """
    found: dict[str, Request] = {}
    for event in events:
        if event["event"] == "received":
            told = details(event["id"])
            found[event["id"]] = Request(
                event["id"], event["kind"], told["user"], event["count"], tuple(told["items"]), event["at"]
            )
        elif event["event"] in ("claimed", "released"):
            status: State = "in_progress" if event["event"] == "claimed" else "pending"
            for id in event["ids"]:
                if found[id].pending:
                    found[id] = replace(found[id], status=status)
        elif event["event"] == "completed":
            for id, withdrawal in event["withdrawals"].items():
                found[id] = found[id].settled(event["at"], withdrawal, gone=not found[id].user)
            for id in event.get("gone", ()):
                found[id] = replace(found[id], user="")
    return found


def same_request(first: Request, again: Request, key: str) -> Request:
    """The first request of a key, if it is the one that is asked for again."""
    alike = (first.kind, first.count) == (again.kind, again.count) and first.user in ("", again.user)
    if not alike or (first.items and first.items != again.items):
        raise SharingError(f"key {key!r} was used for another request ({first.id}): give every request its own")
    return first


def require_pending(requests: Sequence[Request]) -> None:
    """Refuse to work on what is worked on or done already."""
    for request in requests:
        if request.status != "pending":
            raise FolderError(f"request {request.id} is {request.status}: nothing was applied; run again")


def _any_of(withdrawals: Mapping[str, str]) -> str:
    return next(iter(withdrawals.values()), "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
