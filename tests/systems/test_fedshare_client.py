"""The law, the vectorised client against the slow one, and what devices read."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Interactions, Sharing
from retract.errors import FederationError
from retract.federation import NOTHING_KEPT, Broadcast, Kept, LocalEngine, payload_bytes
from retract.models.recommender import read_history, standardised
from retract.stores.devices import MemoryDevices
from retract.systems.base import Published, task_spec
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.fedshare.config import EPOCH, epoch_update
from retract.systems.fedshare.local_epoch import LocalEpoch
from tests.samples import numbered_catalog, random_interactions
from tests.systems.fedshare_oracle import run_one_client

CONFIG = FedShareConfig(form="paper", dimension=8, negatives=2, contrast=0.3)
DEVICE = FEDSHARE(CONFIG).device


def broadcast_for(n_items: int, shared: bool = True, round: int = 4) -> Broadcast:
    draw = np.random.default_rng(1)
    names = ("items", "global_items") if shared else ("items",)
    tables = {name: draw.normal(size=(n_items, CONFIG.dimension)).astype(np.float32) for name in names}
    return Broadcast(round, {**tables, "coverage": np.float32(0.6)})


def spec_for(n_items: int):
    return task_spec(CONFIG, "fedshare", EPOCH, "run", epoch_update(n_items, CONFIG.dimension))


def assert_same(one: np.ndarray, other: np.ndarray, part: float = 1e-5) -> None:
    """Equal to a part of the array's size."""
    assert np.linalg.norm((one - other).astype(np.float64)) <= part * np.linalg.norm(other.astype(np.float64))


def engine_on(data: Interactions, **options) -> LocalEngine:
    return LocalEngine(MemoryDevices(Sharing.by_ratio(data, 0.5)), DEVICE.tasks, **options)


def run_in_parts(data, parts, **options):
    engine, spec = engine_on(data, **options), spec_for(data.n_items)
    updates = [engine.run(spec, broadcast_for(data.n_items), part, seed=9).update for part in parts]
    total = updates[0]
    for update in updates[1:]:
        total = total + update
    return total, engine


@pytest.mark.slow
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
        state, other = engine.devices.kept("run"), one.devices.kept("run")
        assert state.clients.tolist() == other.clients.tolist() == users.tolist()
        for name, rows in other.state.items():
            assert_same(state.state[name], rows)
        assert (engine.traffic.up, engine.traffic.down) == (one.traffic.up, one.traffic.down)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.booleans())
def test_a_vectorised_cohort_equals_the_clients_one_at_a_time(seed, shared):
    data, spec = random_interactions(seed), spec_for(15)
    users, broadcast = data.active_users(), broadcast_for(data.n_items, shared)
    engine = engine_on(data)
    result = engine.run(spec, broadcast, users, seed=9)
    start, kept = LocalEpoch(spec).start(users, data.n_items, 9), engine.devices.kept("run")
    gradient, weight, sent = np.zeros((data.n_items, CONFIG.dimension), dtype=np.float32), 0.0, 0
    for row, user in enumerate(users):
        own = {name: rows[row] for name, rows in start.items()}
        part, mass, state, bytes_sent = run_one_client(int(user), data.items_of(user), own, broadcast, CONFIG, 9)
        gradient, weight, sent = gradient + part, weight + mass, sent + bytes_sent
        for name, value in state.items():
            assert_same(kept.state[name][row], value, 2e-4)  # a gradient near Adam's epsilon is mostly rounding
    assert_same(result.update.tensors["item_gradient"], gradient)
    assert float(result.update.tensors["weight"]) == pytest.approx(weight, rel=1e-5)
    assert int(result.update.tensors["interactions"]) == len(data)
    assert result.bytes_up == sent


@pytest.mark.slow
@given(st.integers(0, 10_000))
def test_what_a_client_is_said_to_send_is_what_its_update_weighs(seed):
    data = random_interactions(seed)
    for user in data.active_users():
        engine = engine_on(data)
        result = engine.run(spec_for(data.n_items), broadcast_for(data.n_items), np.array([user]), seed=9)
        if len(data.items_of(user)) < data.n_items:  # else every row is zero
            assert result.bytes_up == payload_bytes(result.update)


def test_a_user_who_touched_every_item_adds_nothing_and_breaks_nothing():
    catalog = numbered_catalog(2, 4)
    data = Interactions.of(catalog, [0, 0, 0, 0, 1], [0, 1, 2, 3, 2])
    both, _ = run_in_parts(data, [np.array([0, 1])])
    other, _ = run_in_parts(data, [np.array([1])])
    np.testing.assert_allclose(both.tensors["item_gradient"], other.tensors["item_gradient"], rtol=1e-5, atol=1e-6)


