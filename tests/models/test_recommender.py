"""Recommenders that need no training: a table read through a history, what is popular, and mixtures of scores."""

import numpy as np
import pytest

from retract.data import Interactions
from retract.errors import ConfigError
from retract.models.recommender import (
    DotProduct,
    HistoryReader,
    Mixed,
    OrPopular,
    fallback_of,
    read_history,
    recommend,
    standardised,
)
from tests.samples import numbered_catalog, random_interactions


def table(rows: int, seed: int = 0, dimension: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)


def test_inner_products_are_of_the_users_own_rows():
    users, items = table(5, 1), table(7, 2)
    scores = DotProduct(users, items).scores(np.array([3, 0, 3]), Interactions.empty(numbered_catalog(5, 7)))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [[users[u] @ row for row in items] for u in (3, 0, 3)], rtol=1e-5, atol=1e-6)


def test_a_history_is_the_sum_of_its_rows_over_the_root_of_their_number():
    history, items = random_interactions(1), table(15)
    users = np.array([7, 0, 7, 3])
    want = [items[history.items_of(user)].sum(axis=0) / max(len(history.items_of(user)), 1) ** 0.5 for user in users]
    read = read_history(users, history, items)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, want, rtol=1e-5, atol=1e-6)
    scores = HistoryReader(items).scores(users, history)
    np.testing.assert_allclose(scores, np.stack(want) @ items.T, rtol=1e-4, atol=1e-5)


def test_who_has_no_history_is_read_as_nothing():
    history = Interactions.of(numbered_catalog(3, 15), [0, 0], [1, 2])
    scores = HistoryReader(table(15)).scores(np.array([1, 0]), history)
    assert np.abs(scores[0]).max() == 0
    assert np.abs(scores[1]).max() > 0


def test_the_known_get_the_model_and_all_others_what_is_popular():
    history = Interactions.of(numbered_catalog(4, 3), [0, 0, 1, 2], [1, 2, 2, 2])
    inner = DotProduct(table(4, 1, 2), table(3, 2, 2))
    model = OrPopular(inner, history.user_degrees() > 0, history.item_degrees())
    users = np.array([3, 1, 3, 0])
    scores = model.scores(users, history)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores[[1, 3]], inner.scores(np.array([1, 0]), history))
    np.testing.assert_allclose(scores[[0, 2]], [[0.0, 1 / 3, 1.0]] * 2, rtol=1e-6)
    assert (fallback_of(model, 3), fallback_of(model, 0), fallback_of(inner, 3)) == ("popularity", None, None)


def test_where_nobody_has_anything_left_all_items_are_alike():
    empty = Interactions.empty(numbered_catalog(2, 3))
    nothing = DotProduct(np.zeros((2, 2), np.float32), np.zeros((3, 2), np.float32))
    model = OrPopular(nothing, empty.user_degrees() > 0, empty.item_degrees())
    assert not model.scores(np.arange(2), empty).any()


def test_mixed_scores_are_sums_of_scores_with_mean_0_and_deviation_1_per_user():
    history, users = random_interactions(1), np.array([2, 5])
    models = [HistoryReader(table(15, seed)) for seed in (1, 2)]
    one, other = (standardised(model.scores(users, history)) for model in models)
    np.testing.assert_allclose(one.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(one.std(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(Mixed(models, [1, 0.5]).scores(users, history), one + 0.5 * other, rtol=1e-5, atol=1e-6)
    assert not standardised(np.full((2, 4), 3, np.float32)).any()


class Popular:
    """Scores items by their number."""

    def scores(self, users, history):
        return np.tile(np.arange(history.n_items, dtype=np.float32), (len(users), 1))


def test_recommendations_leave_out_what_the_user_has_and_come_best_first():
    history = Interactions.of(numbered_catalog(2, 5), [0, 0, 1], [4, 2, 3])
    got = recommend(Popular(), np.array([0, 1]), history, 3)
    assert got.items.tolist() == [[3, 1, 0], [4, 2, 1]]


@pytest.mark.parametrize("k", [0, 6])
def test_k_outside_the_catalog_is_refused(k):
    history = Interactions.of(numbered_catalog(2, 5), [0], [4])
    with pytest.raises(ConfigError, match=f"k is {k}"):
        recommend(Popular(), np.array([0]), history, k)


def test_standardised_rows_have_mean_zero_and_deviation_one_and_constant_ones_vanish():
    rows = standardised(np.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]], np.float32))
    assert rows[0].mean() == pytest.approx(0, abs=1e-6)
    assert rows[0].std() == pytest.approx(1)
    assert rows[1].tolist() == [0, 0, 0]
