"""What a trained folder or a model in memory holds, and its form as files: arrays and JSON, nothing pickled.

| half | file | what |
|---|---|---|
| server | `catalog.json` | original ids and titles: position n is code n |
| | `model.safetensors` | the published tables |
| | `memory.safetensors` | exactly `Trained.memory`: what is kept to make unlearning possible |
| | `shared.safetensors` | the shared interactions, by code |
| | `config.json`, `log.jsonl` | settings, seed and run; what was done, in order |
| devices | `private.safetensors`, `test.safetensors` | what the server does not hold; what is held out to measure by |
| | `state.safetensors` | what the devices keep of the run |
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from retract.data import Catalog, Interactions, Sharing
from retract.federation import Arrays
from retract.models.recommender import Recommender
from retract.stores.devices import NEVER, MemoryDevices, States
from retract.stores.local import reader_of
from retract.stores.versions import CONFIG, Content, Version
from retract.systems.base import Memory, Trained
from retract.systems.registry import make_system, system_of
from retract.systems.system import System

MODEL, MEMORY, SHARED, CATALOG = "model.safetensors", "memory.safetensors", "shared.safetensors", "catalog.json"
LOG = "log.jsonl"
PRIVATE, TEST, STATE = "private.safetensors", "test.safetensors", "state.safetensors"
_ROUNDS, _CLIENT_OF = "kept rounds", "client of"


@dataclass(frozen=True)
class Held:
    """Both halves of a model with its data.

    Parameters
    ----------
    trained
        The server's half.
    devices
        What stands for the users' devices; None on a server whose devices are elsewhere.
    test
        Held-out interactions to evaluate on.
    share
        The part that users shared when it was trained; None where each said it one by one.
    version
        The version it was read from; 0 for a model in memory.
    id
        What all versions of one model have in common, and its ledger goes by.
    metrics
        As they were measured last; None where they were not.
    """

    trained: Trained
    devices: MemoryDevices | None
    test: Interactions
    share: float | None = None
    version: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    metrics: Mapping[str, float | None] | None = None

    @property
    def system(self) -> System:
        """The system that made it, with its settings."""
        return system_of(self.trained)

    @property
    def catalog(self) -> Catalog:
        """The ids behind all codes of both halves."""
        return self.trained.shared.catalog

    @property
    def interactions(self) -> Interactions:
        """All that can be known of here: what the devices hold, or without them what is shared."""
        return self.trained.shared if self.devices is None else self.devices.interactions

    @property
    def sharing(self) -> Sharing:
        """What is shared and what, as far as it can be known of here, is private."""
        if self.devices is not None:
            return self.devices.sharing
        return Sharing(self.trained.shared, Interactions.empty(self.catalog))

    def recommender(self) -> Recommender:
        """What users are recommended by: on their devices, or, without these, by the server."""
        return reader_of(self.system, self.trained, self.devices)

    def renamed(self, catalog: Catalog) -> Held:
        """The same codes under the ids of another catalog."""
        devices = self.devices
        if devices is not None:
            sharing = devices.sharing
            parts = {name: replace(getattr(sharing, name), catalog=catalog) for name in ("shared", "private")}
            devices = devices.renamed(replace(sharing, **parts))
        return replace(
            self,
            trained=replace(self.trained, shared=replace(self.trained.shared, catalog=catalog)),
            devices=devices,
            test=replace(self.test, catalog=catalog),
        )


def to_content(
    held: Held, settles: Mapping[str, str] | None = None, more: Mapping[str, bytes] | None = None
) -> Content:
    """The files of a version.

    Parameters
    ----------
    settles
        Requests that it is the answer to, with their withdrawals.
    more
        Further files of the server's half.
    """
    trained = held.trained
    config = {
        "system": trained.system,
        "seed": trained.seed,
        "run": trained.run,
        "settings": trained.config.model_dump(mode="json"),
        "memory_on_devices": trained.memory.on_devices,
    }
    server = {
        CATALOG: catalog_bytes(held.catalog),
        MODEL: tables_bytes(trained.model),
        MEMORY: tables_bytes(trained.memory.tables),
        SHARED: interactions_bytes(trained.shared),
        CONFIG: json.dumps(config, indent=1).encode(),
        LOG: lines(trained.log),
        **(more or {}),
    }
    facts = {
        "users": len(held.interactions.active_users()),
        "items": held.catalog.n_items,
        "shared": len(trained.shared),
        "share": held.share,
        "model": held.id,
        "run": trained.run,
        "metrics": held.metrics,
    }
    if held.devices is None:
        return Content(trained.system, server, facts=facts, settles=settles or {})
    private = held.devices.sharing.private
    devices = {
        PRIVATE: interactions_bytes(private),
        TEST: interactions_bytes(held.test),
        STATE: state_bytes(held.devices, trained.run),
    }
    return Content(trained.system, server, devices, facts, {"private": len(private)}, settles or {})


def read_server(version: Version) -> Trained:
    """The server's half of a version."""
    config = json.loads(version.read(CONFIG))
    memory = Memory(tables_of(version.read(MEMORY)), config["memory_on_devices"])
    return Trained(
        system=config["system"],
        config=make_system(config["system"], config["settings"]).config,
        seed=config["seed"],
        run=config["run"],
        model=tables_of(version.read(MODEL)),
        memory=memory,
        shared=read_shared(version),
        log=tuple(json.loads(line) for line in version.read(LOG).splitlines()),
    )


