"""Small FedShare trainings that several tests share."""

import numpy as np

from retract.data import Sharing
from retract.federation import LocalEngine
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, withdraw
from retract.systems.base import Trained
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from tests.samples import checkerboard

SYSTEM = FEDSHARE(FedShareConfig(dimension=16))
PAPER = FEDSHARE(FedShareConfig(form="paper", dimension=16, rounds=30))
TRAIN, TEST = checkerboard()


def train(ratio=0.5, seed: int = 0, system=SYSTEM, **options) -> tuple[Trained, MemoryDevices]:
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, ratio))
    engine = LocalEngine(devices, system.device.tasks, **options)
    return system.server.train(devices.sharing.shared, engine, seed=seed), devices


def assert_same_tables(one, other, rtol=1e-5, atol=1e-6) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        np.testing.assert_allclose(table, other[name], rtol=rtol, atol=atol)


def copied(tables) -> dict:
    return {name: table.copy() for name, table in tables.items()}


def forget_users(
    trained: Trained, devices: MemoryDevices, kind="unshare", method=SYSTEM, users=(0, 1, 2, 3), **options
):
    """Everything that the users shared (unshare) or have (erase)."""
    source = trained.shared if kind == "unshare" else devices.interactions
    after, withdrawal = withdraw(devices, kind, source.of_users(list(users)))
    return method.server.unlearn(trained, withdrawal, engine_of(method, after, **options), seed=5), after, withdrawal
