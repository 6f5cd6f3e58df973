"""FedShare end to end on data with a known answer, and what its unlearning must leave behind."""

import numpy as np
import pytest
import torch

from retract.data import Interactions, Sharing
from retract.errors import DataError
from retract.evaluation.ranking import evaluate, percentile_ranks
from retract.federation import Clients, LocalEngine
from retract.systems.base import Trained, withdraw
from retract.systems.baselines import LightGCN, Naive, Retrain
from retract.systems.fedshare import FedShare, FedShareConfig
from retract.systems.fedshare.system import snapshot_steps, snapshots_of
from retract.systems.fedshare.unlearning import affected_nodes, without_isolated
from tests.samples import checkerboard, numbered_catalog, random_interactions

SYSTEM = FedShare(FedShareConfig(dimension=16, rounds=30))
CONTRAST = FedShare(FedShareConfig(dimension=16, rounds=30, unlearning="contrast"))
TRAIN, TEST = checkerboard()


def train(ratio=0.5, seed: int = 0, system=SYSTEM, **options) -> tuple[Trained, LocalEngine]:
    engine = LocalEngine(Clients(Sharing.by_ratio(TRAIN, ratio)), **options)
    return system.train(engine.clients.sharing.shared, engine, seed=seed), engine


def assert_same_tables(one, other, **tolerance) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        torch.testing.assert_close(table, other[name], **tolerance)


@pytest.mark.parametrize("ratio", [0, 0.5, 1])
def test_it_finds_the_held_out_items_however_much_is_shared(ratio):
    trained, engine = train(ratio)
    assert evaluate(SYSTEM.recommender(trained, engine.clients), TRAIN, TEST).mean()["recall@20"] > 0.95


def test_the_central_light_gcn_finds_them_too():
    system = LightGCN()
    trained, engine = train(1, system=system)
    assert evaluate(system.recommender(trained, engine.clients), TRAIN, TEST).mean()["recall@20"] > 0.95


def test_the_same_seed_gives_the_same_model_and_another_seed_another():
    one, two, other = train()[0], train()[0], train(seed=1)[0]
    assert_same_tables(one.model, two.model, rtol=0, atol=0)
    assert not torch.allclose(one.model["items"], other.model["items"])


def test_the_size_of_cohorts_never_matters():
    system = FedShare(FedShareConfig(dimension=16, rounds=3))
    assert_same_tables(train(system=system)[0].model, train(system=system, cohort_interactions=40)[0].model)


def test_training_never_goes_on_from_what_an_earlier_training_left_on_the_clients():
    first, engine = train()
    again = SYSTEM.train(engine.clients.sharing.shared, engine, seed=0)
    assert_same_tables(again.model, first.model, rtol=0, atol=0)


def test_only_some_clients_take_part_where_participation_is_low():
    system = FedShare(FedShareConfig(dimension=8, rounds=4, participation=0.2))
    _, engine = train(system=system)
    assert 4 <= engine.traffic.updates < 0.5 * 4 * len(engine.users)


def test_a_single_user_is_refused():
    data = Interactions.of(numbered_catalog(2, 3), [0, 0], [0, 1])
    with pytest.raises(DataError, match="fewer than two"):
        SYSTEM.train(data, LocalEngine(Clients(Sharing.by_ratio(data, 1))), seed=0)


def test_snapshots_are_kept_for_contrastive_unlearning_alone_spread_evenly_to_the_last_step():
    assert snapshot_steps(100, 4) == {25, 50, 74, 99}
    assert snapshot_steps(2, 5) == {0, 1}
    assert len(snapshots_of(train()[0])) == 0
    assert len(snapshots_of(train(system=CONTRAST)[0])) == CONTRAST.config.snapshots


def forget_users(trained: Trained, engine: LocalEngine, kind="unshare", method=SYSTEM, users=(0, 1, 2, 3)):
    """Everything that the users shared (unshare) or have (erase)."""
    source = trained.shared if kind == "unshare" else engine.clients.interactions
    after, withdrawal = withdraw(engine.clients, kind, source.of_users(list(users)))
    return method.unlearn(trained, withdrawal, LocalEngine(after), seed=5), after, withdrawal


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_unlearning_forgets_and_leaves_the_old_model_as_it_was(kind):
    trained, engine = train()
    tables = {name: table.clone() for name, table in trained.model.items()}
    state = {name: rows.clone() for name, rows in engine.clients.state.items()}
    new, after, withdrawal = forget_users(trained, engine, kind)
    assert_same_tables(trained.model, tables, rtol=0, atol=0)
    assert_same_tables(engine.clients.state, state, rtol=0, atol=0)
    assert len(new.shared & withdrawal.forget) == 0
    assert new.shared == trained.shared - withdrawal.forget
    staying = np.arange(4, TRAIN.n_users)
    found = evaluate(SYSTEM.recommender(new, after), after.interactions, TEST)
    assert found.mean(staying)["recall@20"] > 0.95


