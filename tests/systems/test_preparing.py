"""A trained folder of a system that prepares: what training costs and what forgetting does, kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retract.data import Sharing
from retract.errors import ConfigError
from retract.federation import Clients, LocalEngine
from retract.systems import base
from retract.systems.base import Memory, Trained, prepared
from retract.systems.exact import Exact
from retract.systems.folder import load
from retract.systems.lifecycle import apply_requests, train_folder
from retract.systems.requests import add_request
from tests.systems.folders import tiny_dataset
from tests.systems.preparing import Preparing, registered


def trained_by(system: Exact) -> tuple[Trained, LocalEngine]:
    engine = LocalEngine(Clients(Sharing.by_ratio(tiny_dataset().interactions, 1.0)))
    return system.train(engine.clients.sharing.shared, engine, seed=0), engine


def costing(clock: Counter[str], seconds: int, done: Callable[..., Trained]) -> Callable[..., Trained]:
    """The same, but that it takes so many seconds of a clock."""

    def work(*arguments: Any, **named: Any) -> Trained:
        clock["spent"] += seconds
        return done(*arguments, **named)

    return work


def test_a_folder_is_prepared_once_and_keeps_what_was_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = registered(monkeypatch)
    report = train_folder(system, tiny_dataset(), tmp_path / "run", share=1.0, seed=3)
    assert system.calls == {"train": 1, "prepare": 1}
    assert report.memory_bytes == 40
    held = load(tmp_path / "run")
    assert torch.equal(held.trained.memory.tensors["encoder"], torch.full((10,), 3.0))


def test_requests_are_answered_from_the_folder_without_training_or_preparing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = registered(monkeypatch)
    train_folder(system, tiny_dataset(), tmp_path / "run", share=1.0)
    for user in ("u1", "u2"):
        add_request(tmp_path / "run", "unshare", user)
        apply_requests(tmp_path / "run")
    assert system.calls == {"train": 1, "prepare": 1, "unlearn": 2}
    assert load(tmp_path / "run").trained.memory.nbytes == 40


def test_seconds_of_preparing_are_no_seconds_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Counter[str]()
    monkeypatch.setattr(base, "time", SimpleNamespace(perf_counter=lambda: float(clock.total())))
    system = registered(monkeypatch)
    for name, seconds in (("train", 2), ("prepare", 40)):
        monkeypatch.setattr(system, name, costing(clock, seconds, getattr(system, name)))
    report = train_folder(system, tiny_dataset(), tmp_path / "run", share=1.0)
    assert (report.seconds, report.prepare_seconds) == (2, 40)


def test_who_prepares_nothing_spends_nothing_and_stays_as_it_was() -> None:
    trained, engine = trained_by(Exact())
    assert prepared(Exact(), trained, engine, seed=0) == (trained, 0.0)


def test_what_was_prepared_and_diverged_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    system = Preparing()
    trained, engine = trained_by(system)
    broken = replace(trained, memory=Memory({"encoder": torch.tensor([float("nan")])}))
    monkeypatch.setattr(system, "prepare", lambda *_, **__: broken)
    with pytest.raises(ConfigError, match="preparing diverged: encoder of its memory"):
        prepared(system, trained, engine, seed=0)
