"""A system that prepares to forget, and counts how often it did what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from retract.data import Interactions
from retract.errors import ConfigError
from retract.federation import Engine
from retract.models.recommender import Recommender
from retract.systems import registry
from retract.systems.base import Checkpoint, Keep, Memory, Progress, Trained, Withdrawal, keep_nothing, no_progress
from retract.systems.exact import ExactConfig
from retract.systems.exact.server import NAME, ExactServer
from retract.systems.system import SystemType


class Preparing(ExactServer):
    """Exact's, but that it forgets only with an encoder in its memory, made for the model it has."""

    def __init__(self, config: ExactConfig | None = None) -> None:
        super().__init__(ExactConfig(form="ease") if config is None else config)
        self.calls: Counter[str] = Counter()

    def train(
        self,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        resume_from: Checkpoint | None = None,
        keep: Keep = keep_nothing,
        progress: Progress = no_progress,
    ) -> Trained:
        self.calls["train"] += 1
        return replace(super().train(shared, engine, seed=seed, progress=progress), system=PREPARING.name)

    def prepare(self, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        self.calls["prepare"] += 1
        return replace(trained, memory=Memory({"encoder": np.full(10, seed, np.float32)}))

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        self.calls["unlearn"] += 1
        if "encoder" not in trained.memory.tables:
            raise ConfigError("nothing was prepared to forget by")
        after = super().unlearn(_as_exact(trained), withdrawal, engine, seed=seed, progress=progress)
        return replace(after, system=PREPARING.name, memory=trained.memory)

    def recommender(self, trained: Trained) -> Recommender:
        return super().recommender(_as_exact(trained))

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        return super().views(_as_exact(trained))


PREPARING = SystemType(
    "preparing", ExactConfig, "tests.systems.preparing:the_one", "retract.systems.exact.client:ExactDevice"
)
_REGISTERED: list[Preparing] = []


def the_one(config: ExactConfig) -> Preparing:
    """The half that was registered last, whatever the settings."""
    return _REGISTERED[-1]


def registered(monkeypatch: pytest.MonkeyPatch, settings: ExactConfig | None = None) -> Preparing:
    """The server's half of such a system, which every command and folder gets by its name."""
    server = Preparing(settings)
    monkeypatch.setattr("tests.systems.preparing._REGISTERED", [server])
    monkeypatch.setitem(registry.SYSTEMS, "preparing", "tests.systems.preparing:PREPARING")  # type: ignore[arg-type]
    return server


def _as_exact(trained: Trained) -> Trained:
    return replace(trained, system=NAME)
