"""Exact in its three forms, and how far its tables are from those of a training that never knew."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions, Sharing
from retract.federation import Arrays
from retract.models.recommender import Recommender
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.base import Kind, Trained
from retract.systems.exact import EXACT, ExactConfig
from retract.systems.exact.closed_form import solve
from retract.systems.system import System

FORMS = ["ease", "filter", "neighbours", "spectral"]
"""The filter by all sums, and by the largest of each item."""
NEIGHBOURS = 7


def exact(form: str, exponent: float = 0.5, ridge: float = 2.0, **settings: object) -> System:
    """Nothing left to be found; a λ so small that mistakes show, and a subspace that leaves some of the items out."""
    kept = NEIGHBOURS if form == "neighbours" else 0
    values = {
        "form": "filter" if kept else form,
        "neighbours": kept,
        "ease_exponent": exponent,
        "filter_beta": exponent,
        "ridge": ridge,
    }
    values |= {"dimension": 8, "degree_prior": 2.0, "blend": 0.5, "popularity": 0.25}
    return EXACT(ExactConfig.model_validate({**values, **settings}))


def train(system: System, data: Interactions, share: Any = 1.0) -> tuple[Trained, MemoryDevices]:
    devices = MemoryDevices(Sharing.by_ratio(data, share))
    return system.server.train(devices.sharing.shared, engine_of(system, devices), seed=0), devices


def unlearn(
    system: System, trained: Trained, devices: MemoryDevices, forget: Interactions, kind: Kind = "unshare"
) -> tuple[Trained, MemoryDevices]:
    after, withdrawal = withdraw(devices, kind, forget)
    return system.server.unlearn(trained, withdrawal, engine_of(system, after), seed=0), after


def reader(system: System, trained: Trained, devices: MemoryDevices) -> Recommender:
    return reader_of(system, trained, devices)


def copied(model: Arrays) -> dict[str, NDArray[Any]]:
    return {name: table.copy() for name, table in model.items()}


def assert_same_tables(got: Arrays, want: Arrays, inverse: float = 0.0) -> None:
    """To the last bit, types and structure included, but for P: that one to a relative Frobenius distance."""
    assert set(got) == set(want)
    for name, table in want.items():
        assert got[name].shape == table.shape, name
        assert got[name].dtype == table.dtype, name
        if name == "inverse" and inverse:
            assert np.linalg.norm(got[name] - table) <= inverse * np.linalg.norm(table)
        else:
            np.testing.assert_array_equal(got[name], table, err_msg=name)


def assert_never_knew(system: System, trained: Trained, within: float = 1e-9) -> None:
    """The tables are those of a training on what the server still holds."""
    assert isinstance(system.config, ExactConfig)
    assert_same_tables(trained.model, solve(trained.shared, system.config).model, within)
