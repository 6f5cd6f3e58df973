"""The trained folder: what a server holds, what its clients hold, and the requests between them.

```
DIR/
  manifest.json            layout version, retract version, system, SHA-256 of every file
  requests.jsonl           what users asked to have withdrawn, pending and applied
  server/                  all that the server holds
    users.parquet  items.parquet     original ids (and titles): row n is code n
    model.safetensors      the published tables
    memory.safetensors     exactly `Trained.memory`: what is kept to make unlearning possible
    shared.parquet         the shared interactions, by code
    config.json  log.jsonl
  clients/                 what stands for the users' own devices; absent where these are real
    private.parquet  test.parquet  state.safetensors
```

Nothing is pickled. `retract.systems.storage` replaces the folder as a whole, so a kill leaves the old or the new.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.torch
import torch
from torch import Tensor

from retract.data import Catalog, Interactions, Sharing
from retract.errors import FolderError
from retract.federation import Clients
from retract.models.recommender import Recommender
from retract.systems import storage
from retract.systems.base import Kind, Memory, System, Trained
from retract.systems.registry import make_system
from retract.systems.storage import Manifest, locked

REQUESTS = "requests.jsonl"
_STARTED, _CLIENT_OF = "started", "client_of"


@dataclass(frozen=True)
class Request:
    """What one user wants withdrawn.

    Parameters
    ----------
    id, kind, user
        UUID; "unshare" or "erase"; the user's original id.
    count
        How many interactions.
    items
        Original ids of their items while pending; empty once applied, for a record of the forgotten is not forgetting.
    received, applied
        UTC, ISO 8601; `applied` is None while pending.
    withdrawal
        Once applied, the id of the withdrawal that it was a part of, as in the server's log.
    """

    id: str
    kind: Kind
    user: str
    count: int
    items: tuple[str, ...]
    received: str
    applied: str | None = None
    withdrawal: str | None = None

    @property
    def pending(self) -> bool:
        """Whether it has still to be applied."""
        return self.applied is None

    def settled(self, applied: str, withdrawal: str) -> Request:
        """The record that stays once it was applied: the count, and no item."""
        return replace(self, items=(), applied=applied, withdrawal=withdrawal)


@dataclass(frozen=True)
class TrainedFolder:
    """Both halves of a trained folder, as they were read.

    Parameters
    ----------
    trained
        The server's half.
    clients
        The users' half.
    test
        Held-out interactions to evaluate on.
    requests
        In the order received.
    manifest
        What the folder held when it was read.
    """

    trained: Trained
    clients: Clients
    test: Interactions
    requests: tuple[Request, ...]
    manifest: Manifest

    @property
    def system(self) -> System:
        """The system that made it, with its settings."""
        return make_system(self.trained.system, self.trained.config.model_dump())

    @property
    def catalog(self) -> Catalog:
        """The ids behind all codes of both halves."""
        return self.trained.shared.catalog

    @property
    def pending(self) -> tuple[Request, ...]:
        """The requests that `unlearn` has still to apply."""
        return tuple(request for request in self.requests if request.pending)

    def renamed(self, catalog: Catalog) -> TrainedFolder:
        """The same codes under the ids of another catalog."""
        sharing = self.clients.sharing
        parts = {name: replace(getattr(sharing, name), catalog=catalog) for name in ("shared", "private")}
        renamed = replace(sharing, **parts)
        return replace(
            self,
            trained=replace(self.trained, shared=replace(self.trained.shared, catalog=catalog)),
            clients=Clients(renamed, self.clients.state, self.clients.started),
            test=replace(self.test, catalog=catalog),
        )

    def recommender(self) -> Recommender:
        """What the clients compute from the published model."""
        return self.system.recommender(self.trained, self.clients)


def save(path: Path, trained: Trained, clients: Clients, test: Interactions, *, force: bool = False) -> None:
    """Write a new trained folder, without requests.

    Raises
    ------
    FolderError
        If the folder holds anything and `force` is not given.
    """
    folder = path.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder, "create"):
        storage.require_replaceable(folder, force)
        files = {**_catalog_files(trained.shared.catalog), **_state_files(trained, clients, test)}
        storage.swap_in(folder, trained.system, {**files, REQUESTS: b""})


def load(path: Path) -> TrainedFolder:
    """Read and check a trained folder.

    Raises
    ------
    FolderError
        If it is not one, of another version, incomplete or damaged; the message names the file.
    """
    folder = path.resolve()
    with locked(folder, "read"):
        return _read(folder)


def load_server(path: Path) -> Trained:
    """Read and check the server's half alone; `clients/` may be absent. Errors as in `load`."""
    folder = path.resolve()
    with locked(folder, "read"):
        return _read_server(_Reader(folder))


