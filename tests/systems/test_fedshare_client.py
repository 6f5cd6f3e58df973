"""The law, and the vectorised client against the slow one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Interactions, Sharing
from retract.federation import Broadcast, Clients, LocalEngine
from retract.systems.fedshare import FedShareConfig
from retract.systems.fedshare.client import LocalEpoch
from tests.samples import numbered_catalog, random_interactions
from tests.systems.fedshare_oracle import run_one_client

CONFIG = FedShareConfig(dimension=8, negatives=2, contrast=0.3)


def broadcast_for(n_items: int, shared: bool = True, round: int = 4) -> Broadcast:
    draw = torch.Generator().manual_seed(1)
    tables = {"items": torch.randn(n_items, CONFIG.dimension, generator=draw), "coverage": torch.tensor(0.6)}
    if shared:
        tables["global_items"] = torch.randn(n_items, CONFIG.dimension, generator=draw)
    return Broadcast(round, tables)


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    """Equal to 1e-5 of the tensor's size."""
    assert (one - other).double().norm() <= 1e-5 * other.double().norm()


def fresh_engine(data: Interactions, **options) -> LocalEngine:
    return LocalEngine(Clients(Sharing.by_ratio(data, 0.5)), **options)


def run_in_parts(data, parts, **options):
    engine, task = fresh_engine(data, **options), LocalEpoch(CONFIG)
    updates = [engine.run(task, broadcast_for(data.n_items), part, seed=9) for part in parts]
    total = updates[0]
    for update in updates[1:]:
        total = total + update
    return total, engine


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_the_update_of_all_equals_the_sum_over_any_split_of_the_users(seed, n_parts):
    data = random_interactions(seed)
    users = data.active_users()
    colour = np.random.default_rng(seed).integers(0, n_parts, len(users))
    parts = [users[colour == part] for part in range(n_parts) if (colour == part).any()]
    whole, one = run_in_parts(data, [users])
    split, many = run_in_parts(data, parts)
    bounded, few = run_in_parts(data, [users], cohort_interactions=7)
    for update, engine in ((split, many), (bounded, few)):
        assert update.clients == whole.clients
        for name, tensor in whole.tensors.items():
            assert_same(update.tensors[name], tensor)
        for name, rows in one.clients.state.items():
            assert_same(engine.clients.state[name], rows)
        assert torch.equal(engine.traffic.up, one.traffic.up)
        assert torch.equal(engine.traffic.down, one.traffic.down)


@given(st.integers(0, 10_000), st.booleans())
def test_a_vectorised_cohort_equals_the_clients_one_at_a_time(seed, shared):
    data, task = random_interactions(seed), LocalEpoch(CONFIG)
    users, broadcast = data.active_users(), broadcast_for(data.n_items, shared)
    engine = fresh_engine(data)
    update = engine.run(task, broadcast, users, seed=9)
    start = task.start(users, 9)
    gradient, weight = torch.zeros(data.n_items, CONFIG.dimension), 0.0
    for row, user in enumerate(users):
        own = {name: rows[row] for name, rows in start.items()}
        part, mass, state, sent = run_one_client(int(user), data.items_of(user), own, broadcast, CONFIG, 9)
        gradient, weight = gradient + part, weight + mass
        assert int(engine.traffic.up[user]) == sent
        for name, value in state.items():
            assert_same(engine.clients.state[name][user], value)
    assert_same(update.tensors["item_gradient"], gradient)
    assert float(update.tensors["weight"]) == pytest.approx(weight, rel=1e-5)


def test_a_user_who_touched_every_item_adds_nothing_and_breaks_nothing():
    catalog = numbered_catalog(2, 4)
    data = Interactions.of(catalog, [0, 0, 0, 0, 1], [0, 1, 2, 3, 2])
    both, _ = run_in_parts(data, [np.array([0, 1])])
    other, _ = run_in_parts(data, [np.array([1])])
    torch.testing.assert_close(both.tensors["item_gradient"], other.tensors["item_gradient"])


def test_a_client_sends_rows_of_touched_items_only():
    data = random_interactions(3)
    update, _ = run_in_parts(data.of_users([2]), [np.array([2])])
    rows = update.tensors["item_gradient"].abs().sum(dim=1).nonzero().flatten()
    assert set(data.items_of(2)) <= set(rows.tolist())
    assert len(rows) <= len(data.items_of(2)) * (1 + CONFIG.negatives)


def test_a_client_receives_every_public_table_in_full():
    data = random_interactions(3)
    _, engine = run_in_parts(data, [data.active_users()])
    assert int(engine.traffic.down[data.active_users()[0]]) == 2 * data.n_items * CONFIG.dimension * 4 + 4
