"""FedShare over a network that loses answers, after an interruption, and where torch is missing."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from retract.data import Sharing
from retract.errors import ConfigError, FederationError
from retract.evaluation.ranking import evaluate
from retract.federation import LocalEngine, NoDevices
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.base import Checkpoint, Trained
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.fedshare.config import SNAPSHOT
from retract.systems.system import System
from tests.systems.fedshare_world import SYSTEM, TEST, TRAIN, assert_same_tables, copied, forget_users, train

# --- a real network ---------------------------------------------------------------------------------------------------


class Recorded:
    """An engine that remembers the results that it passed on."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine, self.traffic, self.results = engine, engine.traffic, []

    @property
    def users(self) -> np.ndarray:
        return self.engine.users

    def clients_of(self, users: np.ndarray) -> np.ndarray:
        return self.engine.clients_of(users)

    def run(self, spec, broadcast, users, *, seed):
        self.results.append(self.engine.run(spec, broadcast, users, seed=seed))
        return self.results[-1]


@pytest.mark.slow
def test_the_coverage_weighs_what_those_share_who_answered_against_all_that_they_hold():
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, np.linspace(0, 1, 40)))
    engine = Recorded(engine_of(SYSTEM, devices, dropout=0.6))
    trained = SYSTEM.server.train(devices.sharing.shared, engine, seed=0)
    answered = engine.results[-1].answered
    assert 0 < len(answered) < 30
    shared, held = (len(part.of_users(answered)) for part in (devices.sharing.shared, devices.interactions))
    assert float(trained.model["coverage"]) == pytest.approx(shared / held)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_it_learns_and_forgets_where_many_clients_do_not_answer(kind):
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5))
    trained = SYSTEM.server.train(devices.sharing.shared, engine_of(SYSTEM, devices, dropout=0.5), seed=0)
    assert evaluate(reader_of(SYSTEM, trained, devices), TRAIN, TEST).mean()["recall@20"] > 0.95
    new, after, _ = forget_users(trained, devices, kind, dropout=0.5)
    found = evaluate(reader_of(SYSTEM, new, after), after.interactions, TEST)
    assert found.mean(np.arange(4, 40))["recall@20"] > 0.95


class Silent(LocalEngine):
    """An engine whose clients never answer in some rounds."""

    def __init__(self, devices: MemoryDevices, rounds) -> None:
        super().__init__(devices, SYSTEM.device.tasks)
        self.silent = rounds

    def _answering(self, users, round, seed):
        return np.full(len(users), round not in self.silent)


@pytest.mark.slow
def test_a_round_that_nobody_answers_changes_nothing():
    system, tables = FEDSHARE(FedShareConfig(form="paper", dimension=8, rounds=3)), []
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5))

    def keep(checkpoint):
        tables.append(checkpoint().tables)

    system.server.train(devices.sharing.shared, Silent(devices, {1}), seed=0, keep=keep)
    first, second, third = tables[-3:]
    assert_same_tables(first, second, rtol=0, atol=0)
    assert not np.array_equal(second["items"], third["items"])


def test_a_training_that_nobody_answers_is_refused():
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5))
    with pytest.raises(FederationError, match="no device answered in any round"):
        SYSTEM.server.train(devices.sharing.shared, Silent(devices, range(100)), seed=0)


@pytest.mark.slow
def test_unsharing_needs_no_device():
    trained, devices = train()
    _, withdrawal = withdraw(devices, "unshare", trained.shared.of_users([0, 1, 2, 3]))
    alone = SYSTEM.server.unlearn(trained, withdrawal, NoDevices(), seed=5)
    together, _, _ = forget_users(trained, devices)
    np.testing.assert_array_equal(alone.model["items"], trained.model["items"])
    assert_same_tables(alone.model, together.model, rtol=0, atol=0)
    assert_same_tables(alone.memory.tables, together.memory.tables, rtol=0, atol=0)
    assert (alone.log[-1]["rounds"], alone.run) == (0, trained.run)


@pytest.mark.slow
def test_without_devices_erasing_is_refused_and_nothing_is_changed():
    trained, devices = train()
    _, withdrawal = withdraw(devices, "erase", trained.shared.of_users([0]))
    tables = copied(trained.model)
    with pytest.raises(FederationError, match=r"^fedshare learns anew with its devices to erase, .* run this where"):
        SYSTEM.server.unlearn(trained, withdrawal, NoDevices(), seed=5)
    with pytest.raises(FederationError, match="fedshare learns with its devices, and none can be reached"):
        SYSTEM.server.continue_training(trained, trained.shared, NoDevices(), rounds=1, seed=5)
    assert_same_tables(trained.model, tables, rtol=0, atol=0)


