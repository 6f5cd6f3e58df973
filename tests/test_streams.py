"""Streams: a draw depends on its key alone, looks random, and never changes from one release to the next."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from retract import streams

WORD = 2**64
words = st.integers(-(2**63), 2**64)
codes = st.integers(0, 2**40)


def slow_mix(z: int) -> int:
    """SplitMix64's finaliser on one Python integer."""
    z = (z + 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def slow_bits(seed: int, round: int, user: int, purpose: str, counter: int) -> int:
    key = seed * 0x9E3779B97F4A7C15 % WORD
    for part in (round, zlib.crc32(purpose.encode()), user, counter):
        key = slow_mix(key ^ (part % WORD))
    return key


@given(words, words, codes, st.text(max_size=8), codes)
def test_the_vectorised_bits_equal_the_plain_arithmetic(seed, round, user, purpose, counter):
    assert streams.bits(seed, round, user, purpose, counter).tolist() == [
        slow_bits(seed, round, user, purpose, counter)
    ]


@given(words, st.lists(codes, min_size=1, max_size=20), st.data())
def test_a_draw_depends_neither_on_order_nor_on_who_is_drawn_beside(seed, users, data):
    counters = np.arange(3)
    order = data.draw(st.permutations(range(len(users))))
    column = np.array(users)[:, None]
    together = streams.bits(seed, 1, column, "test", counters)
    np.testing.assert_array_equal(streams.bits(seed, 1, column[order], "test", counters), together[order])
    normals = streams.normal(seed, 1, users, "test", 5)
    for row, user in enumerate(users):
        np.testing.assert_array_equal(streams.normal(seed, 1, user, "test", 5)[0], normals[row])
        for counter in counters:
            assert streams.bits(seed, 1, user, "test", counter) == together[row, counter]


@pytest.mark.parametrize(
    "other",
    [(1, 0, 0, "a", 0), (0, 1, 0, "a", 0), (0, 0, 1, "a", 0), (0, 0, 0, "b", 0), (0, 0, 0, "a", 1)],
    ids=["seed", "round", "user", "purpose", "counter"],
)
def test_a_key_that_differs_in_one_part_draws_something_unrelated(other):
    def bits_of(seed, round, user, purpose, counter):
        drawn = streams.bits(seed, round, user + 10 * np.arange(2000), purpose, counter)
        return np.unpackbits(drawn.view(np.uint8))

    agree = (bits_of(0, 0, 0, "a", 0) == bits_of(*other)).mean()
    assert abs(agree - 0.5) < 0.01


def test_no_two_of_many_neighbouring_keys_share_their_bits():
    users, counters = np.arange(300)[:, None], np.arange(300)
    drawn = [streams.bits(seed, round, users, "test", counters) for seed in range(3) for round in range(3)]
    assert len(np.unique(drawn)) == 9 * 300 * 300


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numpy_integers_are_keys_like_plain_ones(kind):
    assert streams.bits(kind(5), kind(2), kind(3), "test", kind(4)) == streams.bits(5, 2, 3, "test", 4)


def test_uniform_draws_fill_the_half_open_unit_interval(monkeypatch):
    drawn = streams.uniform(0, 0, np.arange(200)[:, None], "test", np.arange(500)).ravel()
    assert drawn.min() >= 0
    assert kstest(drawn, "uniform").pvalue > 0.001
    monkeypatch.setattr(streams, "bits", lambda *key: np.array([0, WORD - 1], dtype=np.uint64))
    lowest, highest = streams.uniform(0, 0, 0, "test")
    assert lowest == 0
    assert 1 - 2**-52 < highest < 1


@pytest.mark.parametrize("bound", [1, 2, 7, 100])
def test_integers_below_a_bound_are_all_reached_and_equally_often(bound):
    drawn = streams.below(bound, 0, 0, np.arange(200)[:, None], "test", np.arange(100))
    counts = np.bincount(drawn.ravel())
    assert len(counts) == bound
    assert bound == 1 or chisquare(counts).pvalue > 0.001


@given(st.integers(1, 2**52))
def test_the_highest_draw_stays_below_any_bound(bound):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "uniform", lambda *key: np.array([1 - 2.0**-53]))
        assert streams.below(bound, 0, 0, 0, "test")[0] == bound - 1


def test_each_user_may_have_its_own_bound():
    bounds = np.arange(1, 50)
    drawn = streams.below(bounds[:, None], 0, 0, bounds[:, None], "test", np.arange(400))
    assert (drawn.min(axis=1) == 0).all()
    assert (drawn.max(axis=1) == bounds - 1).all()


@pytest.mark.parametrize("width", [1, 4, 7])
def test_normal_rows_are_standard_normal_and_uncorrelated(width):
    rows = streams.normal(0, 0, np.arange(20_000), "test", width)
    assert rows.shape == (20_000, width)
    assert rows.dtype == np.float32
    assert kstest(rows.ravel(), "norm").pvalue > 0.001
    assert np.abs(rows.mean(axis=0)).max() < 0.03
    assert np.abs(np.cov(rows.T) - np.eye(width)).max() < 0.05


def test_a_uniform_of_zero_still_gives_finite_normals(monkeypatch):
    monkeypatch.setattr(streams, "uniform", lambda *key: np.array([[0.0, 1 - 2.0**-53]]))
    assert np.isfinite(streams.normal(0, 0, [0], "test", 4)).all()


def test_no_user_draws_nothing():
    assert streams.bits(0, 0, [], "test").shape == (0,)
    assert streams.normal(0, 0, [], "test", 3).shape == (0, 3)


def test_the_stream_is_the_one_that_saved_models_were_trained_with():
    assert streams.bits(0, 3, [0, 1], "golden").tolist() == [13903571067869102437, 6771435998467664971]
    golden = [4686196195265042257, 6678381211454471328, 12180663723795976340]
    assert streams.bits(7, 3, [0, 1, 2], "golden").tolist() == golden
    assert streams.bits(-1, -2, -3, "golden", 2**40).tolist() == [9243531465442096644]
    np.testing.assert_allclose(streams.uniform(7, 3, [0, 1], "golden", 5), [0.3069644, 0.97391111], atol=1e-8)
    assert streams.below(100, 7, 3, 4, "golden", np.arange(6)).tolist() == [83, 8, 87, 2, 97, 88]
    normals = [[0.5473387, -0.86753863, -0.53533614], [0.73805755, -2.0393236, 0.5951615]]
    np.testing.assert_allclose(streams.normal(7, 3, [0, 1], "golden", 3), normals, rtol=1e-5)
