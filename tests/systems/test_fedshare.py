"""FedShare end to end on data with a known answer, and what its unlearning must leave behind."""

import numpy as np
import pytest

from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError
from retract.evaluation.ranking import evaluate, percentile_ranks
from retract.models.ease import item_weights, regularised_inverse
from retract.models.gram import gram_of
from retract.models.recommender import HistoryReader
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.fedshare.graph import snapshot_steps, snapshots_in
from retract.systems.registry import make_method, make_system
from tests.samples import numbered_catalog
from tests.systems.fedshare_world import PAPER, SYSTEM, TEST, TRAIN, assert_same_tables, copied, forget_users, train

FORMS = pytest.mark.parametrize("system", [SYSTEM, PAPER], ids=["spectral", "paper"])


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize("ratio", [0, 0.5, 1])
def test_it_finds_the_held_out_items_however_much_is_shared(system, ratio):
    trained, devices = train(ratio, system=system)
    assert evaluate(reader_of(system, trained, devices), TRAIN, TEST).mean()["recall@20"] > 0.95


@pytest.mark.slow
def test_the_central_light_gcn_finds_them_too():
    system = make_system("lightgcn")
    trained, devices = train(1, system=system)
    assert evaluate(reader_of(system, trained, devices), TRAIN, TEST).mean()["recall@20"] > 0.95


@pytest.mark.slow
@FORMS
def test_the_server_finds_them_by_what_is_shared_with_it(system):
    trained, devices = train(0.8, system=system)
    shared = devices.sharing.shared
    assert evaluate(system.server.recommender(trained), shared, TEST).mean()["recall@20"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "table"), [(0, "items"), (0.5, "global_items")])
def test_the_papers_server_reads_its_own_table_where_anything_is_shared_and_mixes_nothing_private(ratio, table):
    trained, _ = train(ratio, system=PAPER)
    model = PAPER.server.recommender(trained)
    assert isinstance(model, HistoryReader)
    assert model.table is trained.model[table]


def test_the_server_reads_its_view_where_anything_is_shared_and_mixes_nothing_private():
    assert isinstance(SYSTEM.server.recommender(train(0)[0]), HistoryReader)
    trained, devices = train(0.5)
    model, shared = SYSTEM.server.recommender(trained), devices.sharing.shared
    full = regularised_inverse(gram_of(shared, SYSTEM.config.ease_exponent), SYSTEM.config.ridge)
    expected = shared.csr(np.ones(len(shared))) @ item_weights(full)
    found = model.scores(np.arange(TRAIN.n_users), shared)
    np.testing.assert_allclose(found, expected, atol=2 * np.abs(item_weights(full)).max() / 254 * 10)


def test_nothing_that_is_shared_enters_the_table_of_the_clients():
    none, some, everything = (train(ratio)[0].model["items"] for ratio in (0, 0.5, 1))
    np.testing.assert_array_equal(none, some)
    np.testing.assert_array_equal(none, everything)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_and_another_seed_another():
    one, two, other = train()[0], train()[0], train(seed=1)[0]
    assert_same_tables(one.model, two.model, rtol=0, atol=0)
    assert not np.allclose(one.model["items"], other.model["items"])


@pytest.mark.slow
def test_the_size_of_cohorts_never_matters():
    system = FEDSHARE(FedShareConfig(dimension=8, rounds=3))
    assert_same_tables(train(system=system)[0].model, train(system=system, cohort_interactions=40)[0].model)


@pytest.mark.slow
def test_training_never_goes_on_from_what_an_earlier_training_left_on_the_clients():
    first, devices = train()
    again = SYSTEM.server.train(devices.sharing.shared, engine_of(SYSTEM, devices), seed=0)
    assert again.run != first.run
    assert_same_tables(again.model, first.model, rtol=0, atol=0)


def test_only_some_clients_take_part_where_participation_is_low():
    system = FEDSHARE(FedShareConfig(dimension=8, rounds=4, participation=0.2))
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5))
    engine = engine_of(system, devices)
    system.server.train(devices.sharing.shared, engine, seed=0)
    rounds = system.config.start_rounds + 4
    assert engine.traffic.rounds == rounds
    assert rounds <= engine.traffic.updates < 0.5 * rounds * len(engine.users)


