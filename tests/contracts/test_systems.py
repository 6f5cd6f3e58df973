"""Every system of ours keeps the contract, and systems that are broken in the usual ways do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from retract.federation import Engine
from retract.systems.base import Trained, Withdrawal
from retract.systems.baselines.wrapper import Wrapper
from retract.systems.registry import system_names
from retract.systems.system import MethodType, System
from tests.contracts.systems import SystemContract
from tests.tiny import TINY_OF, tiny_dataset, tiny_system


class TestExact(SystemContract):
    def system(self) -> System:
        return tiny_system("exact")


class TestExactFilter(SystemContract):
    def system(self) -> System:
        system = tiny_system("exact")
        return system.type(system.type.config(form="filter"))


class TestExactOfPrivateSums(SystemContract):
    share = 0.5

    def system(self) -> System:
        system = tiny_system("exact")
        return system.type(system.type.config(count_private=True))

    # A sum over all has to be over all, and the server alone has nobody to ask.
    test_some_devices_may_stay_silent = None  # type: ignore[assignment]


class TestFedShare(SystemContract):
    share = 0.5

    def system(self) -> System:
        return tiny_system("fedshare")


class TestLightGCN(SystemContract):
    def system(self) -> System:
        return tiny_system("lightgcn")


class TestPersonalFR(SystemContract):
    share = 0.5

    def system(self) -> System:
        return tiny_system("personalfr")


class TestRecEraser(SystemContract):
    def system(self) -> System:
        return tiny_system("receraser")


class TestUnlearnRec(SystemContract):
    def system(self) -> System:
        return tiny_system("unlearnrec")


def test_every_system_is_held_to_the_contract() -> None:
    held = {kind().system().name for kind in SystemContract.__subclasses__() if kind.__name__.startswith("Test")}
    assert set(system_names()) - {"popular"} == held == set(TINY_OF)


# --- broken ones ------------------------------------------------------------------------------------------------------


class WarmStart(Wrapper):
    """Keeps a table from one training to the next, as a hidden state would."""

    last: ClassVar[dict[str, Any]] = {}

    def train(self, shared: Any, engine: Engine, **options: Any) -> Trained:
        trained = self.server.train(shared, engine, **options)
        model = {name: table + 0.1 * self.last.get(name, 0) for name, table in trained.model.items()}
        WarmStart.last = dict(trained.model)
        return replace(trained, model=model)


class InPlace(Wrapper):
    """Forgets in the old model's own arrays."""

    def unlearn(self, trained: Trained, withdrawal: Withdrawal, engine: Engine, **options: Any) -> Trained:
        for table in trained.model.values():
            np.multiply(table, 0.5, out=table, casting="unsafe")
        return replace(trained, shared=trained.shared - withdrawal.forget)


class KeepsTheData(Wrapper):
    """Forgets in the model, and keeps what it was to forget."""

    def unlearn(self, trained: Trained, withdrawal: Withdrawal, engine: Engine, **options: Any) -> Trained:
        return replace(self.server.unlearn(trained, withdrawal, engine, **options), shared=trained.shared)


class DrawsAnew(Wrapper):
    """Draws from a global generator."""

    def train(self, shared: Any, engine: Engine, **options: Any) -> Trained:
        trained = self.server.train(shared, engine, **options)
        noise = np.random.default_rng().normal
        return replace(trained, model={name: table + noise(size=table.shape) for name, table in trained.model.items()})


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (WarmStart, "test_training_is_a_function_of_data_settings_and_seed"),
        (DrawsAnew, "test_training_is_a_function_of_data_settings_and_seed"),
        (InPlace, "test_forgetting_leaves_the_old_model_as_it_was"),
        (KeepsTheData, "test_what_is_forgotten_is_not_held_and_the_log_names_the_withdrawal"),
        (InPlace, "test_a_model_of_another_system_is_refused"),
    ],
)
def test_a_broken_system_breaks_the_contract(broken: type[Wrapper], promise: str, tmp_path: Path) -> None:
    class Contract(SystemContract):
        def system(self) -> System:
            exact = tiny_system("exact")
            method = MethodType("broken", f"{__name__}:{broken.__name__}")(System(exact.type, exact.config))
            method.__dict__["server"] = broken(exact.server, method.type.config())
            return method

    data = tiny_dataset().interactions
    arguments = [data, "unshare"] if "kind" in getattr(Contract, promise).__code__.co_varnames else [data]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(Contract(), promise)(*arguments)
