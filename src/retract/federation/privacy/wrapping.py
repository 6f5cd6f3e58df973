"""What engines around other engines need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from retract.federation.contracts import Broadcast, Engine, RoundResult, TaskSpec

Kind = TypeVar("Kind")


def engine_within(engine: object, kind: type[Kind]) -> Kind | None:
    """The outermost engine of a kind among an engine and those within it; None where there is none."""
    seen: object = engine
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = getattr(seen, "engine", None)
    return None


def hiding(engine: object) -> str | None:
    """The kind of the outermost engine within that gives sums only, and no single client's update."""
    seen: object = engine
    while seen is not None:
        if getattr(seen, "sums_only", False):
            return type(seen).__name__
        seen = getattr(seen, "engine", None)
    return None


def users_by_client(engine: Engine, users: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The users of each client, clients ascending."""
    asked = np.asarray(users, dtype=np.int64)
    clients = engine.clients_of(asked)
    return {int(client): asked[clients == client] for client in np.unique(clients)}


def one_by_one(
    engine: Engine, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], seed: int
) -> Iterator[tuple[int, RoundResult]]:
    """Each client's own result, one after the other."""
    for client, own in users_by_client(engine, users).items():
        yield client, engine.run(spec, broadcast, own, seed=seed)
