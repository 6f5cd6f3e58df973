"""Every method of unlearning: what all of them owe, and what each of them is."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError
from retract.evaluation.ranking import evaluate
from retract.federation import NOTHING_KEPT, NoDevices
from retract.models.learn.graph import BipartiteGraph
from retract.models.negatives import sample_negatives
from retract.models.nodes import affected_nodes, endpoints
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.abilities import Preparing
from retract.systems.base import Trained, Withdrawal, keep_nothing, no_progress
from retract.systems.baselines import (
    LIGHTGCN,
    RECERASER,
    GradientAscentConfig,
    LightGCNConfig,
    RecEraserConfig,
    ScifConfig,
)
from retract.systems.baselines.gradients import (
    ascended,
    conjugate_gradients,
    hessian_product,
    mean_gradient,
    newton_step,
    selected,
)
from retract.systems.baselines.partition import balanced_partition, fill_shards
from retract.systems.baselines.receraser import fitted, nothing_learnt
from retract.systems.central import begun
from retract.systems.checks import prepared
from retract.systems.exact import EXACT
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.registry import make_method, method_names
from retract.systems.system import System
from retract.systems.unlearnrec import UNLEARNREC, UnlearnRecConfig
from tests.samples import checkerboard, random_interactions

TRAIN, TEST = checkerboard()
SYSTEMS = {
    "fedshare": FEDSHARE(FedShareConfig(form="paper", dimension=8, rounds=12, layers=2)),
    "lightgcn": LIGHTGCN(LightGCNConfig(dimension=8, steps=40, layers=2)),
    "unlearnrec": UNLEARNREC(UnlearnRecConfig(dimension=8, epochs=40, layers=2, pretrain_steps=3)),
}
FITTING = [
    (system, method) for system in SYSTEMS for method in method_names() if system == "fedshare" or method != "fru"
]


def assert_same_tables(one, other, **tolerance) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        torch.testing.assert_close(torch.as_tensor(table), torch.as_tensor(other[name]), **tolerance)


def copied(tables) -> dict[str, np.ndarray]:
    return {name: table.copy() for name, table in tables.items()}


@cache
def trained_by(system: str, method: str) -> tuple[System, Trained, MemoryDevices]:
    made = make_method(method, SYSTEMS[system])
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, 0.5))
    engine = engine_of(made, devices)
    trained = made.server.train(devices.sharing.shared, engine, seed=0)
    # The model may be another's too, and then it is to forget by its own way alone.
    ready = prepared(SYSTEMS[system].server, trained, engine, seed=0)[0] if method == "own" else trained
    return made, ready, devices


def forget_users(system: str, method: str, kind="unshare", seed: int = 5) -> tuple[Trained, MemoryDevices, Withdrawal]:
    """Everything that four users shared (unshare) or have (erase)."""
    made, trained, devices = trained_by(system, method)
    source = trained.shared if kind == "unshare" else devices.interactions
    after, withdrawal = withdraw(devices, kind, source.of_users([0, 1, 2, 3]))
    return made.server.unlearn(trained, withdrawal, engine_of(made, after), seed=seed), after, withdrawal


@pytest.mark.slow
@pytest.mark.parametrize(("system", "method"), FITTING)
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_a_method_forgets_in_the_store_and_leaves_what_it_was_given_as_it_was(system, method, kind):
    made, trained, devices = trained_by(system, method)
    model, memory, state = map(copied, (trained.model, trained.memory.tables, devices.kept(trained.run).state))
    new, after, withdrawal = forget_users(system, method, kind)
    assert_same_tables(trained.model, model, rtol=0, atol=0)
    assert_same_tables(trained.memory.tables, memory, rtol=0, atol=0)
    assert_same_tables(devices.kept(trained.run).state, state, rtol=0, atol=0)
    assert new.shared == trained.shared - withdrawal.forget
    if method != "own":
        assert (new.system, new.config) == (trained.system, SYSTEMS[system].config)
    assert np.isfinite(reader_of(made, new, after).scores(np.arange(6), after.interactions)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("system", "method"), FITTING)
def test_a_method_gives_the_same_result_for_the_same_seed(system, method):
    one, two = (forget_users(system, method)[0] for _ in range(2))
    assert_same_tables(one.model, two.model, rtol=0, atol=0)
    assert_same_tables(one.memory.tables, two.memory.tables, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("system", "method"), FITTING)
def test_a_method_bears_that_everything_shared_is_withdrawn(system, method):
    made, trained, devices = trained_by(system, method)
    if (system, method) in {("lightgcn", "own"), ("lightgcn", "retrain"), ("unlearnrec", "retrain")}:
        pytest.skip("a central system cannot be trained on nothing")
    after, withdrawal = withdraw(devices, "unshare", trained.shared)
    new = made.server.unlearn(trained, withdrawal, engine_of(made, after), seed=0)
    assert len(new.shared) == 0
    assert np.isfinite(reader_of(made, new, after).scores(np.arange(6), after.interactions)).all()


@pytest.mark.parametrize("method", ["finetune", "ascent", "fru", "scif"])
def test_a_method_refuses_a_system_that_it_does_not_fit(method):
    with pytest.raises(ConfigError, match=rf"^{method} needs a system .*; exact (cannot|has none)$"):
        make_method(method, EXACT())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("forget", {}, r"unknown method 'forget'; known methods: ascent, finetune, fru, naive, own, retrain, scif"),
        ("finetune", {"steps": 3}, r"finetune has no setting 'steps': the nearest are rounds"),
        ("finetune", {"rounds": "many"}, r"setting rounds of finetune is 'many': it must be a whole number at least 1"),
        ("own", {"rounds": 3}, r"own has no setting 'rounds': it has none"),
    ],
)
def test_a_wrong_name_or_setting_is_refused_with_what_is_possible(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_method(name, SYSTEMS["fedshare"], settings)


def test_settings_reach_the_method_and_leave_the_systems_own_alone():
    method = make_method("ascent", SYSTEMS["fedshare"], {"stride": "0.3"})
    assert method.server.settings.stride == 0.3
    assert method.config == method.server.config == SYSTEMS["fedshare"].config


def test_only_the_systems_own_way_is_prepared_for():
    ways = {name: make_method(name, SYSTEMS["unlearnrec"]).server for name in method_names() if name != "fru"}
    assert [name for name, server in ways.items() if isinstance(server, Preparing)] == ["own"]
    assert ways["own"] is SYSTEMS["unlearnrec"].server


@pytest.mark.slow
@pytest.mark.parametrize("method", ["retrain", "finetune"])
def test_a_method_goes_by_the_settings_of_the_model_that_it_is_given(method):
    trained = trained_by("lightgcn", method)[1]
    forget = trained.shared.of_users([0])
    withdrawal, other = Withdrawal("unshare", forget, np.array([0])), LIGHTGCN(LightGCNConfig(dimension=3, steps=2))
    one, two = (
        make_method(method, system).server.unlearn(trained, withdrawal, NoDevices(), seed=5)
        for system in (SYSTEMS["lightgcn"], other)
    )
    assert_same_tables(one.model, two.model, rtol=0, atol=0)
    assert two.config == trained.config


# --- ascent -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_ascent_lowers_the_scores_of_what_is_to_be_forgotten_and_goes_no_further_than_told(system):
    server, trained = SYSTEMS[system].server, trained_by(system, "ascent")[1]
    forget = trained.shared.of_users([0, 1])
    nodes, loss_of = server.nodes(trained), server.objective(trained.shared, seed=0, among=forget)
    before = nodes.copy()
    climbed = ascended(nodes, loss_of, forget, GradientAscentConfig())
    np.testing.assert_array_equal(nodes, before)
    assert loss_of(torch.from_numpy(climbed), 0) > loss_of(torch.from_numpy(nodes), 0)
    own = nodes[endpoints(forget)]
    assert np.linalg.norm(climbed - nodes) <= 1.001 * 5 * 0.1 * np.linalg.norm(own)
    lower = graph_scores(system, trained, climbed, forget) < graph_scores(system, trained, nodes, forget)
    assert lower.float().mean() > 0.9


def graph_scores(system: str, trained: Trained, nodes: np.ndarray, pairs: Interactions) -> torch.Tensor:
    """What the server's graph, as it was, gives to some pairs."""
    final = BipartiteGraph(trained.shared).propagate(torch.from_numpy(nodes), SYSTEMS[system].config.layers)
    return (final[pairs.users] * final[pairs.items + pairs.n_users]).sum(dim=1)


