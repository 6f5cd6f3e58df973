"""A trained folder of a system that prepares: what training costs and what forgetting does, kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retract.data import Sharing
from retract.errors import ConfigError
from retract.federation import Engine
from retract.stores.devices import MemoryDevices
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import unlearn_folder
from retract.stores.local import engine_of
from retract.stores.requests import Wish, add_request
from retract.stores.training import TrainOptions, TrainReport, train_folder
from retract.systems import base
from retract.systems.base import Memory, Trained
from retract.systems.checks import prepared
from retract.systems.exact import EXACT
from retract.systems.exact.server import ExactServer
from retract.systems.registry import make_system
from tests.stores.folders import load, tiny_dataset
from tests.systems.preparing import Preparing, registered


def trained_by(server: ExactServer) -> tuple[Trained, Engine]:
    devices = MemoryDevices(Sharing.by_ratio(tiny_dataset().interactions, 1.0))
    engine = engine_of(EXACT(), devices)
    return server.train(devices.sharing.shared, engine, seed=0), engine


def trained_into(out: Path, seed: int = 0) -> TrainReport:
    return train_folder(make_system("preparing"), tiny_dataset(), out, TrainOptions(share=1.0, seed=seed))


def costing(clock: Counter[str], seconds: int, done: Callable[..., Trained]) -> Callable[..., Trained]:
    """The same, but that it takes so many seconds of a clock."""

    def work(*arguments: Any, **named: Any) -> Trained:
        clock["spent"] += seconds
        return done(*arguments, **named)

    return work


def test_a_folder_is_prepared_once_and_keeps_what_was_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = registered(monkeypatch)
    report = trained_into(tmp_path / "run", seed=3)
    assert server.calls == {"train": 1, "prepare": 1}
    assert report.memory_bytes == 40
    np.testing.assert_array_equal(load(tmp_path / "run").trained.memory.tables["encoder"], np.full(10, 3.0))


def test_requests_are_answered_from_the_folder_without_training_or_preparing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, folder = registered(monkeypatch), TrainedFolder(tmp_path / "run")
    trained_into(tmp_path / "run")
    for user in ("u1", "u2"):
        add_request(folder, Wish("unshare", user))
        unlearn_folder(folder)
    assert server.calls == {"train": 1, "prepare": 1, "unlearn": 2}
    assert load(tmp_path / "run").trained.memory.nbytes == 40


def test_seconds_of_preparing_are_no_seconds_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Counter[str]()
    monkeypatch.setattr(base, "time", SimpleNamespace(perf_counter=lambda: float(clock.total())))
    server = registered(monkeypatch)
    for name, seconds in (("train", 2), ("prepare", 40)):
        monkeypatch.setattr(server, name, costing(clock, seconds, getattr(server, name)))
    report = trained_into(tmp_path / "run")
    assert (report.seconds, report.prepare_seconds) == (2, 40)


def test_who_prepares_nothing_spends_nothing_and_stays_as_it_was() -> None:
    server = EXACT().server
    assert isinstance(server, ExactServer)
    trained, engine = trained_by(server)
    assert prepared(server, trained, engine, seed=0) == (trained, 0.0)


def test_what_was_prepared_and_diverged_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Preparing()
    trained, engine = trained_by(server)
    broken = replace(trained, memory=Memory({"encoder": np.array([np.nan])}))
    monkeypatch.setattr(server, "prepare", lambda *_, **__: broken)
    with pytest.raises(ConfigError, match="preparing diverged: encoder of its memory"):
        prepared(server, trained, engine, seed=0)
