"""Updates, engines and tasks that several tests of privacy share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retract.data import Sharing
from retract.federation import (
    Broadcast,
    ClientState,
    Cohort,
    LocalEngine,
    Reply,
    TaskMakers,
    TaskSpec,
    TensorSpec,
    Update,
    UpdateSpec,
    payload_bytes,
)
from retract.stores.devices import MemoryDevices
from tests.samples import random_interactions

UNIT = 2.0**-30
SPEC = UpdateSpec(
    {
        "table": TensorSpec((15, 3), "float32", layout="rows", bound=2.0),
        "gram": TensorSpec((4, 4), "float64", layout="triangle", unit=UNIT, bound=8.0),
        "count": TensorSpec((), "int64", bound=100.0),
    }
)


def update_of(seed: int, scale: float = 1.0) -> Update:
    """One client's, within the bounds at scale 1."""
    draw = np.random.default_rng(seed)
    half = np.rint(scale * draw.normal(size=(4, 4)) / 4 / UNIT) * UNIT
    table = np.where(draw.random((15, 1)) < 0.5, draw.normal(size=(15, 3)), 0)
    return Update(
        SPEC,
        {
            "table": (scale * 0.2 * table).astype(np.float32),
            "gram": np.triu(half) + np.triu(half, 1).T,
            "count": np.asarray(int(scale * draw.integers(1, 100))),
        },
        1,
    )


class Sums:
    """What `update_of` gives for each user, summed; keeps nothing (a `ClientTask`)."""

    def __init__(self, spec: TaskSpec) -> None:
        self.update = spec.update

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        found = [update_of(int(user)) for user in cohort.users]
        sent = np.array([payload_bytes(each) for each in found])[: cohort.n_clients]
        total = self.update.zeros()
        for each in found:
            total = total + each
        return Reply(replace(total, clients=cohort.n_clients), {}, sent)


ASKED = TaskSpec("tests", "sums", {}, "run", SPEC)


def engine_with(
    n_users: int = 40, tasks: TaskMakers | None = None, dropout: float = 0.0, clients: int | None = None
) -> LocalEngine:
    """The local engine over users who answer as `update_of` says."""
    sharing = Sharing.by_ratio(random_interactions(0, n_users, density=0.6), 0.5)
    devices = MemoryDevices(sharing if clients is None else sharing.held_by(clients))
    return LocalEngine(devices, tasks or {"sums": Sums}, dropout=dropout)


def run(engine, round: int = 0, seed: int = 0, users=None):
    """One round of everybody."""
    return engine.run(ASKED, Broadcast(round, {}), engine.users if users is None else users, seed=seed)