# --- SCIF -------------------------------------------------------------------------------------------------------------


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
    gradient = mean_gradient(LIGHTGCN(config).server.objective(data, seed=7), draws=2)

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


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scif_steps_towards_the_retrained_table_where_the_loss_is_strongly_regularised(seed):
    data, draws = checkerboard(20, 20)[0], 16
    server = LIGHTGCN(LightGCNConfig(dimension=4, layers=1, regularisation=0.1)).server
    forget = data.where((data.users == seed) & (np.arange(len(data)) < data.indptr[seed] + 2))
    settings = ScifConfig(draws=draws, neighbours=1, damping=0.01, reach=1)
    start = torch.randn(40, 4, generator=torch.Generator().manual_seed(seed))
    trained = minimum(server.objective(data, seed=0), start, draws)
    oracle = minimum(server.objective(data - forget, seed=0), trained, draws)
    step = newton_step(server, trained.numpy(), data - forget, forget, settings, seed=0)
    stepped = trained - torch.from_numpy(step)
    assert (stepped - oracle).norm() < 0.5 * (trained - oracle).norm()


def test_scif_moves_the_selected_alone_and_leaves_nothing_of_who_withdrew_everything():
    method, trained = make_method("scif", SYSTEMS["lightgcn"], {"neighbours": 0}), trained_by("lightgcn", "scif")[1]
    forget = trained.shared.of_users([0])
    after, nodes = trained.shared - forget, trained.model["nodes"]
    step = newton_step(method.server.server, nodes, after, forget, ScifConfig(neighbours=0), seed=0)
    assert set(np.flatnonzero(step.any(axis=1))) <= set(endpoints(forget))
    withdrawal = Withdrawal("unshare", forget, np.array([0]))
    new = method.server.unlearn(trained, withdrawal, NoDevices(), seed=0)
    assert not new.model["nodes"][0].any()
    moved = (new.model["nodes"] != nodes).any(axis=1)
    assert 1 < moved.sum() <= len(endpoints(forget))


