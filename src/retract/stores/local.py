"""A federation on one machine: a system, its devices in memory, and how the two meet. For the bench alone."""

from __future__ import annotations

import numpy as np

from retract.data import Interactions
from retract.federation import NOTHING_KEPT, Engine, LocalEngine, NoDevices
from retract.models.recommender import Recommender
from retract.stores.devices import MemoryDevices
from retract.systems.base import Kind, Trained, Withdrawal
from retract.systems.system import System


def engine_of(system: System, devices: MemoryDevices | None, *, dropout: float = 0.0) -> Engine:
    """An engine that runs a system's client tasks on these devices; one that reaches nobody where there are none."""
    return NoDevices() if devices is None else LocalEngine(devices, system.device.tasks, dropout=dropout)


def reader_of(system: System, trained: Trained, devices: MemoryDevices | None, *, state: bool = True) -> Recommender:
    """What the devices recommend by; without devices, what the server can.

    Parameters
    ----------
    state
        Whether the readers have what devices keep between rounds; without it, their histories alone.
    """
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
