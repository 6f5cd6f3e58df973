"""Our metrics against those of RecTools and LensKit, on the same lists.

The definitions differ, and these options make them the same:

- RecTools' `NDCG` divides by the gain of k hits, which a user with fewer test items cannot have; with
  `divide_by_achievable` it divides by that of min(k, |test items|) hits, as ours does.
- LensKit's `NDCG` does not discount the second place: its ranks are clipped at 2. `LogRankWeight(offset=1)` is the
  log2(rank + 1) of everybody else.
- LensKit's `Recall(k)` divides by min(k, |test items|). `Recall()`, of lists that were cut at k before, divides by all
  test items, as ours and RecTools' do.
- LensKit averages RMSE and MAE over users or over all ratings; ours is its aggregate over all ratings. RecTools has
  neither. A mean percentile rank over all items neither library has; SciPy's ranks are the reference there.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lenskit.data import ItemList
from lenskit.metrics import MAE, NDCG, RMSE, Recall
from lenskit.metrics.ranking import LogRankWeight
from numpy.typing import NDArray
from rectools import Columns
from rectools import metrics as rectools
from scipy.stats import rankdata

from retract.data import Interactions
from retract.evaluation.ranking import evaluate, percentile_ranks
from retract.evaluation.rating import rating_errors
from retract.models.recommender import Scores, recommend
from tests.samples import numbered_catalog, random_interactions

pytestmark = pytest.mark.slow

N_USERS, N_ITEMS = 12, 15
EXACT = {"rtol": 0, "atol": 1e-9}


class Fixed:
    """Given scores without ties, which are predicted ratings too."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.table = draw.permutation(N_USERS * N_ITEMS).reshape(N_USERS, N_ITEMS).astype(np.float32)

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        return self.table[users]

    def ratings(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        return self.table[users] / 32  # LensKit keeps 32 bits of it


def parted(seed: int) -> tuple[Interactions, Interactions]:
    """A history and a test part: some users have none of the one or the other, some nearly all items in both."""
    history = random_interactions(seed, N_USERS, N_ITEMS, density=0.5)
    return history, random_interactions(seed + 1, N_USERS, N_ITEMS) - history


def lists(model: Fixed, history: Interactions, users: NDArray[np.int64], k: int) -> dict[int, list[int]]:
    """What our commands would show: no item of the history, and fewer than k where fewer are left."""
    found = recommend(model, users, history, min(k, N_ITEMS))
    rows = zip(users.tolist(), found.items, np.isfinite(found.scores), strict=True)
    return {user: items[left].tolist() for user, items, left in rows}


@given(st.integers(0, 10_000), st.integers(1, 25))
def test_recall_and_ndcg_of_every_user_equal_those_of_both_libraries(seed: int, k: int) -> None:
    history, test = parted(seed)
    model, users = Fixed(seed), test.active_users()
    if not len(users):
        return
    ours, listed = evaluate(model, history, test, k), lists(model, history, users, k)
    assert ours.users.tolist() == users.tolist()

    truth = pd.DataFrame({Columns.User: test.users, Columns.Item: test.items})
    rows = [(user, item, at + 1) for user, items in listed.items() for at, item in enumerate(items)]
    frame = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Rank])
    recall = rectools.Recall(k).calc_per_user(frame, truth)
    ndcg = rectools.NDCG(k, divide_by_achievable=True).calc_per_user(frame, truth)
    np.testing.assert_allclose(ours.recall, recall.reindex(users, fill_value=0), **EXACT)
    np.testing.assert_allclose(ours.ndcg, ndcg.reindex(users, fill_value=0), **EXACT)

    pairs = [(ItemList(listed[user], ordered=True), ItemList(test.items_of(user).tolist())) for user in listed]
    weight = LogRankWeight(offset=1)
    np.testing.assert_allclose(ours.recall, [Recall().measure_list(*pair) for pair in pairs], **EXACT)
    np.testing.assert_allclose(ours.ndcg, [NDCG(k, weight=weight).measure_list(*pair) for pair in pairs], **EXACT)


@given(st.integers(0, 10_000), st.integers(1, 25))
def test_the_means_equal_those_of_rectools_where_users_without_test_items_do_not_count(seed: int, k: int) -> None:
    history, test = parted(seed)
    model, users = Fixed(seed), np.arange(N_USERS)
    if not len(test):
        return
    rows = [
        (user, item, at + 1) for user, items in lists(model, history, users, k).items() for at, item in enumerate(items)
    ]
    frame = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Rank])
    truth = pd.DataFrame({Columns.User: test.users, Columns.Item: test.items})
    want = rectools.Recall(k).calc(frame, truth), rectools.NDCG(k, divide_by_achievable=True).calc(frame, truth)
    np.testing.assert_allclose(list(evaluate(model, history, test, k).mean().values()), want, **EXACT)


@given(st.integers(0, 10_000))
def test_an_item_that_is_in_the_history_too_is_in_no_list_and_so_no_hit(seed: int) -> None:
    history, test = parted(seed)
    test = test | history
    model, users = Fixed(seed), test.active_users()
    if not len(users):
        return
    listed = lists(model, history, users, N_ITEMS)
    want = [
        len(np.intersect1d(listed[user], test.items_of(user))) / len(test.items_of(user)) for user in users.tolist()
    ]
    np.testing.assert_allclose(evaluate(model, history, test, N_ITEMS).recall, want, **EXACT)


@given(st.integers(0, 10_000))
def test_rating_errors_equal_those_of_lenskit(seed: int) -> None:
    pairs = random_interactions(seed, N_USERS, N_ITEMS)
    if not len(pairs):
        return
    given_ = np.random.default_rng(seed).integers(1, 6, len(pairs))
    test = Interactions.of(numbered_catalog(N_USERS, N_ITEMS), pairs.users, pairs.items, given_)
    model, ours = Fixed(seed), rating_errors(Fixed(seed), pairs, test)
    said = model.ratings(test.users, test)[np.arange(len(test)), test.items].astype(np.float64)
    parts = [test.users == user for user in test.active_users()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for metric, value in ((RMSE(), ours.rmse), (MAE(), ours.mae)):
            each = [
                metric.compute_list_data(
                    ItemList(test.items[part], scores=said[part]), ItemList(test.items[part], rating=test.ratings[part])
                )
                for part in parts
            ]
            np.testing.assert_allclose(value, metric.global_aggregate(each), **EXACT)


@given(st.integers(0, 10_000), st.booleans())
def test_percentile_ranks_are_the_mean_ranks_of_scipy_from_zero_to_one(seed: int, ties: bool) -> None:
    of, model = random_interactions(seed, N_USERS, N_ITEMS), Fixed(seed)
    if ties:
        model.table = np.floor(model.table / 20)
    want = (rankdata(-model.table, axis=1) - 1) / (N_ITEMS - 1)
    np.testing.assert_allclose(percentile_ranks(model, of, of), want[of.users, of.items], **EXACT)
