"""Rating errors against their definition."""

import numpy as np
import pytest

from retract.data import Interactions
from retract.evaluation import ranking
from retract.evaluation.rating import rating_errors
from tests.samples import numbered_catalog


class Says:
    """Predicts what a table holds."""

    def __init__(self, table):
        self.table = np.asarray(table, dtype=np.float32)

    def ratings(self, users, history):
        return self.table[users]


def rated(seed=0):
    draw = np.random.default_rng(seed)
    users, items = np.nonzero(draw.random((7, 9)) < 0.5)
    return Interactions.of(numbered_catalog(7, 9), users, items, draw.integers(1, 6, len(users))), draw.random((7, 9))


@pytest.mark.parametrize("scores_at_once", [1, 20, 10**6])
def test_errors_are_predicted_less_given_in_the_order_of_the_test_part(scores_at_once, monkeypatch):
    monkeypatch.setattr(ranking, "BATCH_SCORES", scores_at_once)
    test, table = rated()
    found = rating_errors(Says(table), test, test)
    triples = zip(test.users, test.items, test.ratings, strict=True)
    expected = [table[user, item] - rating for user, item, rating in triples]
    np.testing.assert_allclose(found.errors, expected, rtol=1e-6)
    assert found.rmse == pytest.approx(np.sqrt(np.mean(np.square(expected))))
    assert found.mae == pytest.approx(np.mean(np.abs(expected)))


def test_nothing_to_judge_is_nan():
    test, table = rated()
    for nothing in (test.where(np.zeros(len(test), dtype=bool)), Interactions.of(test.catalog, [0], [1])):
        found = rating_errors(Says(table), test, nothing)
        assert np.isnan(found.rmse)
        assert np.isnan(found.mae)
