"""Metrics against cases with a known answer; `test_other_libraries` holds them against other people's."""

import numpy as np
import pytest

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
