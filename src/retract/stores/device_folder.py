"""Devices in a folder of their own: what a node of a real federation keeps of the users whose data it holds.

```
ROOT/current                   which files hold by now, each with its SHA-256
ROOT/N.catalog.json            items, and the ids of the hosted users alone: the others' are not this node's business
ROOT/N.shared.safetensors, N.private.safetensors     the hosted users' interactions, and which of them are shared
ROOT/N.state.safetensors       what the clients keep: state by run, what stood before the last round, journals
```

A file never changes: what is new is written beside it under the next number, and then the pointer is replaced. A kill
at any moment leaves what was or what is new, and nothing older stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.atomic import write_atomically, write_new
from retract.data import Catalog, Interactions, Sharing
from retract.errors import FolderError
from retract.federation import ClientState, ClientTask, Cohort, Kept, Reply, TaskSpec
from retract.stores.devices import MemoryDevices, States
from retract.stores.held import interactions_bytes, interactions_of, tables_bytes, tables_of
from retract.stores.locking import locked
from retract.stores.manifest import sha256

CURRENT, LOCK = "current", "lock"
CATALOG, SHARED, PRIVATE, STATE = "catalog.json", "shared.safetensors", "private.safetensors", "state.safetensors"
FORMAT = 1


class FolderDevices:
    """A `DeviceStore` in a folder: all that it keeps is on the disk when a method returns, and outlives its process.

    One process at a time may change it; another one that tries is refused.

    Parameters
    ----------
    path
        A folder that `create` made.

    Raises
    ------
    FolderError
        If there is none, or it is damaged; the message names the file.
    """

    _memory: MemoryDevices
    _pointed: dict[str, tuple[str, str]]

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._open()

    @classmethod
    def create(cls, path: Path, sharing: Sharing) -> FolderDevices:
        """Devices that hold these users' data, and have taken part in nothing yet.

        Parameters
        ----------
        path
            A folder that does not exist yet, or an empty one; or what a kill left of making one.
        sharing
            The users' data; who holds nothing is not hosted.

        Raises
        ------
        FolderError
            If the folder holds anything.
        """
        if path.exists() and (not path.is_dir() or not all(_is_unfinished(file) for file in path.iterdir())):
            raise FolderError(f"{path} holds something already: give the devices a folder of their own")
        made = cls.__new__(cls)
        made.path, made._pointed = path.resolve(), {}
        made._keep_all(MemoryDevices(sharing))
        made._open()
        return made

    @property
    def sharing(self) -> Sharing:
        """The hosted users' data; its catalog names no other users."""
        return self._memory.sharing

    @property
    def interactions(self) -> Interactions:
        """All that the hosted users hold, shared and private alike."""
        return self._memory.interactions

    @property
    def users(self) -> NDArray[np.int64]:
        """Codes of the hosted users, ascending."""
        return self._memory.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user; -1 for one who is not hosted here, where clients have several users."""
        return self._memory.clients_of(users)

    def cohorts(self, spec: TaskSpec, users: NDArray[np.int64], interactions: int) -> Iterator[Cohort]:
        """The users' data; see `DeviceStore`."""
        return self._memory.cohorts(spec, users, interactions)

    def state(self, task: ClientTask, spec: TaskSpec, round: int, cohort: Cohort, seed: int) -> ClientState:
        """The state of a cohort's clients before a round; see `DeviceStore`."""
        return self._memory.state(task, spec, round, cohort, seed)

    def keep(self, spec: TaskSpec, round: int, cohort: Cohort, reply: Reply) -> None:
        """Keep the clients' new state, and what they write to their journals.

        Raises
        ------
        FolderError
            If another process changed the folder; nothing is kept.
        """
        self._memory.keep(spec, round, cohort, reply)
        if reply.state or reply.journal is not None:
            self._write({STATE: _state_bytes(self._memory)})

    def kept(self, run: str) -> Kept:
        """What the hosted clients keep of a run."""
        return self._memory.kept(run)

    def forget_runs(self, but: str) -> None:
        """Drop what is kept of every other run; errors as of `keep`."""
        self._memory.forget_runs(but)
        self._write({STATE: _state_bytes(self._memory)})

    def unshare(self, forget: Interactions) -> None:
        """Move `forget`, over this store's catalog, from shared to private: state stays; errors as of `erase`."""
        self._keep_all(self._memory.unshare(forget))

    def erase(self, forget: Interactions) -> None:
        """Drop `forget`, over this store's catalog; a client that erased anything starts anew.

        Raises
        ------
        SharingError
            If something is not there to be withdrawn, named per item; nothing is applied.
        FolderError
            If another process changed the folder; nothing is applied.
        """
        self._keep_all(self._memory.erase(forget))

    def with_sharing(self, sharing: Sharing) -> None:
        """Hold other data, over this store's catalog or one that appends to it; see `MemoryDevices.with_sharing`."""
        self._keep_all(self._memory.with_sharing(sharing))

    def recode(self, catalog: Catalog) -> None:
        """Hold the same under another catalog's codes; see `MemoryDevices.recoded`. Errors as of `erase`."""
        self._keep_all(self._memory.recoded(catalog))

    def in_memory(self) -> MemoryDevices:
        """The same devices in memory, to be looked at."""
        return self._memory.copy()

    def _keep_all(self, memory: MemoryDevices) -> None:
        sharing = memory.sharing
        self._write(
            {
                CATALOG: _catalog_bytes(sharing.shared.catalog, memory.users),
                SHARED: interactions_bytes(sharing.shared),
                PRIVATE: interactions_bytes(sharing.private),
                STATE: _state_bytes(memory),
            }
        )
        self._memory = memory

    def _write(self, files: Mapping[str, bytes]) -> None:
        """Write some files anew and point to them; what is in memory is then what is on the disk, whatever happens."""
        try:
            with locked(self.path / LOCK):
                if _pointer(self.path) != self._pointed:
                    raise FolderError(
                        f"{self.path} was changed by another process; nothing was kept: let one alone work on it"
                    )
                self._clean()
                number = 1 + max((int(name.split(".")[0]) for name, _ in self._pointed.values()), default=0)
                pointed = dict(self._pointed)
                for kind, content in files.items():
                    pointed[kind] = (f"{number}.{kind}", sha256(content))
                    write_new(self.path / pointed[kind][0], content)
                write_atomically(self.path / CURRENT, json.dumps({"format": FORMAT, "files": pointed}).encode())
                self._pointed = pointed
                self._clean()
        except BaseException:
            if self._pointed:
                self._open()
            raise

    def _clean(self) -> None:
        """Remove what was replaced, and what a killed process left."""
        stays = {CURRENT, LOCK, *(name for name, _ in self._pointed.values())}
        for path in self.path.iterdir():
            if _is_unfinished(path) and path.name not in stays:
                path.unlink()

    def _open(self) -> None:
        self._pointed = _pointer(self.path)
        if not self._pointed:
            raise FolderError(f"{self.path} holds no devices: `FolderDevices.create` makes some")
        catalog = _catalog_of(self._read(CATALOG))
        shared, private = (interactions_of(self._read(kind), catalog) for kind in (SHARED, PRIVATE))
        self._memory = _with_state(Sharing(shared, private), self._read(STATE))

    def _read(self, kind: str) -> bytes:
        name, digest = self._pointed[kind]
        try:
            content = (self.path / name).read_bytes()
        except FileNotFoundError:
            raise FolderError(f"{self.path / name} is missing: restore it") from None
        if (found := sha256(content)) != digest:
            raise FolderError(
                f"{self.path / name} is damaged: its SHA-256 is {found[:12]}, {CURRENT} has {digest[:12]}; restore it"
            )
        return content