def replace_state(
    path: Path,
    before: TrainedFolder,
    after: TrainedFolder,
    settle: Callable[[Request], Request],
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Put `after` in the place of `before`, but for the requests: these are the folder's own, those new since included.

    Parameters
    ----------
    settle
        Applied to every request that the folder holds by now.
    files
        Written with it, by path inside the folder.

    Raises
    ------
    FolderError
        If somebody else replaced the state since `before` was read; nothing is written.
    """
    folder = path.resolve()
    with locked(folder, "change"):
        reader = _Reader(folder)
        if _without_requests(reader.manifest) != _without_requests(before.manifest):
            raise FolderError(f"{folder} was changed by somebody else in the meantime; nothing was applied: run again")
        requests = _requests_file(settle(request) for request in _read_requests(reader))
        state = _state_files(after.trained, after.clients, after.test)
        if not after.catalog.same_as(before.catalog):
            state |= _catalog_files(after.catalog)
        storage.swap_in(folder, after.trained.system, {**state, **requests, **(files or {})}, keep=reader.manifest)


def read_lines(path: Path, name: str) -> list[dict[str, Any]]:
    """The records of a JSON Lines file of a trained folder, checked; none where there is no such file."""
    folder = path.resolve()
    with locked(folder, "read"):
        reader = _Reader(folder)
        return reader.lines(name) if name in reader.manifest.files else []


def state_digests(trained: Trained) -> dict[str, str]:
    """SHA-256 of the files that hold a model and its memory, by path, as they are or would be in a folder."""
    tables = {"server/model.safetensors": trained.model, "server/memory.safetensors": trained.memory.tensors}
    return {name: hashlib.sha256(_tensors(content)).hexdigest() for name, content in tables.items()}


def append_request(path: Path, choose: Callable[[TrainedFolder], Request]) -> tuple[Request, int]:
    """Add the request that `choose` makes of the folder's content; return it and how many are now pending.

    The folder is held meanwhile, so what `choose` has checked is still so when the request is written.
    """
    folder = path.resolve()
    with locked(folder, "change"):
        held = _read(folder)
        request = choose(held)
        files = _requests_file([*held.requests, request])
        storage.swap_in(folder, held.trained.system, files, keep=held.manifest)
    return request, len(held.pending) + 1


class _Reader:
    """Reads a folder's files, each checked against the manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = storage.read_manifest(folder)

    def bytes(self, name: str) -> bytes:
        return storage.read_file(self.folder, self.manifest, name)

    def tensors(self, name: str) -> dict[str, Tensor]:
        return safetensors.torch.load(self.bytes(name))

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(self.bytes(name)))

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.bytes(name).splitlines()]

    def interactions(self, name: str, catalog: Catalog) -> Interactions:
        columns = self.table(name).to_dict()
        values = {column: series.to_numpy() for column, series in columns.items()}
        return Interactions.of(catalog, values["user"], values["item"], values.get("rating"), values.get("timestamp"))


def _read(folder: Path) -> TrainedFolder:
    reader = _Reader(folder)
    trained = _read_server(reader)
    catalog = trained.shared.catalog
    state = reader.tensors("clients/state.safetensors")
    started, client_of = state.pop(_STARTED), state.pop(_CLIENT_OF, None)
    private = reader.interactions("clients/private.parquet", catalog)
    sharing = Sharing(trained.shared, private, None if client_of is None else client_of.numpy())
    test = reader.interactions("clients/test.parquet", catalog)
    return TrainedFolder(trained, Clients(sharing, state, started), test, _read_requests(reader), reader.manifest)


def _read_server(reader: _Reader) -> Trained:
    config = json.loads(reader.bytes("server/config.json"))
    return Trained(
        system=config["system"],
        config=make_system(config["system"], config["settings"]).config,
        seed=config["seed"],
        model=reader.tensors("server/model.safetensors"),
        memory=Memory(reader.tensors("server/memory.safetensors")),
        shared=reader.interactions("server/shared.parquet", _read_catalog(reader)),
        log=tuple(reader.lines("server/log.jsonl")),
    )


def _read_catalog(reader: _Reader) -> Catalog:
    def texts(column: pl.Series) -> np.ndarray[Any, np.dtype[np.str_]]:
        return np.array(column.to_list(), dtype=np.str_)

    items = reader.table("server/items.parquet")
    titles = texts(items["title"]) if "title" in items.columns else None
    return Catalog(texts(reader.table("server/users.parquet")["id"]), texts(items["id"]), titles)


def _read_requests(reader: _Reader) -> tuple[Request, ...]:
    return tuple(Request(**{**fields, "items": tuple(fields["items"])}) for fields in reader.lines(REQUESTS))


def _catalog_files(catalog: Catalog) -> dict[str, bytes]:
    titles = {} if catalog.titles is None else {"title": catalog.titles.tolist()}
    items = pl.DataFrame({"id": catalog.item_ids.tolist(), **titles}, schema_overrides={"id": pl.String})
    users = pl.DataFrame({"id": catalog.user_ids.tolist()}, schema_overrides={"id": pl.String})
    return {"server/users.parquet": _parquet(users), "server/items.parquet": _parquet(items)}


def _state_files(trained: Trained, clients: Clients, test: Interactions) -> dict[str, bytes]:
    client_of = clients.sharing.client_of
    groups = {} if client_of is None else {_CLIENT_OF: torch.from_numpy(client_of)}
    config = {"system": trained.system, "seed": trained.seed, "settings": trained.config.model_dump(mode="json")}
    return {
        "server/model.safetensors": _tensors(trained.model),
        "server/memory.safetensors": _tensors(trained.memory.tensors),
        "server/shared.parquet": _table(trained.shared),
        "server/config.json": json.dumps(config, indent=1).encode(),
        "server/log.jsonl": _lines(trained.log),
        "clients/private.parquet": _table(clients.sharing.private),
        "clients/test.parquet": _table(test),
        "clients/state.safetensors": _tensors({**clients.state, _STARTED: clients.started, **groups}),
    }


def _requests_file(requests: Iterable[Request]) -> dict[str, bytes]:
    return {REQUESTS: _lines(asdict(request) for request in requests)}


def _without_requests(manifest: Manifest) -> dict[str, str]:
    return {name: digest for name, digest in manifest.files.items() if name != REQUESTS}


def _lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(dict(record)) + "\n" for record in records).encode()


def _tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Cloned first: safetensors refuses tables that share memory."""
    content = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    return bytes(safetensors.torch.save(content))


def _table(interactions: Interactions) -> bytes:
    columns = {
        "user": interactions.users,
        "item": interactions.items,
        "rating": interactions.ratings,
        "timestamp": interactions.timestamps,
    }
    return _parquet(pl.DataFrame({name: column for name, column in columns.items() if column is not None}))


def _parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()
