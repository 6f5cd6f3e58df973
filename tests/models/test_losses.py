"""Losses against their formulas, written out."""

import math

import numpy as np
import pytest
import torch

from retract.models.learn.losses import activity_weights, aligned_info_nce, bpr, info_nce


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
