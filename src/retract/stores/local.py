"""A federation on one machine: a system, its devices in memory, and how the two meet. For the bench alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retract.data import Interactions
from retract.federation import NOTHING_KEPT, Engine, LocalEngine, NoDevices
from retract.models.recommender import KnowsNothing, Recommender
from retract.stores.devices import MemoryDevices
from retract.systems.abilities import learnt_from
from retract.systems.base import (
    Checkpoint,
    Keep,
    Kind,
    Memory,
    Progress,
    Trained,
    Withdrawal,
    keep_nothing,
    new_run,
    no_progress,
)
from retract.systems.system import System


def engine_of(system: System, devices: MemoryDevices | None, *, dropout: float = 0.0) -> Engine:
    """An engine that runs a system's client tasks on these devices; one that reaches nobody where there are none."""
    return NoDevices() if devices is None else LocalEngine(devices, system.device.tasks, dropout=dropout)


def begun(
    system: System,
    shared: Interactions,
    devices: MemoryDevices | None,
    engine: Engine,
    *,
    seed: int,
    resume_from: Checkpoint | None = None,
    keep: Keep = keep_nothing,
    progress: Progress = no_progress,
) -> Trained:
    """A model from nothing; where there is nothing to learn from, one without a table, which knows nothing."""
    if nothing_to_learn(system, shared, devices):
        return Trained(system.name, system.config, seed, new_run(), {}, Memory({}), shared, ({"stage": "train"},))
    return system.server.train(shared, engine, seed=seed, resume_from=resume_from, keep=keep, progress=progress)


def nothing_to_learn(system: System, shared: Interactions, devices: MemoryDevices | None) -> bool:
    """Whether nothing is there that a system learns from. Of devices that are elsewhere nobody here knows that."""
    if learnt_from(system.server, "erase") == "everything":
        return devices is not None and not len(devices.interactions)
    return not len(shared)


def emptied(trained: Trained, withdrawal: Withdrawal) -> Trained:
    """The model after a withdrawal of all that it could learn from: no table, no memory, a run of its own."""
    record = {"stage": "unlearn", "request": withdrawal.request_id, "method": "nothing is left to learn from"}
    shared = trained.shared - withdrawal.forget
    return replace(trained, run=new_run(), model={}, memory=Memory({}), shared=shared, log=(*trained.log, record))


def reader_of(system: System, trained: Trained, devices: MemoryDevices | None, *, state: bool = True) -> Recommender:
    """What the devices recommend by; without devices, what the server can.

    Parameters
    ----------
    state
        Whether the readers have what devices keep between rounds; without it, their histories alone.
    """
    if not trained.model:
        return KnowsNothing()
    if devices is None:
        return system.server.recommender(trained)
    return system.device.reader(trained.published, devices.kept(trained.run) if state else NOTHING_KEPT)


def withdraw(
    devices: MemoryDevices, kind: Kind, forget: Interactions, **fields: str
) -> tuple[MemoryDevices, Withdrawal]:
    """Part a user's request in two: what the devices do themselves, and what the server is told.

    Parameters
    ----------
    forget
        What the users withdraw. For "erase" it may hold private interactions; these never reach the server.
    fields
        `request_id` and `time` of the withdrawal.

    Raises
    ------
    SharingError
        If something is withdrawn that is not there, named per item; nothing is applied.
    """
    after = devices.unshare(forget) if kind == "unshare" else devices.erase(forget)
    told = devices.sharing.shared & forget
    return after, Withdrawal(kind, told, np.unique(forget.users), **fields)
