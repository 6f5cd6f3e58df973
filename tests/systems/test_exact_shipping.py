"""The shipped model: small, right, private, and refused when it is not whole. And the choice of settings."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError, FolderError, UnknownIdError
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of
from retract.systems.exact import EXACT, ExactConfig
from retract.systems.exact.shipping import ShippedModel, gaussian_deviation, noisy_gram, ship
from retract.systems.exact.tuning import tune
from tests.samples import checkerboard, numbered_catalog, random_interactions

SPECTRAL = {
    "form": "spectral",
    "dimension": 12,
    "degree_prior": 2.0,
    "blend": 0.0,
    "popularity": 0.25,
    "filter_beta": 0.4,
}
FORMS = [{"form": "ease", "ridge": 2.0}, {"form": "filter", "filter_beta": 0.4}, SPECTRAL]


def trained_on(data, **settings):
    system = EXACT(ExactConfig(**settings))
    devices = MemoryDevices(Sharing.by_ratio(data, 1))
    trained = system.server.train(data, engine_of(system, devices), seed=0)
    return trained, reader_of(system, trained, devices)


@pytest.mark.parametrize("settings", FORMS)
def test_a_shipped_model_with_room_scores_like_the_whole_one(settings):
    data = random_interactions(5, 60, 40)
    trained, whole = trained_on(data, **settings)
    model = ShippedModel.from_bytes(ship(trained))
    users = data.active_users()
    want, got = whole.scores(users, data), model.scores(users, data)
    unseen = data.csr()[users].toarray() == 0
    assert np.abs(got - want)[unseen].max() < 0.02 * np.abs(want[unseen]).max()


def test_less_room_keeps_the_leading_columns_of_the_spectral_form():
    trained, _ = trained_on(random_interactions(5, 60, 400), **SPECTRAL)
    large = ship(trained)
    small = ship(trained, max_bytes=len(large) * 2 // 3)
    whole, part = (ShippedModel.from_bytes(content).folding for content in (large, small))
    assert len(small) <= len(large) * 2 // 3
    assert 0 < part.levels.shape[1] < whole.levels.shape[1] == 12
    np.testing.assert_array_equal(part.support, trained.model["degrees"])
    assert part.numbers == whole.numbers


@pytest.mark.parametrize("settings", FORMS[:2])
def test_less_room_keeps_the_largest_entries(settings):
    trained, _ = trained_on(random_interactions(5, 60, 40), **settings)
    large = ship(trained)
    small = ship(trained, max_bytes=len(large) * 2 // 3)
    whole, part = (ShippedModel.from_bytes(content).matrix for content in (large, small))
    assert len(small) <= len(large) * 2 // 3
    assert 0 < part.nnz < whole.nnz
    assert np.abs(part.data).sum() / part.nnz > np.abs(whole.data).sum() / whole.nnz


@given(st.integers(0, 1000), st.integers(1, 50))
def test_a_file_gives_back_ids_titles_and_the_matrix_to_eight_bits(seed, n):
    draw = np.random.default_rng(seed)
    matrix = sp.random(n, n, 0.3, format="csr", dtype=np.float32, random_state=draw)
    ids = np.array([f"i{k}" for k in range(n)])
    back = ShippedModel.from_bytes(ShippedModel(ids, np.char.add("Ü ", ids), matrix).to_bytes())
    assert back.item_ids.tolist() == ids.tolist()
    assert back.titles.tolist() == [f"Ü {name}" for name in ids]
    assert np.abs(back.matrix.toarray() - matrix.toarray()).max(initial=0) <= matrix.max() / 127


def test_a_client_recommends_from_its_own_items_alone():
    train, _ = checkerboard()
    model = ShippedModel.from_bytes(ship(trained_on(train)[0]))
    found = model.recommend(["i0", "i4"], 5)
    assert all(int(item[1:]) % 2 == 0 and item not in ("i0", "i4") for item, _, _ in found)
    assert [score for _, _, score in found] == sorted((score for _, _, score in found), reverse=True)
    with pytest.raises(UnknownIdError, match="unknown item 'i99'; nearest known ids: i9"):
        model.recommend(["i99"])


def test_what_is_no_whole_shipped_model_is_refused():
    content = ship(trained_on(checkerboard()[0])[0])
    for broken, message in ((b"", "is not a shipped"), (content[:-20], "is damaged"), (content[:40], "is damaged")):
        with pytest.raises(FolderError, match=message):
            ShippedModel.from_bytes(broken)
    with pytest.raises(ConfigError, match="too few for a catalog of 40 items"):
        ship(trained_on(checkerboard()[0])[0], max_bytes=50)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-6), (1, 1e-5), (8, 1e-6), (100, 1e-3)])
def test_the_deviation_is_the_least_that_is_private(epsilon, delta):
    def leak(deviation):
        half = 0.5 / deviation
        return norm.cdf(half - epsilon * deviation) - np.exp(epsilon) * norm.cdf(-half - epsilon * deviation)

    deviation = gaussian_deviation(epsilon, delta)
    assert leak(deviation) == pytest.approx(delta, rel=1e-3)
    assert leak(0.99 * deviation) > delta


def test_no_user_moves_the_noisy_sums_by_more_than_one():
    data = random_interactions(2, 30, 20)
    config = ExactConfig(ease_exponent=0)
    whole, _ = noisy_gram(data, config, 1, 1e-6, np.random.default_rng(4))
    for user in data.active_users():
        less, _ = noisy_gram(data - data.of_users([user]), config, 1, 1e-6, np.random.default_rng(4))
        assert np.linalg.norm(whole - less) <= 1 + 1e-6


def test_the_noise_cannot_be_drawn_again():
    for form in ("ease", "filter", "spectral"):
        trained, _ = trained_on(checkerboard()[0], form=form)
        assert ship(trained, epsilon=1) != ship(trained, epsilon=1)


def test_noise_is_refused_where_it_would_promise_too_much():
    data = checkerboard()[0]
    with pytest.raises(ConfigError, match="count_private sums more"):
        ship(trained_on(data, count_private=True)[0], epsilon=1)
    with pytest.raises(ConfigError, match="epsilon -1 must be above 0"):
        ship(trained_on(data)[0], epsilon=-1)


def test_tuning_tries_the_whole_grid_and_puts_the_best_first():
    data = random_interactions(3, 80, 30, density=0.4)
    steps, grid = [], {"ridge": [1, 1e6], "ease_exponent": [0, 0.5]}
    found = tune(data, ExactConfig(form="ease"), grid=grid, progress=lambda *step: steps.append(step))
    assert len(found) == 4
    assert [one.ndcg for one in found] == sorted((one.ndcg for one in found), reverse=True)
    assert steps[-1] == ("tuning", 4, 4)
    again = tune(data, ExactConfig(form="ease"), grid=grid)
    assert [one.settings for one in again] == [one.settings for one in found]


@pytest.mark.parametrize("settings", FORMS)
def test_every_form_has_a_usual_grid(settings):
    assert tune(random_interactions(3, 40, 30), ExactConfig(**settings))


def test_tuning_needs_something_to_hold_out():
    data = Interactions.of(numbered_catalog(3, 3), [0, 1, 2], [0, 1, 2])
    with pytest.raises(DataError, match="nobody shares enough"):
        tune(data, ExactConfig())