def test_a_client_sends_rows_of_touched_items_only():
    data = random_interactions(3)
    update, _ = run_in_parts(data.of_users([2]), [np.array([2])])
    rows = np.flatnonzero(np.abs(update.tensors["item_gradient"]).sum(axis=1))
    assert set(data.items_of(2)) <= set(rows.tolist())
    assert len(rows) <= len(data.items_of(2)) * (1 + CONFIG.negatives)


def test_a_client_receives_every_public_table_in_full():
    data = random_interactions(3)
    _, engine = run_in_parts(data, [data.active_users()[:1]])
    assert engine.traffic.down == 2 * data.n_items * CONFIG.dimension * 4 + 4


def test_an_update_of_another_catalog_is_refused():
    data = random_interactions(3)
    spec = replace(spec_for(data.n_items), update=epoch_update(data.n_items + 1, CONFIG.dimension))
    with pytest.raises(FederationError, match="item_gradient"):
        engine_on(data).run(spec, broadcast_for(data.n_items), data.active_users(), seed=9)


def test_an_epoch_writes_into_nothing_that_it_is_given():
    data = random_interactions(3)
    users, broadcast, spec = data.active_users(), broadcast_for(data.n_items), spec_for(data.n_items)
    task, engine = LocalEpoch(spec), engine_on(data)
    (cohort,) = engine.devices.cohorts(spec, users, 10**6)
    state = task.start(users, data.n_items, 9)
    for array in (*state.values(), *(np.asarray(table) for table in broadcast.tables.values())):
        array.flags.writeable = False
    reply = task(broadcast, cohort, state, 9)
    again = task(broadcast, cohort, state, 9)
    for name, tensor in reply.update.tensors.items():
        np.testing.assert_array_equal(tensor, again.update.tensors[name])
    assert (reply.state["steps"] == 1).all()


# --- what devices read ------------------------------------------------------------------------------------------------


def published(shared: bool = True) -> Published:
    tables = broadcast_for(15, shared).tables
    return Published("fedshare", CONFIG, 0, "run", tables)


def kept_by(users: list[int], held: Interactions | None) -> Kept:
    vectors = np.random.default_rng(2).normal(size=(len(users), CONFIG.dimension)).astype(np.float32)
    return Kept(np.array(users), {"vector": vectors}, None, held)


@pytest.mark.parametrize("shared", [True, False])
def test_a_device_mixes_its_own_view_with_the_global_one_by_what_is_shared(shared):
    data, users = random_interactions(3), np.array([4, 1, 7])
    model, kept = published(shared), kept_by([1, 4], data)
    vectors = np.zeros((3, CONFIG.dimension), dtype=np.float32)
    vectors[0], vectors[1] = kept.state["vector"][1], kept.state["vector"][0]
    items = model.tables["items"]
    expected = standardised((vectors + read_history(users, data, items)) @ items.T)
    if shared:
        table = model.tables["global_items"]
        mix = CONFIG.mix * 0.6**CONFIG.mix_exponent
        expected = (1 - mix) * expected + mix * standardised(read_history(users, data, table) @ table.T)
    np.testing.assert_allclose(DEVICE.reader(model, kept).scores(users, data), expected, rtol=1e-4, atol=1e-5)


def test_a_device_without_state_reads_its_history_alone():
    data, users = random_interactions(3), np.array([4, 1, 7])
    model = published(shared=False)
    items = model.tables["items"]
    expected = standardised(read_history(users, data, items) @ items.T)
    np.testing.assert_allclose(DEVICE.reader(model, NOTHING_KEPT).scores(users, data), expected, rtol=1e-4, atol=1e-5)
    assert DEVICE.views(model, NOTHING_KEPT) == {}


def test_the_view_of_the_devices_has_zeros_for_who_keeps_nothing():
    data = random_interactions(3)
    model, kept = published(), kept_by([1, 4], data)
    view = DEVICE.views(model, kept)["devices"]
    scores = view.scores(np.arange(data.n_users), data)
    np.testing.assert_allclose(scores[[1, 4]], kept.state["vector"] @ model.tables["items"].T, rtol=1e-5)
    assert not scores[np.setdiff1d(np.arange(data.n_users), [1, 4])].any()
