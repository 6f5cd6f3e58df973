"""Negative sampling: never a positive, uniform, and keyed by user alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from retract.models.negatives import sample_negatives
from tests.samples import random_interactions


def sample(data, users, **keys):
    indptr = np.concatenate([[0], np.cumsum(data.user_degrees()[users])])
    items = np.concatenate([data.items_of(user) for user in users] or [np.empty(0, np.int64)])
    return sample_negatives(np.asarray(users), indptr, items, data.n_items, **keys)


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_a_negative_is_never_a_positive_of_its_user(seed, per_positive):
    data = random_interactions(seed, density=0.9)
    drawn = sample(data, np.arange(data.n_users), seed=seed, round=1, per_positive=per_positive)
    for user, negatives in zip(data.users, drawn, strict=True):
        own = set(data.items_of(user).tolist())
        if len(own) == data.n_items:
            assert (negatives == -1).all()
        else:
            assert not own & set(negatives.tolist())
            assert ((negatives >= 0) & (negatives < data.n_items)).all()


@given(st.integers(0, 10_000))
def test_a_users_negatives_do_not_depend_on_who_stands_beside_it(seed):
    data = random_interactions(seed)
    together = sample(data, np.arange(data.n_users), seed=3, round=2)
    alone = [sample(data, np.array([user]), seed=3, round=2) for user in range(data.n_users)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_negatives_are_uniform_over_what_the_user_did_not_touch():
    positives = np.array([1, 2, 7])
    draws = np.concatenate(
        [
            sample_negatives(np.array([5]), np.array([0, 3]), positives, 10, seed=0, round=r, per_positive=10).ravel()
            for r in range(400)
        ]
    )
    counts = np.bincount(draws, minlength=10)
    assert counts[positives].sum() == 0
    assert chisquare(np.delete(counts, positives)).pvalue > 0.001


def test_another_round_or_seed_draws_other_negatives():
    data = random_interactions(0)
    users = np.arange(data.n_users)
    first = sample(data, users, seed=0, round=0)
    assert (first != sample(data, users, seed=0, round=1)).any()
    assert (first != sample(data, users, seed=1, round=0)).any()
