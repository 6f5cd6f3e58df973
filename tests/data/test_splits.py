"""Splits: seeded, per user, and blind to the order in which the rows came."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Interactions, split_per_user
from retract.errors import ConfigError
from tests.samples import numbered_catalog, random_interactions


@given(st.integers(0, 10_000), st.floats(0.01, 0.99))
def test_every_user_is_split_and_keeps_something_to_train_on(seed, part):
    data = random_interactions(seed, n_items=30)
    train, test = split_per_user(data, part, seed)
    assert train | test == data
    assert not len(train & test)
    degrees, held_out = data.user_degrees(), test.user_degrees()
    assert (train.user_degrees()[degrees > 0] > 0).all()
    assert (held_out == np.minimum(np.rint(part * degrees), np.maximum(degrees - 1, 0))).all()


@pytest.mark.parametrize(("degree", "tested"), [(1, 0), (2, 0), (3, 1), (5, 1), (10, 2), (100, 20)])
def test_by_default_a_fifth_of_every_user_is_tested(degree, tested):
    data = Interactions.of(numbered_catalog(2, 100), np.zeros(degree), np.arange(degree))
    assert [len(part) for part in split_per_user(data)] == [degree - tested, tested]


def test_the_same_seed_splits_alike_and_another_one_does_not():
    data = random_interactions(3, density=0.8)
    train, test = split_per_user(data, seed=5)
    assert (train, test) == split_per_user(data, seed=5)
    assert test != split_per_user(data, seed=6)[1]


def test_a_users_split_depends_neither_on_the_rows_order_nor_on_other_users():
    data = random_interactions(3, density=0.8)
    test = split_per_user(data)[1]
    backwards = Interactions.of(data.catalog, data.users[::-1], data.items[::-1])
    assert split_per_user(backwards)[1] == test
    assert split_per_user(data.of_users([2, 7]))[1] == test.of_users([2, 7])


def test_ratings_and_times_stay_with_their_interactions():
    n = 40
    data = Interactions.of(numbered_catalog(4, n), np.arange(n) % 4, np.arange(n), np.arange(n), np.arange(n))
    for part in split_per_user(data):
        assert part.items.tolist() == part.ratings.tolist() == part.timestamps.tolist()


@pytest.mark.parametrize("part", [0, 1, -0.2, 1.2, float("nan")])
def test_a_part_outside_the_open_unit_interval_is_refused(part):
    with pytest.raises(ConfigError, match=rf"test part {part:g} lies outside \(0, 1\)"):
        split_per_user(random_interactions(0), part)


def test_what_the_times_say_was_last_is_held_out_and_equal_times_are_drawn():
    n, times = 40, np.arange(40) // 8
    data = Interactions.of(numbered_catalog(4, n), np.arange(n) % 4, np.arange(n), timestamps=times)
    train, test = split_per_user(data, 0.2, latest=True)
    assert test.timestamps.tolist() == [4] * 8
    assert split_per_user(data, 0.1, 0, latest=True)[1] != split_per_user(data, 0.1, 1, latest=True)[1]
    assert train | test == data
    with pytest.raises(ConfigError, match="the data has no timestamps, so nothing is the latest"):
        split_per_user(random_interactions(0), latest=True)