def test_the_neighbours_that_move_are_those_of_the_greatest_influence():
    data = tiny_data()
    forget = data.of_users([data.users[0]])
    strength = torch.arange(data.n_users + data.n_items).float()[:, None]
    all_of_them = selected(strength, data - forget, forget, 1)
    none, half = selected(strength, data - forget, forget, 0), selected(strength, data - forget, forget, 0.5)
    near = np.setdiff1d(all_of_them, none)
    assert all_of_them.tolist() == affected_nodes(data - forget, forget).tolist()
    assert np.setdiff1d(half, none).tolist() == near[len(near) // 2 :].tolist()


# --- RecEraser --------------------------------------------------------------------------------------------------------


ERASER = RECERASER(RecEraserConfig(dimension=8, steps=30, layers=2, shards=4, aggregation_steps=20))


@cache
def erased_from(users: tuple[int, ...]) -> tuple[Trained, Trained, MemoryDevices]:
    """Before and after some users withdrew all they share."""
    devices = MemoryDevices(Sharing.by_ratio(TRAIN, 1))
    trained = ERASER.server.train(devices.sharing.shared, engine_of(ERASER, devices), seed=0)
    after, withdrawal = withdraw(devices, "unshare", trained.shared.of_users(users))
    return trained, ERASER.server.unlearn(trained, withdrawal, engine_of(ERASER, after), seed=9), after


@pytest.mark.slow
def test_receraser_trains_only_the_touched_shards_again():
    trained, new, _ = erased_from((0, 1))
    partition = trained.memory.tables["partition"]
    touched = set(partition[:2].tolist())
    assert np.array_equal(new.memory.tables["partition"], partition)
    before, after = trained.memory.tables["shards"], new.memory.tables["shards"]
    assert 0 < len(touched) < 4
    assert {k for k in range(4) if not np.array_equal(before[k], after[k])} == touched
    again = [record["shard"] for record in new.log[len(trained.log) :] if "shard" in record]
    assert again == sorted(touched)


@pytest.mark.slow
def test_receraser_gives_what_training_without_the_withdrawn_gives_with_the_same_partition():
    trained, new, _ = erased_from((0, 1))
    partition, config = trained.memory.tables["partition"], trained.config
    start = replace(begun("receraser", config, 0, None), tables=nothing_learnt(config, new.shared, partition))
    fresh = fitted(new.shared, config, start, np.arange(4), keep_nothing, no_progress)
    assert_same_tables(new.model, fresh.model, rtol=0, atol=0)
    assert_same_tables(new.memory.tables, fresh.memory.tables, rtol=0, atol=0)


def test_receraser_leaves_what_it_was_given_as_it_was_and_goes_by_its_settings():
    trained, new, after = erased_from((0, 1))
    memory, forget = copied(trained.memory.tables), trained.shared.of_users([0, 1])
    other = RECERASER(RecEraserConfig(dimension=2, shards=2))
    withdrawal = Withdrawal("unshare", forget, np.array([0, 1]))
    again = other.server.unlearn(trained, withdrawal, engine_of(other, after), seed=1)
    assert_same_tables(again.model, new.model, rtol=0, atol=0)
    assert_same_tables(trained.memory.tables, memory, rtol=0, atol=0)
    assert (again.config, again.run) == (trained.config, trained.run)


def test_receraser_finds_the_held_out_items_before_and_after():
    trained, new, after = erased_from((0, 1))
    for model in (trained, new):
        found = evaluate(reader_of(ERASER, model, after), TRAIN, TEST)
        assert found.mean(np.arange(2, TRAIN.n_users))["recall@20"] > 0.9


@pytest.mark.slow
def test_receraser_bears_that_everything_is_withdrawn_and_refuses_to_train_on_nothing():
    _, new, after = erased_from(tuple(range(TRAIN.n_users)))
    assert len(new.shared) == 0
    assert not reader_of(ERASER, new, after).scores(np.arange(3), after.interactions).any()
    with pytest.raises(DataError, match="nothing is shared"):
        ERASER.server.train(new.shared, engine_of(ERASER, after), seed=0)


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


# --- trainings that were cut off --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "steps"),
    [(LIGHTGCN(LightGCNConfig(dimension=8, steps=5, layers=2)), 5), (ERASER, 4)],
    ids=["lightgcn", "receraser"],
)
def test_a_training_taken_up_after_any_step_is_the_undisturbed_one_bit_for_bit(system, steps):
    kept, server = [], system.server
    whole = server.train(TRAIN, NoDevices(), seed=3, keep=lambda make: kept.append(deepcopy(make())))
    assert [(one.stage, one.done, len(one.log)) for one in kept] == [("training", n, n) for n in range(1, steps + 1)]
    for checkpoint in kept:
        before = copied(checkpoint.tables)
        resumed = server.train(TRAIN, NoDevices(), seed=3, resume_from=checkpoint)
        assert_same_tables(resumed.model, whole.model, rtol=0, atol=0)
        assert_same_tables(resumed.memory.tables, whole.memory.tables, rtol=0, atol=0)
        assert_same_tables(checkpoint.tables, before, rtol=0, atol=0)
        assert (resumed.run, len(resumed.log)) == (whole.run, len(whole.log))
    with pytest.raises(ConfigError, match="the interrupted training was another one"):
        server.train(TRAIN, NoDevices(), seed=4, resume_from=kept[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["retrain", "finetune"])
def test_a_method_resumes_the_training_of_the_system_that_it_wraps(method):
    kept, server = [], make_method(method, SYSTEMS["lightgcn"]).server
    whole = server.train(TRAIN, NoDevices(), seed=3, keep=lambda make: kept.append(deepcopy(make())))
    resumed = server.train(TRAIN, NoDevices(), seed=3, resume_from=kept[7])
    assert_same_tables(resumed.model, whole.model, rtol=0, atol=0)


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", [SYSTEMS["lightgcn"], ERASER], ids=["lightgcn", "receraser"])
def test_a_device_of_a_central_system_does_nothing_and_reads_what_is_published_as_the_server_does(system):
    small = with_settings_of(system, steps=2)
    trained = small.server.train(TRAIN, NoDevices(), seed=0)
    reader = small.device.reader(trained.published, NOTHING_KEPT)
    mine, servers = (one.scores(np.arange(5), TRAIN) for one in (reader, small.server.recommender(trained)))
    np.testing.assert_array_equal(mine, servers)
    np.testing.assert_array_equal(mine, trained.model["users"][:5] @ trained.model["items"].T)
    assert (small.device.tasks, small.device.views(trained.published, NOTHING_KEPT)) == ({}, {})


def with_settings_of(system: System, **settings: int) -> System:
    return system.type(system.config.model_copy(update=settings))