def read_shared(version: Version) -> Interactions:
    """What a version's server holds, without its model."""
    return interactions_of(version.read(SHARED), catalog_of(version.read(CATALOG)))


def read_devices(version: Version, shared: Interactions, run: str) -> tuple[MemoryDevices, Interactions]:
    """What stands for the devices beside a version of the server's half, and what is held out."""
    private = interactions_of(version.read(PRIVATE), shared.catalog)
    test = interactions_of(version.read(TEST), shared.catalog)
    return devices_of(version.read(STATE), Sharing(shared, private), run), test


def state_bytes(devices: MemoryDevices, run: str) -> bytes:
    """What devices keep of a run, and which of them host which users."""
    states = devices.states.get(run, States({}, np.full(len(devices.hosted), NEVER)))
    groups = {} if devices.sharing.client_of is None else {_CLIENT_OF: devices.sharing.client_of}
    return tables_bytes({**states.rows, _ROUNDS: states.rounds, **groups})


def devices_of(content: bytes, sharing: Sharing, run: str) -> MemoryDevices:
    """The devices that `state_bytes` wrote, with their data."""
    rows = tables_of(content)
    rounds, client_of = rows.pop(_ROUNDS), rows.pop(_CLIENT_OF, None)
    if client_of is not None:
        sharing = replace(sharing, client_of=client_of)
    return MemoryDevices(sharing, {run: States(rows, rounds)})


def state_digests(trained: Trained) -> dict[str, str]:
    """SHA-256 of the files that hold a model and its memory, by name, as they are or would be in a version."""
    tables = {MODEL: trained.model, MEMORY: trained.memory.tables}
    return {name: hashlib.sha256(tables_bytes(content)).hexdigest() for name, content in tables.items()}


def tables_bytes(tables: Arrays) -> bytes:
    """Tables as a safetensors file, in the order of their names."""
    held = {name: np.ascontiguousarray(tables[name]).reshape(np.shape(tables[name])) for name in sorted(tables)}
    return bytes(safetensors.numpy.save(held))


def tables_of(content: bytes) -> dict[str, NDArray[Any]]:
    """What `tables_bytes` wrote."""
    return dict(safetensors.numpy.load(content))


def interactions_bytes(interactions: Interactions) -> bytes:
    """Interactions by code."""
    columns = {
        "user": interactions.users.astype(np.int32),
        "item": interactions.items.astype(np.int32),
        "rating": interactions.ratings,
        "timestamp": interactions.timestamps,
    }
    return tables_bytes({name: column for name, column in columns.items() if column is not None})


def interactions_of(content: bytes, catalog: Catalog) -> Interactions:
    """What `interactions_bytes` wrote."""
    columns = tables_of(content)
    return Interactions.of(catalog, columns["user"], columns["item"], columns.get("rating"), columns.get("timestamp"))


def catalog_bytes(catalog: Catalog) -> bytes:
    """Original ids and titles."""
    titles = None if catalog.titles is None else catalog.titles.tolist()
    names = {"users": catalog.user_ids.tolist(), "items": catalog.item_ids.tolist(), "titles": titles}
    return json.dumps(names, ensure_ascii=False).encode()


def catalog_of(content: bytes) -> Catalog:
    """What `catalog_bytes` wrote."""

    def texts(names: list[str]) -> NDArray[np.str_]:
        return np.array(names, dtype=np.str_)

    names = json.loads(content)
    titles = None if names["titles"] is None else texts(names["titles"])
    return Catalog(texts(names["users"]), texts(names["items"]), titles)


def lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Records as JSON Lines."""
    return "".join(json.dumps(dict(record)) + "\n" for record in records).encode()
