"""A system that prepares to forget, and counts how often it did what."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from retract.data import Interactions
from retract.errors import ConfigError
from retract.federation import Engine
from retract.systems import registry
from retract.systems.base import Memory, Progress, Trained, Withdrawal, no_progress
from retract.systems.exact import Exact, ExactConfig


class Preparing(Exact):
    """Exact, but that it forgets only with an encoder in its memory, made for the model it has."""

    name = "preparing"

    def __init__(self, config: ExactConfig | None = None) -> None:
        super().__init__(config)
        self.calls: Counter[str] = Counter()

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        self.calls["train"] += 1
        return super().train(shared, engine, seed=seed, progress=progress)

    def prepare(self, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        self.calls["prepare"] += 1
        return replace(trained, memory=Memory({"encoder": torch.full((10,), float(seed))}))

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
        if "encoder" not in trained.memory.tensors:
            raise ConfigError("nothing was prepared to forget by")
        after = super().unlearn(trained, withdrawal, engine, seed=seed, progress=progress)
        return replace(after, memory=trained.memory)


def registered(monkeypatch: pytest.MonkeyPatch, settings: ExactConfig | None = None) -> Preparing:
    """One such system, which every command and folder gets by its name."""
    system = Preparing(settings)
    monkeypatch.setitem(registry._CONFIGS, "preparing", ExactConfig)  # type: ignore[arg-type]
    monkeypatch.setitem(registry._SYSTEMS, "preparing", lambda config: system)  # type: ignore[arg-type]
    return system
