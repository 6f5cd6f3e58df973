"""Losses and rankings against their formulas, written out."""

import math

import numpy as np
import pytest
import torch

from retract.data import Interactions
from retract.errors import ConfigError
from retract.models.losses import activity_weights, aligned_info_nce, bpr, info_nce
from retract.models.recommender import recommend, standardised
from tests.samples import numbered_catalog


def cosine(a, b) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def test_bpr_is_minus_the_log_of_the_sigmoid_of_the_difference():
    want = -math.log(1 / (1 + math.exp(-(2.0 - 0.5))))
    assert float(bpr(torch.tensor(2.0), torch.tensor(0.5))) == pytest.approx(want)


def test_info_nce_sets_the_positive_against_the_negatives():
    anchors, positives, negatives = (torch.randn(n, 4) for n in (3, 3, 5))
    got = info_nce(anchors, positives, negatives, 0.3)
    for anchor, positive, value in zip(anchors, positives, got.tolist(), strict=True):
        same = math.exp(cosine(anchor, positive) / 0.3)
        others = sum(math.exp(cosine(anchor, negative) / 0.3) for negative in negatives)
        assert value == pytest.approx(-math.log(same / (same + others)), rel=1e-4)


def test_aligned_info_nce_takes_the_other_rows_as_negatives():
    left, right = torch.randn(4, 3), torch.randn(4, 3)
    got = aligned_info_nce(left, right, 0.2)
    for row in range(4):
        others = right[[other for other in range(4) if other != row]]
        torch.testing.assert_close(got[row], info_nce(left[row : row + 1], right[row : row + 1], others, 0.2)[0])


def test_users_without_anything_to_rank_weigh_nothing():
    weights = activity_weights(np.array([0, 1, 4, 9]), 9, 0.5)
    assert weights.tolist() == [0, 1, 0.5, 0]


class Popular:
    """Scores items by their number."""

    def scores(self, users, history):
        return torch.arange(float(history.n_items)).repeat(len(users), 1)


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
    rows = standardised(torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]]))
    assert rows[0].mean().item() == pytest.approx(0, abs=1e-6)
    assert rows[0].std(correction=0).item() == pytest.approx(1)
    assert rows[1].tolist() == [0, 0, 0]