def test_contrastive_unlearning_keeps_one_snapshot_made_without_what_was_withdrawn():
    trained, engine = train(system=CONTRAST)
    new, _, _ = forget_users(trained, engine, method=CONTRAST)
    assert len(snapshots_of(new)) == 1
    assert new.memory.nbytes < trained.memory.nbytes


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_what_the_server_made_of_shared_data_is_afterwards_the_oracles_bit_for_bit(kind):
    trained, engine = train()
    new, _, _ = forget_users(trained, engine, kind)
    oracle, _, _ = forget_users(trained, engine, kind, method=Retrain(SYSTEM))
    torch.testing.assert_close(new.model["global_items"], oracle.model["global_items"], rtol=0, atol=0)
    assert_same_tables(new.memory.tensors, oracle.memory.tensors, rtol=0, atol=0)
    assert not torch.equal(new.model["global_items"], trained.model["global_items"])


def test_erasing_in_as_many_rounds_as_training_is_training_again():
    system = FedShare(FedShareConfig(dimension=8, rounds=5, erase_rounds=5))
    trained, engine = train(system=system)
    new, _, _ = forget_users(trained, engine, "erase", method=system)
    oracle, _, _ = forget_users(trained, engine, "erase", method=Retrain(system))
    assert_same_tables(new.model, oracle.model, rtol=0, atol=0)


def test_forgetting_twice_is_forgetting_at_once_for_the_server():
    trained, engine = train()
    once, _, _ = forget_users(trained, engine, users=(0, 1, 2))
    first, clients, _ = forget_users(trained, engine, users=(0,))
    twice, _, _ = forget_users(first, LocalEngine(clients), users=(1, 2))
    assert_same_tables(once.memory.tensors, twice.memory.tensors, rtol=0, atol=0)


def test_the_server_is_told_of_shared_interactions_only_when_everything_is_erased():
    trained, engine = train()
    _, after, withdrawal = forget_users(trained, engine, "erase")
    assert len(withdrawal.forget - trained.shared) == 0
    assert withdrawal.users.tolist() == [0, 1, 2, 3]
    assert len(after.interactions.of_users([0, 1, 2, 3])) == 0
    assert not after.started[:4].any()


def test_unlearning_moves_the_forgotten_towards_the_oracle_and_deleting_from_the_store_does_not():
    odd = TRAIN.where((TRAIN.users == 0) & (TRAIN.items % 8 == 0))
    strange = Interactions.of(TRAIN.catalog, np.repeat([0, 2, 4], 3), [1, 3, 5] * 3)
    data = (TRAIN - odd) | strange
    engine = LocalEngine(Clients(Sharing.by_ratio(data, 1)))
    trained = SYSTEM.train(engine.clients.sharing.shared, engine, seed=0)
    ranks = {}
    for name, method in (("after", SYSTEM), ("naive", Naive(SYSTEM)), ("oracle", Retrain(SYSTEM))):
        clients, withdrawal = withdraw(engine.clients, "erase", strange)
        new = method.unlearn(trained, withdrawal, LocalEngine(clients), seed=1)
        model = SYSTEM.recommender(new, clients)
        ranks[name] = percentile_ranks(model, clients.interactions, strange).mean()
    assert ranks["naive"] < ranks["after"]
    assert abs(ranks["after"] - ranks["oracle"]) < abs(ranks["naive"] - ranks["oracle"])


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_all_that_was_shared_may_be_withdrawn(kind):
    trained, engine = train(np.r_[np.ones(4), np.zeros(36)])
    new, after, _ = forget_users(trained, engine, kind)
    assert len(new.shared) == 0
    assert "global_items" not in new.model
    assert torch.isfinite(SYSTEM.recommender(new, after).scores(np.arange(5), after.interactions)).all()


def test_the_oracle_is_the_training_that_never_knew():
    trained, engine = train()
    oracle, after, _ = forget_users(trained, engine, method=Retrain(SYSTEM))
    fresh = SYSTEM.train(after.sharing.shared, LocalEngine(Clients(after.sharing)), seed=0)
    assert_same_tables(oracle.model, fresh.model, rtol=0, atol=0)


def test_affected_nodes_are_the_endpoints_and_their_neighbours():
    data = random_interactions(4)
    forget = data.of_users([2, 5]).where(np.arange(len(data.of_users([2, 5]))) % 2 == 0)
    users, items = set(forget.users.tolist()), set(forget.items.tolist())
    pairs = list(zip(data.users.tolist(), data.items.tolist(), strict=True))
    near = {u for u, i in pairs if i in items} | users
    far = {i for u, i in pairs if u in users} | items
    got = affected_nodes(data - forget, forget)
    assert got.tolist() == sorted(near) + sorted(i + data.n_users for i in far)


def test_a_node_that_lost_its_last_edge_keeps_nothing():
    catalog = numbered_catalog(2, 3)
    retained, forget = Interactions.of(catalog, [0], [0]), Interactions.of(catalog, [0, 1], [1, 0])
    left = without_isolated(torch.ones(5, 2), retained, forget)
    assert left[:, 0].tolist() == [1, 0, 1, 0, 1]