def test_a_single_user_is_refused():
    data = Interactions.of(numbered_catalog(2, 3), [0, 0], [0, 1])
    with pytest.raises(DataError, match="fewer than two"):
        SYSTEM.server.train(data, engine_of(SYSTEM, MemoryDevices(Sharing.by_ratio(data, 1))), seed=0)


@pytest.mark.slow
def test_the_papers_form_keeps_snapshots_spread_evenly_to_the_last_step():
    assert snapshot_steps(100, 4) == {25, 50, 74, 99}
    assert snapshot_steps(2, 5) == {0, 1}
    assert len(snapshots_in(train(system=PAPER)[0].memory.tables)) == PAPER.config.snapshots
    assert train()[0].memory.tables.keys() == {"answering", "held"}


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_unlearning_forgets_and_leaves_the_old_model_as_it_was(system, kind):
    trained, devices = train(system=system)
    tables, state = copied(trained.model), copied(devices.kept(trained.run).state)
    new, after, withdrawal = forget_users(trained, devices, kind, method=system)
    assert_same_tables(trained.model, tables, rtol=0, atol=0)
    assert_same_tables(devices.kept(trained.run).state, state, rtol=0, atol=0)
    assert len(new.shared & withdrawal.forget) == 0
    assert new.shared == trained.shared - withdrawal.forget
    staying = np.arange(4, TRAIN.n_users)
    found = evaluate(reader_of(system, new, after), after.interactions, TEST)
    assert found.mean(staying)["recall@20"] > 0.95


@pytest.mark.slow
def test_contrastive_unlearning_keeps_one_snapshot_made_without_what_was_withdrawn():
    trained, devices = train(system=PAPER)
    new, _, _ = forget_users(trained, devices, method=PAPER)
    assert len(snapshots_in(new.memory.tables)) == 1
    assert new.memory.nbytes < trained.memory.nbytes


def test_a_model_forgets_in_the_form_that_it_was_trained_in():
    trained, devices = train()
    with pytest.raises(ConfigError, match="this model is of form spectral, and form is set to paper"):
        forget_users(trained, devices, method=PAPER)


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_after_unlearning_all_is_the_oracles_bit_for_bit(kind):
    trained, devices = train()
    new, after, _ = forget_users(trained, devices, kind)
    oracle, beside, _ = forget_users(trained, devices, kind, method=make_method("retrain", SYSTEM))
    assert_same_tables(new.model, oracle.model, rtol=0, atol=0)
    assert_same_tables(new.memory.tables, oracle.memory.tables, rtol=0, atol=0)
    assert_same_tables(after.kept(new.run).state, beside.kept(oracle.run).state, rtol=0, atol=0)
    assert not np.array_equal(new.model["view.levels"], trained.model["view.levels"])
    users = np.arange(TRAIN.n_users)
    one, other = (
        reader_of(SYSTEM, *pair).scores(users, after.interactions) for pair in ((new, after), (oracle, beside))
    )
    np.testing.assert_array_equal(one, other)


def test_unsharing_asks_no_device_and_erasing_all_of_them_for_as_many_rounds_as_training():
    trained, devices = train()
    for kind, rounds in (("unshare", 0), ("erase", 14)):
        after, withdrawal = withdraw(devices, kind, trained.shared.of_users([0, 1]))
        engine = engine_of(SYSTEM, after)
        new = SYSTEM.server.unlearn(trained, withdrawal, engine, seed=5)
        assert (engine.traffic.rounds, new.log[-1]["rounds"]) == (rounds, rounds)
        assert (new.run == trained.run) == (kind == "unshare")


@pytest.mark.slow
def test_forgetting_twice_is_forgetting_at_once_for_the_server():
    trained, devices = train()
    once, _, _ = forget_users(trained, devices, users=(0, 1, 2))
    first, after, _ = forget_users(trained, devices, users=(0,))
    twice, _, _ = forget_users(first, after, users=(1, 2))
    assert_same_tables(once.model, twice.model, rtol=0, atol=0)


