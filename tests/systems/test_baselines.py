"""Every method of unlearning: what all of them owe, and what each of them is."""

from functools import cache

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError
from retract.evaluation.ranking import evaluate
from retract.federation import Broadcast, Clients, LocalEngine, Update
from retract.models.graph import BipartiteGraph
from retract.models.negatives import sample_negatives
from retract.systems.base import System, Trained, Withdrawal, prepared, withdraw
from retract.systems.baselines import (
    Fru,
    FruConfig,
    GradientAscent,
    LightGCN,
    LightGCNConfig,
    RecEraser,
    RecEraserConfig,
    Scif,
    ScifConfig,
    make_method,
    method_names,
)
from retract.systems.baselines.fru import ClientUpdates, RecordingEpoch, RoundLog, calibrated, logs_of
from retract.systems.baselines.receraser import balanced_partition, fill_shards
from retract.systems.baselines.scif import conjugate_gradients, hessian_product, mean_gradient, selected
from retract.systems.exact import Exact
from retract.systems.fedshare import FedShare, FedShareConfig
from retract.systems.fedshare.client import LocalEpoch
from retract.systems.fedshare.unlearning import affected_nodes
from retract.systems.unlearnrec import UnlearnRec, UnlearnRecConfig
from tests.samples import checkerboard, random_interactions

TRAIN, TEST = checkerboard()
SYSTEMS = {
    "fedshare": FedShare(FedShareConfig(dimension=8, rounds=12, layers=2)),
    "lightgcn": LightGCN(LightGCNConfig(dimension=8, steps=40, layers=2)),
    "unlearnrec": UnlearnRec(UnlearnRecConfig(dimension=8, epochs=40, layers=2, pretrain_steps=3)),
}
FITTING = [
    (system, method) for system in SYSTEMS for method in method_names() if system == "fedshare" or method != "fru"
]


def assert_same_tables(one, other, **tolerance) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        torch.testing.assert_close(table, other[name], **tolerance)


@cache
def trained_by(system: str, method: str) -> tuple[System, Trained, Clients]:
    made = make_method(method, SYSTEMS[system])
    clients = Clients(Sharing.by_ratio(TRAIN, 0.5))
    engine = LocalEngine(clients)
    trained = made.train(clients.sharing.shared, engine, seed=0)
    # The model may be another's too, and then it is to forget by its own way alone.
    ready = prepared(SYSTEMS[system], trained, engine, seed=0)[0] if method == "own" else trained
    return made, ready, clients


def forget_users(system: str, method: str, kind="unshare", seed: int = 5) -> tuple[Trained, Clients, Withdrawal]:
    """Everything that four users shared (unshare) or have (erase)."""
    made, trained, clients = trained_by(system, method)
    source = trained.shared if kind == "unshare" else clients.interactions
    after, withdrawal = withdraw(clients, kind, source.of_users([0, 1, 2, 3]))
    return made.unlearn(trained, withdrawal, LocalEngine(after), seed=seed), after, withdrawal


@pytest.mark.parametrize(("system", "method"), FITTING)
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_a_method_forgets_in_the_store_and_leaves_what_it_was_given_as_it_was(system, method, kind):
    made, trained, clients = trained_by(system, method)
    model, memory = (
        {name: table.clone() for name, table in kept.items()} for kept in (trained.model, _memory(trained))
    )
    state = {name: rows.clone() for name, rows in clients.state.items()}
    new, after, withdrawal = forget_users(system, method, kind)
    assert_same_tables(trained.model, model, rtol=0, atol=0)
    assert_same_tables(_memory(trained), memory, rtol=0, atol=0)
    assert_same_tables(clients.state, state, rtol=0, atol=0)
    assert new.shared == trained.shared - withdrawal.forget
    if method != "own":
        assert (new.system, new.config) == (trained.system, SYSTEMS[system].config)
    assert torch.isfinite(made.recommender(new, after).scores(np.arange(6), after.interactions)).all()