def _is_unfinished(path: Path) -> bool:
    """Whether a file is of devices, and nothing without the pointer."""
    number, _, kind = path.name.partition(".")
    data = number.isdecimal() and kind in (CATALOG, SHARED, PRIVATE, STATE)
    return data or path.name == LOCK or path.name.startswith(f".{CURRENT}.")


def _pointer(path: Path) -> dict[str, tuple[str, str]]:
    """By kind, the file that holds and its SHA-256; empty where there is nothing yet."""
    try:
        found = json.loads((path / CURRENT).read_bytes())
        if found["format"] != FORMAT:
            raise FolderError(f"{path} has format {found['format']!r}, and this retract reads {FORMAT}")
        return {kind: (str(name), str(digest)) for kind, (name, digest) in found["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FolderError(f"{path / CURRENT} is damaged, or not ours: restore it") from None


def _state_bytes(memory: MemoryDevices) -> bytes:
    """What the clients keep, and, where a client has several users, who is whose."""
    tables: dict[str, NDArray[Any]] = {}

    def put(value: NDArray[Any], *key: object) -> None:
        tables[json.dumps(key)] = value

    if memory.sharing.client_of is not None:
        put(memory.users, "users")
        put(memory.clients_of(memory.users), "clients")
    for run, states in memory.states.items():
        put(states.rounds, "rounds", run)
        for name, rows in states.rows.items():
            put(rows, "rows", run, name)
        if states.last is not None:
            put(np.asarray(states.last[0]), "last", run, states.last[1])
        for name, rows in states.previous.items():
            put(rows, "previous", run, name)
    for (run, round), written in memory.journals.items():
        for number, columns in enumerate(written):
            for name, column in columns.items():
                put(column, "journal", run, round, number, name)
    return tables_bytes(tables)


def _with_state(sharing: Sharing, content: bytes) -> MemoryDevices:
    """The devices that `_state_bytes` wrote."""
    tables = {tuple(json.loads(key)): table for key, table in tables_of(content).items()}
    if ("users",) in tables:
        client_of = np.full(sharing.shared.n_users, -1, dtype=np.int64)
        client_of[tables.pop(("users",))] = tables.pop(("clients",))
        sharing = Sharing(sharing.shared, sharing.private, client_of)
    states: dict[str, States] = {}
    journals: dict[tuple[str, int], dict[int, dict[str, NDArray[Any]]]] = {}
    for (what, run, *key), table in tables.items():
        if what == "journal":
            round, number, name = key
            journals.setdefault((run, round), {}).setdefault(number, {})[name] = table
            continue
        kept = states.setdefault(run, States())
        if what == "rounds":
            kept.rounds = table
        elif what == "last":
            kept.last = int(table), key[0]
        else:
            (kept.rows if what == "rows" else kept.previous)[key[0]] = table
    written = {key: [parts[number] for number in sorted(parts)] for key, parts in journals.items()}
    return MemoryDevices(sharing, states, written)


def _catalog_bytes(catalog: Catalog, users: NDArray[np.int64]) -> bytes:
    """Items, how many users there are, and the ids of some of them."""
    names = dict(zip(users.tolist(), catalog.user_ids[users].tolist(), strict=True))
    titles = None if catalog.titles is None else catalog.titles.tolist()
    fields = {"n_users": catalog.n_users, "users": names, "items": catalog.item_ids.tolist(), "titles": titles}
    text: str = json.dumps(fields, ensure_ascii=False)
    return text.encode()


def _catalog_of(content: bytes) -> Catalog:
    """The catalog that `_catalog_bytes` wrote; empty text stands for the users that it does not name."""
    fields = json.loads(content)
    width = max((len(name) for name in fields["users"].values()), default=1)
    user_ids = np.zeros(fields["n_users"], dtype=f"<U{max(width, 1)}")
    for code, name in fields["users"].items():
        user_ids[int(code)] = name
    titles = None if fields["titles"] is None else np.array(fields["titles"], dtype=np.str_)
    return Catalog(user_ids, np.array(fields["items"], dtype=np.str_), titles)
