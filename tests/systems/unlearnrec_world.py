"""Small models of UnlearnRec that are ready to forget, each made once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions, Sharing
from retract.federation import LocalEngine
from retract.stores.devices import MemoryDevices
from retract.systems.base import Trained, Withdrawal
from retract.systems.unlearnrec import UnlearnRecConfig
from retract.systems.unlearnrec.server import UnlearnRecServer
from tests.auditing.worlds import clustered

BACKBONES = ["lightgcn", "sgl", "simgcl"]
FORMS = ["calibrated", "paper"]
DATA = clustered().interactions
ENGINE = LocalEngine(MemoryDevices(Sharing.by_ratio(DATA, 1.0)), {})
SMALL = {"dimension": 8, "epochs": 20, "layers": 2, "contrasted": 64, "pretrain_steps": 3}
FIXED = {"rate": 0.03, "regularisation": 0.002, "temperature": 0.2, "edge_dropout": 0.1, "noise": 0.1}
"""Of every backbone, whatever its defaults may become."""


def system_with(**settings: object) -> UnlearnRecServer:
    return UnlearnRecServer(UnlearnRecConfig.model_validate({**FIXED, **SMALL, **settings}))


@cache
def trained_with(seed: int = 0, **settings: object) -> tuple[UnlearnRecServer, Trained]:
    """A model that cannot forget yet."""
    system = system_with(**settings)
    return system, system.train(DATA, ENGINE, seed=seed)


@cache
def ready_with(seed: int = 0, **settings: object) -> tuple[UnlearnRecServer, Trained]:
    """A model with its encoder."""
    system, trained = trained_with(seed, **settings)
    return system, system.prepare(trained, ENGINE, seed=seed)


def some_edges(seed: int = 0, part: float = 0.05) -> Interactions:
    return DATA.where(np.random.default_rng(seed).random(len(DATA)) < part)


def without(system: UnlearnRecServer, trained: Trained, forget: Interactions, seed: int = 0) -> Trained:
    """The model after a request."""
    withdrawal = Withdrawal("unshare", forget, np.unique(forget.users))
    return system.unlearn(trained, withdrawal, ENGINE, seed=seed)


def encoder_of(trained: Trained) -> dict[str, NDArray[Any]]:
    """The weights of the encoder in a memory."""
    return {name: table for name, table in trained.memory.tables.items() if name.startswith("encoder.")}


def same(one: object, other: object) -> bool:
    """Whether two mappings hold the same arrays, bit for bit."""
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    return one.keys() == other.keys() and all(np.array_equal(table, other[name]) for name, table in one.items())