@pytest.mark.parametrize(("system", "method"), FITTING)
def test_a_method_gives_the_same_result_for_the_same_seed(system, method):
    one, two = (forget_users(system, method)[0] for _ in range(2))
    assert_same_tables(one.model, two.model, rtol=0, atol=0)
    assert_same_tables(_memory(one), _memory(two), rtol=0, atol=0)


@pytest.mark.parametrize(("system", "method"), FITTING)
def test_a_method_bears_that_everything_shared_is_withdrawn(system, method):
    made, trained, clients = trained_by(system, method)
    if (system, method) in {("lightgcn", "own"), ("lightgcn", "retrain"), ("unlearnrec", "retrain")}:
        pytest.skip("a central system cannot be trained on nothing")
    after, withdrawal = withdraw(clients, "unshare", trained.shared)
    new = made.unlearn(trained, withdrawal, LocalEngine(after), seed=0)
    assert len(new.shared) == 0
    assert torch.isfinite(made.recommender(new, after).scores(np.arange(6), after.interactions)).all()


@pytest.mark.parametrize("method", ["finetune", "ascent", "fru", "scif"])
def test_a_method_refuses_a_system_that_it_does_not_fit(method):
    with pytest.raises(ConfigError, match=rf"^{method} needs a system .*; exact (cannot|has none)$"):
        make_method(method, Exact())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("forget", {}, r"unknown method 'forget'; known methods: own, retrain, naive, finetune"),
        ("finetune", {"steps": 3}, r"finetune has no setting 'steps'; it has rounds"),
        ("finetune", {"rounds": "many"}, r"setting rounds of finetune is 'many': it must be a whole number at least 1"),
        ("own", {"rounds": 3}, r"own has no setting 'rounds'; it has none"),
    ],
)
def test_a_wrong_name_or_setting_is_refused_with_what_is_possible(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_method(name, SYSTEMS["fedshare"], settings)


def test_settings_reach_the_method_and_leave_the_systems_own_alone():
    method = make_method("ascent", SYSTEMS["fedshare"], {"stride": "0.3"})
    assert method.settings.stride == 0.3
    assert method.config == SYSTEMS["fedshare"].config


@pytest.mark.parametrize("system", SYSTEMS)
def test_ascent_lowers_the_scores_of_what_is_to_be_forgotten_and_goes_no_further_than_told(system):
    method = GradientAscent(SYSTEMS[system])
    trained = trained_by(system, "ascent")[1]
    forget = trained.shared.of_users([0, 1])
    nodes = method.system.nodes(trained)
    climbed = method.ascend(nodes, trained.shared, forget, seed=0)
    loss_of = method.system.objective(trained.shared, seed=0, among=forget)
    assert loss_of(climbed, 0) > loss_of(nodes, 0)
    own = np.union1d(forget.users, forget.items + forget.n_users)
    assert (climbed - nodes).norm() <= 1.001 * 5 * 0.1 * nodes[torch.from_numpy(own)].norm()
    before = graph_scores(system, trained, nodes, forget)
    assert (graph_scores(system, trained, climbed, forget) < before).float().mean() > 0.9


def graph_scores(system: str, trained: Trained, nodes: torch.Tensor, pairs: Interactions) -> torch.Tensor:
    """What the server's graph, as it was, gives to some pairs."""
    final = BipartiteGraph(trained.shared).propagate(nodes, SYSTEMS[system].config.layers)
    return (final[pairs.users] * final[pairs.items + pairs.n_users]).sum(dim=1)


def _memory(trained: Trained) -> dict[str, torch.Tensor]:
    return dict(trained.memory.tensors)


def tiny_data(seed: int = 3) -> Interactions:
    """A few users and items, so that a dense Hessian fits."""
    return random_interactions(seed, n_users=8, n_items=9, density=0.5)


def dense_loss(data: Interactions, config: LightGCNConfig, nodes: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """LightGCN's loss from its formulas, float64, dense, and differentiable as often as one likes."""
    n, users, items = data.n_users, torch.from_numpy(data.users), torch.from_numpy(data.items)
    adjacency = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    adjacency[users, items + n] = adjacency[items + n, users] = 1
    scale = adjacency.sum(dim=1).clamp_min(1) ** -0.5
    adjacency = scale[:, None] * adjacency * scale
    layers = [nodes]
    for _ in range(config.layers):
        layers.append(adjacency @ layers[-1])
    final = torch.stack(layers).mean(dim=0)
    drawn = sample_negatives(np.arange(n), data.indptr, data.items, data.n_items, seed=seed, round=step)
    margin = (final[users] * (final[items + n] - final[torch.from_numpy(np.maximum(drawn[:, 0], 0)) + n])).sum(dim=1)
    degrees = data.user_degrees()
    usable = (degrees > 0) & (degrees < data.n_items)
    weights = torch.from_numpy(np.where(usable, np.maximum(degrees, 1.0) ** -config.activity_exponent, 0.0))[users]
    ranking = weights @ softplus(-margin) / weights.sum()
    size = nodes[:n].square().sum() / n + nodes[n:].square().sum() / data.n_items
    return ranking + 0.5 * config.regularisation * size


def test_a_product_with_the_hessian_is_that_of_the_dense_one():
    data, config, draw = tiny_data(), LightGCNConfig(dimension=3, layers=2), torch.Generator().manual_seed(0)
    n_nodes = data.n_users + data.n_items
    nodes, direction = torch.randn(2, n_nodes, 3, generator=draw).unbind()
    gradient = mean_gradient(LightGCN(config).objective(data, seed=7), draws=2)

    def flat(values: torch.Tensor) -> torch.Tensor:
        table = values.view(n_nodes, 3)
        return (dense_loss(data, config, table, 7, 0) + dense_loss(data, config, table, 7, 1)) / 2

    hessian = torch.autograd.functional.hessian(flat, nodes.double().view(-1))
    expected = (hessian @ direction.double().view(-1)).view(n_nodes, 3)
    found = hessian_product(gradient, nodes, direction).double()
    assert (found - expected).norm() <= 1e-2 * expected.norm()


def test_conjugate_gradients_solve_and_stop_where_they_cannot_be_trusted():
    draw = torch.Generator().manual_seed(0)
    factor = torch.randn(6, 6, generator=draw)
    matrix, right = factor @ factor.T + torch.eye(6), torch.randn(6, generator=draw)
    exact = torch.linalg.solve(matrix, right)
    torch.testing.assert_close(conjugate_gradients(lambda v: matrix @ v, right, 20), exact, rtol=1e-2, atol=1e-3)
    short = conjugate_gradients(lambda v: matrix @ v, right, 20, radius=0.1 * float(exact.norm()))
    assert float(short.norm()) == pytest.approx(0.1 * float(exact.norm()), rel=1e-4)
    assert conjugate_gradients(lambda v: -v, right, 20).norm() == 0


def minimum(objective, nodes: torch.Tensor, draws: int) -> torch.Tensor:
    """Where the loss of some fixed draws is least near `nodes`, by L-BFGS."""
    point = nodes.clone().requires_grad_()
    solver = torch.optim.LBFGS([point], max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = sum(objective(point, draw) for draw in range(draws)) / draws
        loss.backward()
        return loss

    solver.step(closure)
    return point.detach()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scif_steps_towards_the_retrained_table_where_the_loss_is_strongly_regularised(seed):
    data, draws = checkerboard(20, 20)[0], 16
    system = LightGCN(LightGCNConfig(dimension=4, layers=1, regularisation=0.1))
    forget = data.where((data.users == seed) & (np.arange(len(data)) < data.indptr[seed] + 2))
    method = Scif(system, ScifConfig(draws=draws, neighbours=1, damping=0.01, reach=1))
    start = torch.randn(40, 4, generator=torch.Generator().manual_seed(seed))
    trained = minimum(system.objective(data, seed=0), start, draws)
    oracle = minimum(system.objective(data - forget, seed=0), trained, draws)
    stepped = trained - method.step(trained, data - forget, forget, seed=0)
    assert (stepped - oracle).norm() < 0.5 * (trained - oracle).norm()


def test_scif_moves_the_selected_alone_and_leaves_nothing_of_who_withdrew_everything():
    method = Scif(SYSTEMS["lightgcn"], ScifConfig(neighbours=0))
    trained = trained_by("lightgcn", "scif")[1]
    forget = trained.shared.of_users([0])
    after = trained.shared - forget
    step = method.step(trained.model["nodes"], after, forget, seed=0)
    moved = np.flatnonzero(step.abs().sum(dim=1).numpy())
    assert set(moved) <= set(np.union1d(forget.users, forget.items + forget.n_users))
    withdrawal = Withdrawal("unshare", forget, np.array([0]))
    new = method.unlearn(trained, withdrawal, LocalEngine(Clients(Sharing.by_ratio(TRAIN, 0.5))), seed=0)
    assert new.model["nodes"][0].abs().max() == 0


def test_the_neighbours_that_move_are_those_of_the_greatest_influence():
    data = tiny_data()
    forget = data.of_users([data.users[0]])
    strength = torch.arange(data.n_users + data.n_items).float()[:, None]
    all_of_them = selected(strength, data - forget, forget, 1)
    none, half = selected(strength, data - forget, forget, 0), selected(strength, data - forget, forget, 0.5)
    near = np.setdiff1d(all_of_them, none)
    assert all_of_them.tolist() == affected_nodes(data - forget, forget).tolist()
    assert np.setdiff1d(half, none).tolist() == near[len(near) // 2 :].tolist()


CLIENTS = FedShareConfig(dimension=6, negatives=2, contrast=0.3)


def client_round(data: Interactions) -> tuple[LocalEpoch, Broadcast, LocalEngine]:
    draw = torch.Generator().manual_seed(1)
    tables = {name: torch.randn(data.n_items, 6, generator=draw) for name in ("items", "global_items")}
    broadcast = Broadcast(4, {**tables, "coverage": torch.tensor(0.6)})
    return LocalEpoch(CLIENTS), broadcast, LocalEngine(Clients(Sharing.by_ratio(data, 0.5)), cohort_interactions=20)


@pytest.mark.parametrize("seed", range(5))
def test_the_updates_that_clients_log_are_each_ones_own_and_sum_to_the_aggregate(seed):
    data = random_interactions(seed)
    epoch, broadcast, engine = client_round(data)
    recording = RecordingEpoch(epoch, kept=1)
    update = engine.run(recording, broadcast, data.active_users(), seed=9)
    log = recording.log()
    torch.testing.assert_close(log.sum(data.n_items), update.tensors["item_gradient"], rtol=1e-4, atol=1e-6)
    for user in data.active_users():
        mine = log.users == user
        dense = torch.zeros(data.n_items, 6).index_copy(0, log.items[mine].long(), log.rows[mine])
        fresh = LocalEngine(Clients(Sharing.by_ratio(data, 0.5)))
        alone = fresh.run(epoch, broadcast, np.array([user]), seed=9).tensors["item_gradient"]
        torch.testing.assert_close(dense, alone, rtol=1e-4, atol=1e-6)


def test_recording_changes_nothing_that_leaves_the_clients():
    data = random_interactions(1)
    epoch, broadcast, engine = client_round(data)
    plain = client_round(data)[2].run(epoch, broadcast, data.active_users(), seed=9)
    update = engine.run(RecordingEpoch(epoch, 0.2), broadcast, data.active_users(), seed=9)
    assert_same_tables(update.tensors, plain.tensors, rtol=0, atol=0)


def test_of_each_client_the_rows_of_the_greatest_norm_are_kept():
    users, norms = [0, 0, 0, 0, 2, 2, 5], [1.0, 4.0, 3.0, 2.0, 1.0, 2.0, 0.5]
    updates = ClientUpdates(torch.tensor(users), torch.arange(7), torch.tensor(norms)[:, None] * torch.ones(1, 4))
    assert updates.largest(0.5).items.tolist() == [1, 2, 5, 6]
    assert updates.largest(0.01).items.tolist() == [1, 5, 6]
    assert updates.without(np.array([0, 5])).items.tolist() == [4, 5]


def test_training_with_fru_is_training_and_what_it_logs_is_counted():
    plain, trained = trained_by("fedshare", "naive")[1], trained_by("fedshare", "fru")[1]
    assert_same_tables(trained.model, plain.model, rtol=0, atol=0)
    record = trained.log[-1]
    logs = logs_of(trained)
    assert list(logs) == [0, 2, 4, 6, 8, 10]
    size = sum(len(log.updates.users) * (4 * 8 + 8) + 4 for log in logs.values())
    assert trained.memory.nbytes == record["bytes"] == size + trained.memory.tensors["nodes"].nbytes
    assert record["bytes_unfiltered"] == int(trained_traffic())
    assert record["bytes"] < 0.1 * record["bytes_unfiltered"]


def trained_traffic() -> int:
    engine = LocalEngine(Clients(Sharing.by_ratio(TRAIN, 0.5)))
    SYSTEMS["fedshare"].train(engine.clients.sharing.shared, engine, seed=0)
    return int(engine.traffic.up.sum())


def test_a_replay_with_nothing_forgotten_gives_the_trained_tables():
    method = Fru(SYSTEMS["fedshare"], FruConfig(kept=1, interval=1))
    clients = Clients(Sharing.by_ratio(TRAIN, 0.5))
    trained = method.train(clients.sharing.shared, LocalEngine(clients), seed=0)
    nothing = Withdrawal("unshare", Interactions.empty(TRAIN.catalog), np.empty(0, dtype=np.int64))
    new = method.unlearn(trained, nothing, LocalEngine(clients), seed=5)
    assert_same_tables(new.model, trained.model, rtol=1e-3, atol=1e-4)
    assert_same_tables(_memory(new), _memory(trained), rtol=1e-3, atol=1e-4)


def test_a_replayed_sum_has_the_new_direction_at_the_old_length():
    gradient = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    got = calibrated(Update({"item_gradient": gradient, "weight": torch.tensor(2.0)}, 1), torch.tensor(3.0))
    torch.testing.assert_close(got.tensors["item_gradient"], 3 * gradient / gradient.norm())
    assert got.tensors["weight"] == 2


def test_who_erases_takes_the_own_log_along_and_its_part_of_the_length():
    rows = torch.tensor([[3.0, 0], [0, 4.0], [0, 1.0]])
    log = RoundLog(ClientUpdates(torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1]), rows), torch.tensor(10.0))
    left = log.without(np.array([1]), 3)
    assert left.updates.items.tolist() == [2]
    assert float(left.length) == pytest.approx(10 * 3 / 26**0.5)
    new, _, withdrawal = forget_users("fedshare", "fru", "erase")
    kept = logs_of(new)[2].updates
    assert not np.isin(kept.users.numpy(), withdrawal.users).any()
    assert len(kept.users) > 0


def test_fru_unlearns_only_what_fru_has_trained():
    _, trained, clients = trained_by("fedshare", "naive")
    after, withdrawal = withdraw(clients, "unshare", trained.shared.of_users([0]))
    with pytest.raises(ConfigError, match="no log of client updates in this model: train it with fru"):
        Fru(SYSTEMS["fedshare"]).unlearn(trained, withdrawal, LocalEngine(after), seed=0)


ERASER = RecEraser(RecEraserConfig(dimension=8, steps=30, layers=2, shards=4, aggregation_steps=20))


@cache
def erased_from(users: tuple[int, ...]) -> tuple[Trained, Trained, Clients]:
    """Before and after some users withdrew all they share."""
    clients = Clients(Sharing.by_ratio(TRAIN, 1))
    trained = ERASER.train(clients.sharing.shared, LocalEngine(clients), seed=0)
    after, withdrawal = withdraw(clients, "unshare", trained.shared.of_users(users))
    return trained, ERASER.unlearn(trained, withdrawal, LocalEngine(after), seed=9), after


def test_receraser_trains_only_the_touched_shards_again():
    trained, new, _ = erased_from((0, 1))
    partition = trained.memory.tensors["partition"]
    touched = set(partition[:2].tolist())
    assert torch.equal(new.memory.tensors["partition"], partition)
    before, after = trained.memory.tensors["shards"], new.memory.tensors["shards"]
    assert 0 < len(touched) < 4
    assert {k for k in range(4) if not torch.equal(before[k], after[k])} == touched
    assert [record["shard"] for record in new.log[len(trained.log) :]] == sorted(touched)


def test_receraser_gives_what_training_without_the_withdrawn_gives_with_the_same_partition():
    trained, new, after = erased_from((0, 1))
    partition = trained.memory.tensors["partition"].numpy()
    fresh = ERASER.train_parts(new.shared, partition, LocalEngine(after), seed=0)
    assert_same_tables(new.model, fresh.model, rtol=0, atol=0)
    assert_same_tables(_memory(new), _memory(fresh), rtol=0, atol=0)


def test_receraser_finds_the_held_out_items_before_and_after():
    trained, new, after = erased_from((0, 1))
    for model in (trained, new):
        found = evaluate(ERASER.recommender(model, after), TRAIN, TEST)
        assert found.mean(np.arange(2, TRAIN.n_users))["recall@20"] > 0.9


def test_receraser_bears_that_everything_is_withdrawn_and_refuses_to_train_on_nothing():
    _, new, after = erased_from(tuple(range(TRAIN.n_users)))
    assert len(new.shared) == 0
    assert ERASER.recommender(new, after).scores(np.arange(3), after.interactions).abs().max() == 0
    with pytest.raises(DataError, match="nothing is shared"):
        ERASER.train(new.shared, LocalEngine(after), seed=0)


def test_the_partition_puts_similar_users_together_and_no_shard_above_its_share():
    partition = balanced_partition(TRAIN, 2, 20, seed=0)
    assert np.bincount(partition).tolist() == [20, 20]
    assert len(set(partition[::2])) == len(set(partition[1::2])) == 1
    some = balanced_partition(TRAIN.of_users(np.arange(3, 40)), 5, 20, seed=0)
    assert (some[:3] == -1).all()
    assert np.bincount(some[3:], minlength=5).max() == 8


def walk_all_pairs(distances: np.ndarray, capacity: int) -> np.ndarray:
    """The greedy walk as the paper has it: every pair, near to far."""
    shards, room = np.full(len(distances), -1), np.full(distances.shape[1], capacity)
    for pair in np.argsort(distances, axis=None, kind="stable"):
        user, shard = divmod(int(pair), distances.shape[1])
        if shards[user] < 0 and room[shard]:
            shards[user], room[shard] = shard, room[shard] - 1
    return shards


@pytest.mark.parametrize("seed", range(20))
def test_shards_fill_up_as_in_the_walk_through_all_pairs(seed):
    draw = np.random.default_rng(seed)
    distances = draw.random((int(draw.integers(1, 60)), int(draw.integers(1, 7))))
    capacity = -(-len(distances) // distances.shape[1]) + int(draw.integers(0, 3))
    assert fill_shards(distances, capacity).tolist() == walk_all_pairs(distances, capacity).tolist()