@pytest.mark.slow
def test_in_the_papers_form_clients_go_on_after_unsharing_and_start_anew_after_erasing():
    trained, devices = train(system=PAPER)
    unshared, after, _ = forget_users(trained, devices, method=PAPER)
    assert unshared.run == trained.run
    assert (after.kept(unshared.run).state["steps"] == 31).all()
    erased, gone, _ = forget_users(unshared, after, "erase", method=PAPER)
    assert erased.run != trained.run
    assert (gone.kept(erased.run).state["steps"] == PAPER.config.erase_rounds).all()
    again, last, _ = forget_users(erased, gone, users=(5,), method=PAPER)
    assert (last.kept(again.run).state["steps"] == PAPER.config.erase_rounds + 1).all()


@pytest.mark.slow
@FORMS
def test_no_round_has_the_number_of_an_earlier_one_of_its_training(system):
    trained, devices = train(system=system)
    first, after, _ = forget_users(trained, devices, users=(0,), method=system)
    twice, last, _ = forget_users(first, after, users=(1,), method=system)
    done = last.kept(twice.run).state["steps"].copy()
    more = system.server.continue_training(twice, twice.shared, engine_of(system, last), rounds=3, seed=1)
    assert (last.kept(more.run).state["steps"] == done + 3).all()


@pytest.mark.slow
def test_the_server_is_told_of_shared_interactions_only_when_everything_is_erased():
    trained, devices = train()
    _, after, withdrawal = forget_users(trained, devices, "erase")
    assert len(withdrawal.forget - trained.shared) == 0
    assert withdrawal.users.tolist() == [0, 1, 2, 3]
    assert len(after.interactions.of_users([0, 1, 2, 3])) == 0
    assert not np.isin([0, 1, 2, 3], after.kept(trained.run).clients).any()


@pytest.mark.slow
def test_unlearning_moves_the_forgotten_towards_the_oracle_and_deleting_from_the_store_does_not():
    odd = TRAIN.where((TRAIN.users == 0) & (TRAIN.items % 8 == 0))
    strange = Interactions.of(TRAIN.catalog, np.repeat([0, 2, 4], 3), [1, 3, 5] * 3)
    data = (TRAIN - odd) | strange
    devices = MemoryDevices(Sharing.by_ratio(data, 1))
    trained = SYSTEM.server.train(devices.sharing.shared, engine_of(SYSTEM, devices), seed=0)
    ranks = {}
    for name, method in (("after", "own"), ("naive", "naive"), ("oracle", "retrain")):
        after, withdrawal = withdraw(devices, "erase", strange)
        made = SYSTEM if method == "own" else make_method(method, SYSTEM)
        new = made.server.unlearn(trained, withdrawal, engine_of(made, after), seed=1)
        ranks[name] = percentile_ranks(reader_of(made, new, after), after.interactions, strange).mean()
    assert ranks["naive"] < ranks["after"]
    assert abs(ranks["after"] - ranks["oracle"]) < abs(ranks["naive"] - ranks["oracle"])


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_all_that_was_shared_may_be_withdrawn(system, kind):
    trained, devices = train(np.r_[np.ones(4), np.zeros(36)], system=system)
    new, after, _ = forget_users(trained, devices, kind, method=system)
    assert len(new.shared) == 0
    assert new.model.keys() == {"items", "coverage"}
    assert np.isfinite(reader_of(system, new, after).scores(np.arange(5), after.interactions)).all()


@pytest.mark.slow
def test_the_oracle_is_the_training_that_never_knew():
    trained, devices = train()
    oracle, after, _ = forget_users(trained, devices, method=make_method("retrain", SYSTEM))
    fresh = MemoryDevices(after.sharing)
    never = SYSTEM.server.train(after.sharing.shared, engine_of(SYSTEM, fresh), seed=0)
    assert_same_tables(oracle.model, never.model, rtol=0, atol=0)


@pytest.mark.slow
def test_a_model_of_another_system_is_refused():
    trained, devices = train(1)
    exact = make_system("exact")
    other = exact.server.train(trained.shared, engine_of(exact, devices), seed=0)
    _, withdrawal = withdraw(devices, "unshare", trained.shared.of_users([0]))
    with pytest.raises(ConfigError, match="this model is of exact"):
        SYSTEM.server.unlearn(other, withdrawal, engine_of(SYSTEM, devices), seed=0)
