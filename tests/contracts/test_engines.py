"""The local engine against the contract, and engines that are broken on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retract.data import Sharing
from retract.errors import ConfigError, FederationError
from retract.federation import Broadcast, Engine, Kept, LocalEngine, NoDevices, RoundResult, TaskSpec
from retract.stores.devices import MemoryDevices
from tests.contracts.breaking import broken_statements
from tests.contracts.engines import EngineContract, Split
from tests.contracts.tasks import TASKS, broadcast, sharing, spec

COHORTS: dict[Split, int] = {"one": 10**6, "some": 7, "single": 1}


class TestLocalEngine(EngineContract):
    kind: type[LocalEngine] = LocalEngine

    def engine(self, sharing: Sharing, split: Split = "one", dropout: float = 0.0) -> Engine:
        return self.kind(MemoryDevices(sharing), TASKS, cohort_interactions=COHORTS[split], dropout=dropout)

    def kept(self, engine: Engine, run: str) -> Kept:
        assert isinstance(engine, LocalEngine)
        return engine.devices.kept(run)


class _TakesAskedForAnswered(LocalEngine):
    def run(self, spec: TaskSpec, broadcast: Broadcast, users: np.ndarray, *, seed: int) -> RoundResult:
        result = super().run(spec, broadcast, users, seed=seed)
        return replace(result, answered=users, missing=users[:0])


class _TakesAnyReply(LocalEngine):
    def run(self, spec: TaskSpec, broadcast: Broadcast, users: np.ndarray, *, seed: int) -> RoundResult:
        try:
            return super().run(spec, broadcast, users, seed=seed)
        except FederationError:
            return RoundResult(spec.update.zeros(), users[:0], users, 0, 0)


class _CountsNothing(LocalEngine):
    def run(self, spec: TaskSpec, broadcast: Broadcast, users: np.ndarray, *, seed: int) -> RoundResult:
        return replace(super().run(spec, broadcast, users, seed=seed), bytes_up=0)


class _DrawsByPlace(LocalEngine):
    """Every cohort is asked under a seed of its own."""

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: np.ndarray, *, seed: int) -> RoundResult:
        return super().run(spec, broadcast, users, seed=seed + self.cohort_interactions)


class _OneRunForAll(LocalEngine):
    def run(self, spec: TaskSpec, broadcast: Broadcast, users: np.ndarray, *, seed: int) -> RoundResult:
        return super().run(replace(spec, run="a"), broadcast, users, seed=seed)


class _RepeatsOnRetry(LocalEngine):
    """A retry is taken for another round."""

    rounds = 0

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: np.ndarray, *, seed: int) -> RoundResult:
        self.rounds += 1
        return super().run(spec, Broadcast(self.rounds, broadcast.tables), users, seed=seed)


def _suite(made_of: type[LocalEngine]) -> type[EngineContract]:
    class Suite(TestLocalEngine):
        kind = made_of

    return Suite


def test_the_suite_passes_on_an_engine_that_is_not_broken() -> None:
    assert broken_statements(_suite(LocalEngine)) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        (_TakesAskedForAnswered, "test_who_answered_and_who_is_missing_are_told_apart_and_the_sum_is_over_the_former"),
        (_TakesAnyReply, "test_a_reply_that_does_not_fit_the_specification_is_refused"),
        (_CountsNothing, "test_bytes_updates_and_rounds_are_counted"),
        (_DrawsByPlace, "test_however_the_users_are_parted_the_update_and_the_state_are_the_same"),
        (_OneRunForAll, "test_a_new_run_starts_everyone_anew_whoever_was_away"),
        (_RepeatsOnRetry, "test_a_retry_of_a_round_brings_the_same_update_and_leaves_the_same_state"),
    ],
)
def test_a_broken_engine_does_not_pass(kind: type[LocalEngine], statement: str) -> None:
    assert statement in broken_statements(_suite(kind))


# --- what is the local engine's own -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_outside_its_range_is_refused(dropout: float) -> None:
    with pytest.raises(ConfigError, match=r"dropout is .*: it must be at least 0 and below 1"):
        LocalEngine(MemoryDevices(sharing()), TASKS, dropout=dropout)


def test_a_cohort_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="cohort_interactions is 0: a cohort holds at least 1 interaction"):
        LocalEngine(MemoryDevices(sharing()), TASKS, cohort_interactions=0)


def test_without_devices_nobody_can_be_asked() -> None:
    engine = NoDevices()
    assert len(engine.users) == 0
    with pytest.raises(FederationError, match="contract has to ask its devices, and none can be reached from here"):
        engine.run(spec("count"), broadcast(0), np.array([0]), seed=0)
