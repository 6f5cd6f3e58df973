"""Who shares what: parts that never overlap nor lose anything, and withdrawals that apply whole or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Sharing, sharing_of
from retract.errors import DataError, SharingError
from tests.samples import numbered_catalog, random_interactions

seeds, ratios = st.integers(0, 10_000), st.floats(0, 1)
DATA = random_interactions(4, density=0.5)


def some_of(interactions, seed, part=0.4):
    return interactions.where(np.random.default_rng(seed).random(len(interactions)) < part)


def assert_whole(sharing, everything):
    """Nothing lost, nothing in both places."""
    assert not len(sharing.shared & sharing.private)
    assert sharing.everything == everything


@given(seeds, ratios)
def test_a_ratio_shares_that_part_of_every_user_rounded_to_whole_interactions(seed, ratio):
    data = random_interactions(seed, density=0.6)
    sharing = Sharing.by_ratio(data, ratio, seed)
    assert_whole(sharing, data)
    assert sharing.shared.user_degrees().tolist() == np.rint(ratio * data.user_degrees()).tolist()
    for user, degree in enumerate(data.user_degrees()):
        assert sharing.ratio(user) == (pytest.approx(np.rint(ratio * degree) / degree) if degree else 0)


@given(seeds, ratios, ratios)
def test_what_is_shared_at_a_lower_ratio_is_shared_at_a_higher_one(seed, one, other):
    low, high = (Sharing.by_ratio(DATA, ratio, seed).shared for ratio in sorted((one, other)))
    assert not len(low - high)


@given(seeds, st.lists(ratios, min_size=DATA.n_users, max_size=DATA.n_users))
def test_each_user_may_choose_a_ratio_and_no_other_user_notices(seed, chosen):
    sharing = Sharing.by_ratio(DATA, chosen, seed)
    assert_whole(sharing, DATA)
    for user, ratio in enumerate(chosen):
        assert sharing.shared.of_users([user]) == Sharing.by_ratio(DATA, ratio, seed).shared.of_users([user])


def test_the_choice_is_seeded_and_independent_of_the_other_users():
    first = Sharing.by_ratio(DATA, 0.5, 0)
    assert first == Sharing.by_ratio(DATA, 0.5, 0)
    assert first.shared != Sharing.by_ratio(DATA, 0.5, 1).shared
    alone = Sharing.by_ratio(DATA.of_users([3, 5]), 0.5, 0)
    assert alone.shared == first.shared.of_users([3, 5])


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        (-0.1, r"share ratio -0\.1 lies outside \[0, 1\]"),
        (1.5, r"share ratio 1\.5 lies outside"),
        (np.nan, r"share ratio nan lies outside"),
        ([0.5] * 11 + [2], r"share ratio 2 lies outside"),
        ([0.5, 0.5], r"give one share ratio, or one for each of the 12 users"),
        (np.full((12, 2), 0.5), r"give one share ratio, or one for each of the 12 users"),
    ],
)
def test_a_ratio_that_is_none_is_refused(ratio, message):
    with pytest.raises(SharingError, match=message):
        Sharing.by_ratio(DATA, ratio)


def test_an_explicit_choice_is_kept_to_the_interaction():
    mask = np.arange(len(DATA)) % 3 == 0
    sharing = Sharing.by_mask(DATA, mask)
    assert_whole(sharing, DATA)
    assert sharing.shared.contains(DATA).tolist() == mask.tolist()


@pytest.mark.parametrize("mask", [np.ones(len(DATA), dtype=int), np.ones(3, dtype=bool)], ids=["numbers", "short"])
def test_a_mask_that_would_share_something_else_than_was_meant_is_refused(mask):
    with pytest.raises(SharingError, match=rf"give True or False for each of the {len(DATA)} interactions"):
        Sharing.by_mask(DATA, mask)


@given(seeds, ratios)
def test_unsharing_moves_to_private_and_erasing_removes(seed, ratio):
    sharing = Sharing.by_ratio(DATA, ratio, seed)
    forget = some_of(sharing.shared, seed)
    unshared = sharing.unshare(forget)
    assert unshared.shared == sharing.shared - forget
    assert unshared.private == sharing.private | forget
    assert_whole(unshared, DATA)
    anything = some_of(DATA, seed)
    assert_whole(sharing.erase(anything), DATA - anything)
    assert sharing.erase(anything).shared == sharing.shared - anything
    assert_whole(sharing, DATA)


def test_ratings_and_times_follow_an_interaction_through_sharing_and_unsharing():
    catalog = numbered_catalog(2, 4)
    data = type(DATA).of(catalog, [0, 0, 1], [0, 1, 2], ratings=[1, 2, 3], timestamps=[7, 8, 9])
    sharing = Sharing.by_mask(data, np.array([True, False, True]))
    bare = type(DATA).of(catalog, [0, 1], [0, 2])
    private = sharing.unshare(bare).private
    assert (private.ratings.tolist(), private.timestamps.tolist()) == ([1, 2, 3], [7, 8, 9])


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_withdrawing_what_is_not_there_is_refused_per_item_and_nothing_is_applied(kind):
    sharing = Sharing.by_ratio(DATA, 0.5)
    absent = random_interactions(9, density=2) - DATA
    wrong = absent if kind == "erase" else absent | sharing.private
    user, item = wrong.users[0], wrong.items[0]
    with pytest.raises(SharingError) as refused:
        getattr(sharing, kind)(wrong | sharing.shared)
    message = str(refused.value)
    assert message.startswith(f"item {DATA.catalog.item_ids[item]} of user {DATA.catalog.user_ids[user]}, ")
    what = "is not shared, so it cannot be unshared" if kind == "unshare" else "is not held, so it cannot be erased"
    assert message.endswith(f" and {len(wrong) - 5} more {what}; nothing was applied")
    assert sharing == Sharing.by_ratio(DATA, 0.5)


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_the_same_cannot_be_withdrawn_twice_and_nothing_can_always_be(kind):
    sharing = Sharing.by_ratio(DATA, 0.5)
    forget = some_of(sharing.shared, 0)
    with pytest.raises(SharingError, match="nothing was applied"):
        getattr(getattr(sharing, kind)(forget), kind)(forget)
    assert getattr(sharing, kind)(type(forget).empty(forget.catalog)) == sharing


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_a_withdrawal_over_another_catalog_is_refused(kind):
    with pytest.raises(DataError, match="different catalogs"):
        getattr(Sharing.by_ratio(DATA, 0.5), kind)(random_interactions(4, n_items=16))


def test_a_ratio_goes_before_what_the_data_says_and_that_before_a_usual_ratio():
    said = some_of(DATA, 3)
    part = some_of(DATA, 4, 0.8)
    assert sharing_of(part, 0.25, said, 0.9, seed=2) == Sharing.by_ratio(part, 0.25, 2)
    chosen = sharing_of(part, None, said, 0.9, seed=2)
    assert (chosen.shared, chosen.private) == (part & said, part - said)
    assert sharing_of(part, None, None, 0.9, seed=2) == Sharing.by_ratio(part, 0.9, 2)
    with pytest.raises(SharingError, match="share ratio 2 lies outside"):
        sharing_of(part, 2, said, 0.9)
    with pytest.raises(SharingError, match="is for the users to choose: give a share"):
        sharing_of(part, None, None, None)
