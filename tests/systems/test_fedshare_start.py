"""The common start against dense linear algebra, the law of its task, and what a device makes of the view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Interactions, Sharing
from retract.federation import Kept, LocalEngine, RoundResult, payload_bytes
from retract.models.ease import item_weights, regularised_inverse
from retract.models.gram import gram_of
from retract.models.item_matrix import ItemToItem, Quantised, largest
from retract.models.recommender import standardised
from retract.stores.devices import MemoryDevices
from retract.systems.base import Published, task_spec
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.fedshare.client import LocalView, Weighted
from retract.systems.fedshare.config import VIEW
from retract.systems.fedshare.view import view_tables
from retract.systems.spectral.config import PROJECTION, projection_update
from retract.systems.spectral.subspace import Subspace
from tests.samples import checkerboard, numbered_catalog, random_interactions

CONFIG = FedShareConfig(dimension=3, oversampling=2, degree_prior=2.0)


def spec_for(n_items: int, config: FedShareConfig = CONFIG):
    width = min(config.dimension + config.oversampling, n_items)
    return task_spec(config, "fedshare", PROJECTION, "run", projection_update(n_items, width))


def engine_on(data: Interactions, **options) -> LocalEngine:
    return LocalEngine(MemoryDevices(Sharing.by_ratio(data, 0.5)), FEDSHARE(CONFIG).device.tasks, **options)


def found(data: Interactions, config: FedShareConfig, rounds: int) -> Subspace:
    subspace, engine = Subspace(data.n_items, config, 0), engine_on(data)
    for round in range(rounds):
        subspace.apply(engine.run(spec_for(data.n_items, config), subspace.broadcast(round), engine.users, seed=0))
    return subspace


def dense(data: Interactions, prior: float) -> np.ndarray:
    """(D_u + τ)^{-1/2} X (D_i + τ)^{-1/2}."""
    matrix = data.csr(np.ones(len(data))).toarray()
    users, items = (np.maximum(matrix.sum(axis=axis) + prior, 1e-12) ** -0.5 for axis in (1, 0))
    return users[:, None] * matrix * items


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_the_projection_of_all_equals_the_sum_over_any_split_of_the_users(seed, n_parts):
    data = random_interactions(seed)
    users, subspace = data.active_users(), Subspace(data.n_items, CONFIG, 0)
    colour = np.random.default_rng(seed).integers(0, n_parts, len(users))
    whole, split = engine_on(data, cohort_interactions=10**6), engine_on(data, cohort_interactions=20)
    once = whole.run(spec_for(data.n_items), subspace.broadcast(0), users, seed=0)
    parts = [users[colour == part] for part in range(n_parts) if (colour == part).any()]
    results = [split.run(spec_for(data.n_items), subspace.broadcast(0), part, seed=0) for part in parts]
    total = results[0].update
    for result in results[1:]:
        total = total + result.update
    for name, tensor in once.update.tensors.items():
        np.testing.assert_allclose(total.tensors[name], tensor, rtol=1e-5, atol=1e-6)
    assert sum(result.bytes_up for result in results) == once.bytes_up


@given(st.integers(0, 10_000))
def test_what_a_client_sends_are_its_own_rows_and_their_bytes_are_counted(seed):
    data, subspace = random_interactions(seed), Subspace(15, CONFIG, 0)
    for user in data.active_users():
        result = engine_on(data).run(spec_for(15), subspace.broadcast(0), np.array([user]), seed=0)
        assert result.bytes_up == payload_bytes(result.update)
        assert np.flatnonzero(result.update.tensors["degrees"]).tolist() == data.items_of(user).tolist()


@pytest.mark.parametrize("prior", [0.0, 2.0, 20.0])
@pytest.mark.parametrize(("oversampling", "rounds", "tolerance"), [(11, 2, 1e-4), (6, 30, 1e-3)])
def test_the_clients_find_the_leading_singular_vectors_together(prior, oversampling, rounds, tolerance):
    data = random_interactions(4)
    config = FedShareConfig(dimension=4, oversampling=oversampling, degree_prior=prior, noise=0.0)
    table = found(data, config, rounds).table(0.2)
    _, _, right = np.linalg.svd(dense(data, prior), full_matrices=False)
    lengths = np.linalg.norm(table, axis=0)
    np.testing.assert_allclose(lengths, data.n_items**0.5 * config.start_scale, rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(right[:4].T * (table / lengths), axis=0)), 1, atol=tolerance)


def test_all_its_columns_are_found_where_the_rank_is_lower_than_asked():
    data = random_interactions(2)
    table = found(data, FedShareConfig(dimension=40, noise=0.0), 3).table(0.2)
    assert np.isfinite(table).all()
    assert 0 < (table != 0).any(axis=0).sum() <= min(data.n_users, data.n_items)


def test_what_does_not_stand_out_of_the_noise_is_dropped_and_the_leading_vector_never():
    draw = np.random.default_rng(0)
    base = checkerboard()[0]
    users, items = draw.integers(0, 200, 1200), draw.integers(0, 150, 1200)
    noise = Interactions.of(numbered_catalog(200, 150), users, items)
    tables = [found(data, FedShareConfig(dimension=8), 8).table(0.2) for data in (base, noise)]
    kept = [int((table != 0).any(axis=0).sum()) for table in tables]
    assert kept[0] >= 2  # the two blocks of the checkerboard
    assert kept[1] < 8
    drowned = found(noise, FedShareConfig(dimension=8, noise=100.0), 4).table(0.2)
    assert (drowned != 0).any(axis=0).tolist() == [True] + [False] * 7


def test_a_step_that_nobody_answers_changes_nothing():
    data = random_interactions(3)
    subspace = found(data, CONFIG, 2)
    before = subspace.tables
    nobody = RoundResult(projection_update(15, 5).zeros(), np.empty(0, np.int64), np.empty(0, np.int64), 0, 0)
    subspace.apply(nobody)
    for name, table in before.items():
        np.testing.assert_array_equal(subspace.tables[name], table)
    assert not Subspace(15, CONFIG, 0).table(0.2).any()


# --- the view ---------------------------------------------------------------------------------------------------------


def test_the_view_is_ease_of_what_is_shared_in_eight_bits():
    shared = checkerboard()[0]
    config = FedShareConfig(ridge=5.0)
    view = ItemToItem.among(view_tables(shared, config), VIEW)
    exact = item_weights(regularised_inverse(gram_of(shared, config.ease_exponent), 5.0))
    assert view is not None
    step = np.abs(exact).max(axis=1, keepdims=True) / 127
    assert (np.abs(view.matrix.toarray() - exact) <= 0.51 * step).all()
    assert view_tables(Interactions.empty(shared.catalog), config) == {}


def test_the_view_keeps_to_its_size_and_to_the_items_shared_most():
    shared = checkerboard()[0]
    small = view_tables(shared, FedShareConfig(view_mb=0.001))
    assert small["view.levels"].nbytes + small["view.indices"].nbytes <= 1000
    few = ItemToItem.among(view_tables(shared, FedShareConfig(view_items=3)), VIEW)
    assert few is not None
    frequent = np.argsort(-shared.item_degrees(), kind="stable")[:3]
    assert set(np.flatnonzero(few.matrix.getnnz(axis=1))) <= set(frequent)


def test_a_quantised_matrix_comes_back_within_half_a_level():
    draw = np.random.default_rng(1)
    matrix = largest(np.where(draw.random((9, 9)) < 0.5, draw.normal(size=(9, 9)), 0), 30)
    again = Quantised.among(Quantised.of(matrix).tables("m"), "m")
    assert again is not None
    step = np.abs(matrix.toarray()).max(axis=1, keepdims=True) / 127
    assert (np.abs(again.matrix.toarray() - matrix.toarray()) <= 0.51 * step + 1e-7).all()
    assert Quantised.among({}, "m") is None


def test_the_weight_of_the_view_is_decided_where_the_user_is():
    data = random_interactions(3)
    shared, users = data.of_users([1, 2]), data.active_users()
    config = FedShareConfig(dimension=4, mix=0.4, mix_exponent=0.5, own_exponent=0.5, short_history=3.0)
    draw = np.random.default_rng(0)
    tables = {"items": draw.normal(size=(15, 4)).astype(np.float32), "coverage": np.float32(0.25)}
    tables |= view_tables(shared, config)
    kept = Kept(held=data, shared=shared)
    reader = FEDSHARE(config).device.reader(Published("fedshare", config, 0, "run", tables), kept)
    assert isinstance(reader, Weighted)
    n, own = data.user_degrees()[users], np.isin(users, [1, 2])
    np.testing.assert_allclose(reader.weights(users, data), 0.4 * 0.5 * own * n / (n + 3), rtol=1e-6)
    local = standardised(LocalView(tables["items"], kept).scores(users, data))
    np.testing.assert_allclose(reader.scores(users, data)[~own], local[~own], rtol=1e-5)
    assert not np.allclose(reader.scores(users, data)[own], local[own], atol=1e-3)
    unknown = Weighted(reader.local, reader.shared, config, 0.25, Kept())
    np.testing.assert_allclose(unknown.weights(users, data), 0.4 * 0.5 * 0.5 * n / (n + 3), rtol=1e-6)