# --- interrupted trainings --------------------------------------------------------------------------------------------


INTERRUPTED = FEDSHARE(FedShareConfig(dimension=8, rounds=4, start_rounds=5, participation=0.7))
PAPER_STEPS = {"rounds": 4, "server_steps": 5, "participation": 0.7, "layers": 1, "snapshots": 2}
PAPER = FEDSHARE(FedShareConfig(form="paper", dimension=8, **PAPER_STEPS))


def interrupted_everywhere(system: System, dropout: float) -> tuple[Trained, MemoryDevices, list]:
    """A training, and after each of its steps its checkpoint, and the devices as they then are."""
    devices, kept = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5)), []
    engine = engine_of(system, devices, dropout=dropout)
    trained = system.server.train(
        devices.sharing.shared, engine, seed=3, keep=lambda make: kept.append((make(), devices.copy()))
    )
    return trained, devices, kept


def go_on(system: System, checkpoint: Checkpoint, devices: MemoryDevices, dropout: float) -> Trained:
    engine = engine_of(system, devices, dropout=dropout)
    return system.server.train(devices.sharing.shared, engine, seed=3, resume_from=checkpoint)


def assert_same_training(one: Trained, other: Trained, devices: MemoryDevices, others: MemoryDevices) -> None:
    assert (one.run, len(one.log)) == (other.run, len(other.log))
    assert_same_tables(one.model, other.model, rtol=0, atol=0)
    assert_same_tables(one.memory.tables, other.memory.tables, rtol=0, atol=0)
    assert_same_tables(devices.kept(one.run).state, others.kept(one.run).state, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("system", "first"), [(INTERRUPTED, "spectral start"), (PAPER, "shared graph")])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_an_interrupted_training_goes_on_bit_for_bit_wherever_it_was_cut(system, first, dropout):
    trained, devices, kept = interrupted_everywhere(system, dropout)
    assert [(one.stage, one.done) for one, _ in kept] == [
        *((first, done) for done in range(1, 6)),
        *(("rounds", done) for done in range(1, 5)),
    ]
    for checkpoint, then in kept:
        again = then.copy()
        assert_same_training(go_on(system, checkpoint, again, dropout), trained, again, devices)


def test_a_training_goes_on_where_its_devices_did_a_round_that_the_server_lost():
    trained, devices, kept = interrupted_everywhere(INTERRUPTED, 0.0)
    for (checkpoint, _), (_, ahead) in itertools.pairwise(kept):
        again = ahead.copy()
        assert_same_training(go_on(INTERRUPTED, checkpoint, again, 0.0), trained, again, devices)


def test_a_checkpoint_of_the_papers_form_holds_the_snapshots():
    held = [
        sum(name.startswith(SNAPSHOT) for name in checkpoint.tables)
        for checkpoint, _ in interrupted_everywhere(PAPER, 0.0)[2]
    ]
    assert held == [0, 0, 1, 1, 2, 2, 2, 2, 2]


def test_another_training_than_the_interrupted_one_is_refused():
    _, devices, kept = interrupted_everywhere(INTERRUPTED, 0.0)
    other = FEDSHARE(INTERRUPTED.config.model_copy(update={"rounds": 9}))
    with pytest.raises(ConfigError, match=r"another one \(rounds was 4 and is 9\)"):
        go_on(other, kept[0][0], devices, 0.0)


@pytest.mark.slow
def test_the_halves_are_made_and_models_are_read_without_torch():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from retract.data import Interactions
from retract.federation import NOTHING_KEPT, NoDevices
from retract.systems.base import Memory, Trained
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from tests.samples import random_interactions
system, data = FEDSHARE(), random_interactions(0)
tables = {name: np.ones((data.n_items, 64), np.float32) for name in ("items", "global_items")}
tables["coverage"] = np.float32(0.5)
trained = Trained("fedshare", system.config, 0, "run", tables, Memory({}), data)
system.server.recommender(trained).scores(np.arange(3), data)
system.device.reader(trained.published, NOTHING_KEPT).scores(np.arange(3), data)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=".")
