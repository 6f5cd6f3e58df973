"""FRU: what clients log, that it stays with them, and the replay."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Interactions, Sharing
from retract.errors import ConfigError, FederationError
from retract.evaluation.ranking import evaluate
from retract.federation import Broadcast, LocalEngine, NoDevices, Update, payload_bytes
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.base import Trained, Withdrawal, task_spec
from retract.systems.baselines.fru_config import LOGGED, RECORDING, logged_spec, recording_spec
from retract.systems.baselines.fru_log import ClientLog, RoundLog, calibrated
from retract.systems.baselines.fru_tasks import ClientUpdates
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.fedshare.config import EPOCH, epoch_update
from retract.systems.registry import make_method
from retract.systems.spectral.config import PROJECTION
from retract.systems.system import System
from tests.samples import checkerboard, random_interactions

TRAIN, TEST = checkerboard()
FEDSHARE_8 = FEDSHARE(FedShareConfig(form="paper", dimension=8, rounds=12, layers=2))
FRU = make_method("fru", FEDSHARE_8)


def assert_same_tables(one, other, rtol=0.0, atol=0.0) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        np.testing.assert_allclose(table, other[name], rtol=rtol, atol=atol)


def train(method: System = FRU, dropout: float = 0.0) -> tuple[Trained, MemoryDevices]:
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5))
    engine = engine_of(method, devices, dropout=dropout)
    return method.server.train(devices.sharing.shared, engine, seed=0), devices


@cache
def trained_by_fru() -> tuple[Trained, MemoryDevices]:
    return train()


def forget_users(trained, devices, kind="unshare", method=FRU, users=(0, 1, 2, 3), dropout=0.0):
    """Everything that some users shared (unshare) or have (erase)."""
    source = trained.shared if kind == "unshare" else devices.interactions
    after, withdrawal = withdraw(devices, kind, source.of_users(users))
    engine = engine_of(method, after, dropout=dropout)
    return method.server.unlearn(trained, withdrawal, engine, seed=5), after, withdrawal


# --- what clients write -----------------------------------------------------------------------------------------------


CLIENTS = FedShareConfig(form="paper", dimension=6, negatives=2, contrast=0.3)
DEVICE = make_method("fru", FEDSHARE(CLIENTS)).device


def broadcast_for(data: Interactions) -> Broadcast:
    draw = np.random.default_rng(1)
    tables = {name: draw.normal(size=(data.n_items, 6)).astype(np.float32) for name in ("items", "global_items")}
    return Broadcast(4, {**tables, "coverage": np.float32(0.6)})


def engine_on(data: Interactions, cohort_interactions: int = 20) -> LocalEngine:
    devices = MemoryDevices(Sharing.by_ratio(data, 0.5))
    return LocalEngine(devices, DEVICE.tasks, cohort_interactions=cohort_interactions)


def epoch_of(data: Interactions):
    return task_spec(CLIENTS, "fedshare", EPOCH, "run", epoch_update(data.n_items, 6))


def logged_of(data: Interactions):
    return logged_spec(CLIENTS, "fedshare", "run", 4, (data.n_items, 6))


def journal(devices: MemoryDevices, run: str, round: int) -> dict[str, np.ndarray]:
    written = devices.journals[run, round]
    return {name: np.concatenate([part[name] for part in written]) for name in written[0]}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_updates_that_clients_log_are_each_ones_own_and_sum_to_the_aggregate(seed):
    data = random_interactions(seed)
    engine, broadcast = engine_on(data), broadcast_for(data)
    result = engine.run(recording_spec(epoch_of(data), 1.0), broadcast, data.active_users(), seed=9)
    sums, written = result.update.tensors, journal(engine.devices, "run", 4)
    np.testing.assert_allclose(sums["logged"], sums["item_gradient"], rtol=1e-4, atol=1e-6)
    assert int(sums["journal_bytes"]) == len(written["items"]) * (4 + 4 + 4 * 6)
    for user in data.active_users():
        mine, dense = written["client"] == user, np.zeros((data.n_items, 6))
        dense[written["items"][mine]] = written["rows"][mine]
        alone = engine_on(data).run(epoch_of(data), broadcast, np.array([user]), seed=9).update
        np.testing.assert_allclose(dense, alone.tensors["item_gradient"], rtol=1e-4, atol=1e-6)


def test_recording_changes_nothing_that_the_epoch_sends_or_keeps():
    data = random_interactions(1)
    plain, recording, users = engine_on(data), engine_on(data), data.active_users()
    expected = plain.run(epoch_of(data), broadcast_for(data), users, seed=9).update.tensors
    got = recording.run(recording_spec(epoch_of(data), 0.2), broadcast_for(data), users, seed=9).update.tensors
    assert_same_tables({name: got[name] for name in expected}, expected)
    assert_same_tables(recording.devices.kept("run").state, plain.devices.kept("run").state)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 1.0]), st.integers(2, 4))
def test_what_is_recorded_and_summed_obeys_the_law_for_any_split_of_the_users(seed, kept, n_parts):
    data = random_interactions(seed)
    users, broadcast = data.active_users(), broadcast_for(data)
    colour = np.random.default_rng(seed).integers(0, n_parts, len(users))
    parts = [users[colour == part] for part in range(n_parts) if (colour == part).any()]
    whole, split = engine_on(data, 10**6), engine_on(data)
    for spec in (recording_spec(epoch_of(data), kept), logged_of(data)):
        once = whole.run(spec, broadcast, users, seed=9)
        results = [split.run(spec, broadcast, part, seed=9) for part in parts]
        total = results[0].update
        for result in results[1:]:
            total = total + result.update
        assert total.clients == once.update.clients
        assert_same_tables(total.tensors, once.update.tensors, rtol=1e-4, atol=1e-6)
        assert sum(result.bytes_up for result in results) == once.bytes_up


@pytest.mark.slow
@given(st.integers(0, 10_000))
def test_what_a_client_is_said_to_send_is_what_its_update_weighs(seed):
    data = random_interactions(seed)
    for user in data.active_users():
        engine = engine_on(data)
        if len(data.items_of(user)) < data.n_items:  # else every row is zero
            for spec in (recording_spec(epoch_of(data), 0.3), logged_of(data)):
                result = engine.run(spec, broadcast_for(data), np.array([user]), seed=9)
                assert result.bytes_up == payload_bytes(result.update)


def test_the_logged_sum_is_that_of_the_clients_asked_and_of_none_without_a_journal():
    data = random_interactions(2)
    engine, users = engine_on(data), data.active_users()
    recorded = engine.run(recording_spec(epoch_of(data), 0.4), broadcast_for(data), users[2:], seed=9).update
    asked = engine.run(logged_of(data), Broadcast(-1, {}), users, seed=9)
    assert (asked.update.clients, recorded.clients) == (len(users), len(users) - 2)
    for name in ("logged", "journal_bytes"):
        np.testing.assert_allclose(asked.update.tensors[name], recorded.tensors[name], rtol=1e-5, atol=1e-6)
    nobody = engine.run(logged_of(data), Broadcast(-1, {}), users[:2], seed=9).update.tensors
    assert not nobody["logged"].any()
    assert nobody["journal_bytes"] == 0


@pytest.mark.slow
def test_asking_for_what_was_logged_leaves_what_the_clients_keep():
    trained, devices = trained_by_fru()
    run, before = trained.run, {name: rows.copy() for name, rows in devices.kept(trained.run).state.items()}
    forget_users(trained, devices, "erase")
    after = devices.copy()
    spec = logged_spec(trained.config, "fedshare", run, 4, trained.model["items"].shape)
    engine_of(FRU, after).run(spec, Broadcast(-1, {}), after.users, seed=0)
    assert_same_tables(after.kept(run).state, before)
    assert_same_tables(devices.kept(run).state, before)


def test_of_each_client_the_rows_of_the_greatest_norm_are_kept():
    clients, norms = [0, 0, 0, 0, 2, 2, 5], [1.0, 4.0, 3.0, 2.0, 1.0, 2.0, 0.5]
    rows = np.array(norms, np.float32)[:, None] * np.ones((1, 4), np.float32)
    updates = ClientUpdates(np.array(clients, np.int32), np.arange(7, dtype=np.int32), rows)
    assert updates.largest(0.5).items.tolist() == [1, 2, 5, 6]
    assert updates.largest(0.01).items.tolist() == [1, 5, 6]


def test_the_tasks_of_the_journal_are_the_devices_of_the_method_alone():
    assert set(FRU.device.tasks) == {PROJECTION, EPOCH, RECORDING, LOGGED}
    assert set(FEDSHARE_8.device.tasks) == {PROJECTION, EPOCH}


def test_a_start_from_all_data_cannot_be_rolled_back_to():
    with pytest.raises(ConfigError, match="fedshare starts from all clients' data: set form=paper"):
        make_method("fru", FEDSHARE())


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_with_fru_is_training_and_what_it_logs_is_counted():
    trained, devices = trained_by_fru()
    plain, without = train(FEDSHARE_8)
    assert_same_tables(trained.model, plain.model)
    assert_same_tables(devices.kept(trained.run).state, without.kept(plain.run).state)
    record, log = trained.log[-1], ClientLog.of(trained)
    assert list(log.rounds) == [0, 2, 4, 6, 8, 10]
    assert set(devices.journals) == {(trained.run, round) for round in log.rounds}
    on_devices = sum(len(journal(devices, trained.run, round)["items"]) * (4 * 8 + 8) for round in log.rounds)
    assert trained.memory.on_devices == on_devices
    own = sum(trained.memory.tables[name].nbytes for name in ("nodes", "answering", "held")) + 6 * (8 + 16 + 8)
    assert trained.memory.nbytes == record["bytes"] == on_devices + own
    assert record["bytes_unfiltered"] == plain_traffic()
    assert record["bytes"] < 0.1 * record["bytes_unfiltered"]


def plain_traffic() -> int:
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5))
    engine = engine_of(FEDSHARE_8, devices)
    FEDSHARE_8.server.train(devices.sharing.shared, engine, seed=0)
    return engine.traffic.up


@pytest.mark.slow
def test_the_server_keeps_norms_of_sums_and_nothing_of_a_single_client():
    trained, devices = trained_by_fru()
    rounds = ClientLog.of(trained).rounds
    assert set(trained.memory.tables) == {"answering", "held", "nodes", "log.rounds", "log.norms", "log.bytes"}
    for round, log in rounds.items():
        written = journal(devices, trained.run, round)
        total = np.zeros(trained.model["items"].shape)
        np.add.at(total, written["items"], written["rows"])
        assert log.kept == pytest.approx(np.linalg.norm(total), rel=1e-5)
        assert log.length > log.kept > 0


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_an_interrupted_training_goes_on_with_its_log_bit_for_bit(dropout):
    method = make_method("fru", FEDSHARE(FedShareConfig(form="paper", dimension=8, rounds=5, server_steps=3)))
    devices, kept = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5)), []
    shared, engine = devices.sharing.shared, engine_of(method, devices, dropout=dropout)
    trained = method.server.train(shared, engine, seed=3, keep=lambda make: kept.append((make(), devices.copy())))
    assert len(kept) == 8
    for checkpoint, then in kept:
        again = then.copy()
        engine = engine_of(method, again, dropout=dropout)
        resumed = method.server.train(shared, engine, seed=3, resume_from=checkpoint)
        assert_same_tables(resumed.model, trained.model)
        assert_same_tables(resumed.memory.tables, trained.memory.tables)
        assert resumed.log[-1] == trained.log[-1]
        assert resumed.memory.on_devices == trained.memory.on_devices


@pytest.mark.slow
@pytest.mark.parametrize("other", [FEDSHARE_8, make_method("fru", FEDSHARE_8, {"interval": 3})])
def test_a_training_that_logged_otherwise_is_not_gone_on_with(other):
    devices, kept = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5)), []
    shared = devices.sharing.shared
    other.server.train(shared, engine_of(other, devices), seed=0, keep=lambda make: kept.append(make()))
    with pytest.raises(ConfigError, match="the interrupted training logged otherwise, or nothing"):
        FRU.server.train(shared, engine_of(FRU, devices), seed=0, resume_from=kept[-1])


# --- the replay -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_replay_with_nothing_forgotten_gives_the_trained_tables():
    method = make_method("fru", FEDSHARE_8, {"kept": 1, "interval": 1})
    trained, devices = train(method)
    nothing = Withdrawal("unshare", Interactions.empty(TRAIN.catalog), np.empty(0, dtype=np.int64))
    new = method.server.unlearn(trained, nothing, engine_of(method, devices), seed=5)
    assert_same_tables(new.model, trained.model, rtol=1e-3, atol=1e-4)
    assert_same_tables(new.memory.tables, trained.memory.tables, rtol=1e-3, atol=1e-4)


def test_a_replayed_sum_has_the_new_direction_at_the_old_length():
    gradient = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    sums = {"item_gradient": gradient, "weight": np.asarray(2, np.float32), "interactions": np.asarray(3)}
    got = calibrated(Update(epoch_update(5, 4), sums, 1), 3.0)
    np.testing.assert_allclose(got.tensors["item_gradient"], 3 * gradient / np.linalg.norm(gradient), rtol=1e-5)
    assert got.tensors["weight"] == 2


@pytest.mark.slow
def test_who_erases_takes_the_own_log_along_and_its_part_of_the_length():
    spec = logged_spec(CLIENTS, "fedshare", "run", 0, (3, 2))
    still_there = {"logged": np.array([[0, 0], [0, 0], [3, 0]], np.float32), "journal_bytes": np.asarray(16)}
    left = RoundLog(10.0, 26**0.5, 48).left(Update(spec.update, still_there, 1))
    assert (left.length, left.kept, left.nbytes) == (pytest.approx(10 * 3 / 26**0.5), 3, 16)
    trained, devices = trained_by_fru()
    new, after, withdrawal = forget_users(trained, devices, "erase")
    log = ClientLog.of(new)
    assert log.run == trained.run
    written = journal(after, log.run, 2)
    assert len(written["client"]) > 0
    assert not np.isin(written["client"], withdrawal.users).any()
    assert log.rounds[2].nbytes == len(written["items"]) * (4 * 8 + 8)
    assert 0 < log.rounds[2].length < ClientLog.of(trained).rounds[2].length
    assert new.memory.on_devices < trained.memory.on_devices


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_it_forgets_once_and_again(kind):
    trained, devices = trained_by_fru()
    first, after, _ = forget_users(trained, devices, kind, users=(0, 1))
    second, last, _ = forget_users(first, after, kind, users=(2, 3))
    assert len({trained.run, first.run, second.run}) == 3
    assert second.shared == trained.shared - trained.shared.of_users([0, 1, 2, 3])
    found = evaluate(reader_of(FRU, second, last), last.interactions, TEST)
    assert found.mean(np.arange(4, 40))["recall@20"] > 0.8


@pytest.mark.slow
def test_an_unlearning_replays_as_the_training_logged_whatever_the_method_is_set_to():
    trained, devices = trained_by_fru()
    new, _, _ = forget_users(trained, devices, "erase")
    other, _, _ = forget_users(trained, devices, "erase", make_method("fru", FEDSHARE_8, {"interval": 5, "kept": 1}))
    assert_same_tables(other.model, new.model)


@pytest.mark.slow
def test_it_forgets_where_some_clients_do_not_answer():
    trained, devices = train(dropout=0.3)
    new, after, withdrawal = forget_users(trained, devices, "erase", dropout=0.3)
    full, _, _ = forget_users(trained, devices, "erase")
    for round, log in ClientLog.of(full).rounds.items():  # asked again, nearly all of them answer
        assert ClientLog.of(new).rounds[round].length == pytest.approx(log.length, rel=0.2)
    assert new.shared == trained.shared - withdrawal.forget
    found = evaluate(reader_of(FRU, new, after), after.interactions, TEST)
    assert found.mean(np.arange(4, 40))["recall@20"] > 0.8


@pytest.mark.slow
def test_fru_unlearns_only_what_fru_has_trained():
    trained, devices = train(FEDSHARE_8)
    with pytest.raises(ConfigError, match="no log of client updates in this model: train it with fru"):
        forget_users(trained, devices)


def test_an_erasure_is_refused_where_the_devices_have_lost_their_journals():
    trained, devices = trained_by_fru()
    lost = MemoryDevices(devices.sharing, devices.states)
    with pytest.raises(ConfigError, match="no log of this training on the devices any more"):
        forget_users(trained, lost, "erase")


def test_without_devices_there_is_nothing_to_replay():
    trained, devices = trained_by_fru()
    _, withdrawal = withdraw(devices, "unshare", trained.shared.of_users([0]))
    with pytest.raises(FederationError, match="fru replays the rounds of the devices, and none can be reached"):
        FRU.server.unlearn(trained, withdrawal, NoDevices(), seed=0)
