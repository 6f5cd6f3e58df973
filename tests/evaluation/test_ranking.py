"""Metrics against a well-kept library and against cases with a known answer."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rectools import Columns
from rectools.metrics import NDCG, Recall

from retract.data import Interactions
from retract.errors import ConfigError
from retract.evaluation.ranking import evaluate, percentile_ranks
from retract.models.recommender import recommend
from tests.samples import numbered_catalog, random_interactions


class Fixed:
    """A recommender with given scores."""

    def __init__(self, table):
        self.table = np.asarray(table, dtype=np.float32)

    def scores(self, users, history):
        return self.table[users]


def frame(data, rank=None):
    columns = {Columns.User: data.users, Columns.Item: data.items}
    return pd.DataFrame(columns if rank is None else {**columns, Columns.Rank: rank})


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(1, 10))
def test_recall_and_ndcg_equal_those_of_rectools(seed, k):
    history = random_interactions(seed)
    test = random_interactions(seed + 1) - history
    if not len(test):
        return
    model = Fixed(np.random.default_rng(seed).normal(size=(test.n_users, test.n_items)))
    got = evaluate(model, history, test, k).mean()
    users = test.active_users()
    ranking = recommend(model, users, history, k)
    rows = [
        (user, item, rank + 1)
        for user, items, scores in zip(users, ranking.items, ranking.scores, strict=True)
        for rank, (item, score) in enumerate(zip(items, scores, strict=True))
        if np.isfinite(score)
    ]
    listed = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Rank])
    assert got[f"recall@{k}"] == pytest.approx(Recall(k).calc(listed, frame(test)))
    want = NDCG(k, divide_by_achievable=True).calc(listed, frame(test))
    assert got[f"ndcg@{k}"] == pytest.approx(want)


def test_a_perfect_ranking_scores_one_and_seen_items_are_left_out():
    catalog = numbered_catalog(1, 4)
    history, test = Interactions.of(catalog, [0], [0]), Interactions.of(catalog, [0, 0], [1, 2])
    model = Fixed([[9.0, 3.0, 2.0, 1.0]])
    assert evaluate(model, history, test, 2).mean() == {"recall@2": 1.0, "ndcg@2": 1.0}
    assert recommend(model, np.array([0]), history, 2).items.tolist() == [[1, 2]]


def test_k_outside_the_catalog_is_refused_with_the_range():
    history = random_interactions(0)
    for k in (0, history.n_items + 1):
        with pytest.raises(ConfigError, match=f"k is {k}: it must lie between 1 and the 15 items"):
            recommend(Fixed(np.zeros((12, 15))), np.array([0]), history, k)


def test_percentile_ranks_run_from_zero_at_the_top_to_one_at_the_bottom_and_ties_count_half():
    catalog = numbered_catalog(2, 5)
    of = Interactions.of(catalog, [0, 0, 1], [0, 4, 2])
    model = Fixed([[5, 4, 3, 2, 1], [7, 7, 7, 7, 7]])
    np.testing.assert_allclose(percentile_ranks(model, of, of), [0.0, 1.0, 0.5])
