"""Interactions against Python's own sets of pairs."""

from dataclasses import FrozenInstanceError, fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Interactions
from retract.errors import DataError
from tests.samples import numbered_catalog

N_USERS, N_ITEMS = 5, 6
CATALOG = numbered_catalog(N_USERS, N_ITEMS)
rows = st.lists(st.tuples(st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1)), max_size=40)


def of(pairs, **columns):
    users, items = np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T
    return Interactions.of(CATALOG, users, items, **columns)


def pairs_of(interactions):
    return list(zip(interactions.users.tolist(), interactions.items.tolist(), strict=True))


@given(rows)
def test_made_of_any_rows_they_are_sorted_unique_and_count_what_was_dropped(pairs):
    made = of(pairs)
    assert pairs_of(made) == sorted(set(pairs))
    assert made.duplicates == len(pairs) - len(made)
    assert (made.users.dtype, made.items.dtype) == (np.int64, np.int64)


@given(rows)
def test_of_equal_pairs_the_latest_time_counts_and_without_times_the_mean_of_the_ratings(pairs):
    ratings, times = np.arange(len(pairs)), -np.arange(len(pairs))
    made = of(pairs, ratings=ratings, timestamps=times)
    latest = {pair: row for row, pair in reversed(list(enumerate(pairs)))}
    assert dict(zip(pairs_of(made), made.ratings.tolist(), strict=True)) == latest
    assert (made.timestamps == -made.ratings).all()
    rows = {pair: [row for row, other in enumerate(pairs) if other == pair] for pair in pairs}
    means = [np.float32(np.mean(rows[pair])) for pair in sorted(rows)]
    assert of(pairs, ratings=ratings).ratings.tolist() == means
    assert of(pairs, ratings=ratings, timestamps=times * 0).ratings.tolist() == means


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.floats(-9, 9, width=32), st.integers(0, 3))),
    st.randoms(),
)
def test_the_order_of_rows_never_matters(rows, random):
    shuffled = random.sample(rows, len(rows))
    one, other = (
        of([row[:2] for row in given], ratings=[row[2] for row in given], timestamps=[row[3] for row in given])
        for given in (rows, shuffled)
    )
    assert one == other
    assert one.ratings.tolist() == other.ratings.tolist()
    assert one.timestamps.tolist() == other.timestamps.tolist()


def test_keys_too_large_to_pack_are_sorted_all_the_same(monkeypatch):
    wide = numbered_catalog(3, 3)
    monkeypatch.setattr(type(wide), "n_items", 2**61)
    made = Interactions.of(wide, [1, 0, 1, 0], [5, 2**60, 5, 7], ratings=[1, 2, 3, 4])
    assert pairs_of(made) == [(0, 7), (0, 2**60), (1, 5)]
    assert made.ratings.tolist() == [4, 2, 2]


@given(rows, rows, rows)
def test_the_algebra_is_that_of_sets_and_leaves_its_operands_alone(left, right, third):
    a, b, c = of(left), of(right), of(third)
    for made, want in (
        (a - b, set(left) - set(right)),
        (a & b, set(left) & set(right)),
        (a | b, set(left) | set(right)),
        ((a | b) - c, (set(left) | set(right)) - set(third)),
        (a - Interactions.empty(CATALOG), set(left)),
    ):
        assert pairs_of(made) == sorted(want)
        assert made == of(want)
    assert a.contains(b).tolist() == [pair in set(left) for pair in pairs_of(b)]
    assert (a, b, c) == (of(left), of(right), of(third))


@given(rows, rows)
def test_the_algebra_carries_ratings_and_times_and_a_union_prefers_its_left_side(left, right):
    a, b = (
        of(pairs, ratings=np.full(len(pairs), n), timestamps=np.full(len(pairs), n))
        for n, pairs in ((1, left), (2, right))
    )
    union = a | b
    want = {**dict.fromkeys(right, 2), **dict.fromkeys(left, 1)}
    assert dict(zip(pairs_of(union), union.ratings.tolist(), strict=True)) == want
    assert (union.timestamps == union.ratings).all()
    for part in (a - b, a & b):
        assert (part.ratings == 1).all()
        assert len(part.timestamps) == len(part)


def test_a_union_keeps_a_column_only_if_both_sides_have_it_or_one_is_empty():
    rated, plain = of([(0, 0)], ratings=[5]), of([(1, 1)])
    assert (rated | plain).ratings is None
    assert (rated | Interactions.empty(CATALOG)).ratings.tolist() == [5]
    assert (Interactions.empty(CATALOG) | rated).ratings.tolist() == [5]


@given(rows, st.sets(st.integers(0, N_USERS - 1)))
def test_views_by_user_item_and_matrix_agree_with_the_pairs(pairs, some):
    made, held = of(pairs), set(pairs)
    assert pairs_of(made.of_users(sorted(some))) == sorted(pair for pair in held if pair[0] in some)
    matrix = made.csr().toarray()
    assert matrix.shape == (N_USERS, N_ITEMS)
    assert set(zip(*(axis.tolist() for axis in np.nonzero(matrix)), strict=True)) == held
    assert set(matrix.ravel()) <= {0, 1}
    assert made.user_degrees().tolist() == matrix.sum(axis=1).tolist()
    assert made.item_degrees().tolist() == matrix.sum(axis=0).tolist()
    assert made.active_users().tolist() == sorted({user for user, _ in held})
    for user in range(N_USERS):
        assert made.items_of(user).tolist() == sorted(item for owner, item in held if owner == user)


@given(rows, st.lists(st.integers(0, N_USERS - 1), max_size=8))
def test_rows_of_some_users_come_in_the_order_in_which_they_are_asked_for(pairs, some):
    made = of(pairs)
    indptr, items = made.rows_of(np.array(some, dtype=np.int64))
    assert [items[a:b].tolist() for a, b in pairwise(indptr)] == [made.items_of(user).tolist() for user in some]


def test_one_users_rows_cost_nothing_that_grows_with_the_set():
    made = of([(0, 1), (1, 2), (1, 3)])
    made.rows_of(np.array([1]))
    assert made.user_degrees() is made.user_degrees()
    column = CountsReads(made.items)
    object.__setattr__(made, "items", column)
    object.__setattr__(made, "users", None)
    assert made.rows_of(np.array([1]))[1].tolist() == [2, 3]
    assert column.read == 2


class CountsReads:
    """A column that counts how many of its values were read."""

    def __init__(self, values):
        self.values, self.read = values, 0

    def __getitem__(self, places):
        self.read += len(places)
        return self.values[places]


def test_the_matrix_takes_other_values_in_the_order_of_the_pairs():
    made = of([(1, 2), (0, 3)], ratings=[4, 5])
    assert made.csr(made.ratings)[0, 3] == 5
    assert made.csr(made.ratings)[1, 2] == 4


@pytest.mark.parametrize("users", [[0, 1], [1, 0]], ids=["sorted", "unsorted"])
def test_they_are_frozen_whatever_is_assigned_or_later_done_to_the_arrays_they_came_from(users):
    columns = [np.array(users), np.array([2, 3]), np.array([1, 2], dtype=np.float32), np.array([7, 8])]
    made = Interactions.of(CATALOG, *columns)
    before = [getattr(made, name).tolist() for name in ("users", "items", "ratings", "timestamps")]
    for column in columns:
        column[:] = 0
    assert [getattr(made, name).tolist() for name in ("users", "items", "ratings", "timestamps")] == before
    made.csr().data[:] = 9
    assert set(made.csr().data) == {1}
    for field in fields(made):
        with pytest.raises(FrozenInstanceError):
            setattr(made, field.name, None)
    with pytest.raises(TypeError):
        hash(made)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0, 9], [0, 0]), r"user code 9 at row 1 lies outside the catalog's 0\.\.4"),
        (([0, 1], [0, -1]), r"item code -1 at row 1 lies outside the catalog's 0\.\.5"),
        (([0, 1], [0]), r"items has 1 values, users has 2: make them equally long"),
        (([0], [0], [1, 2]), r"ratings has 2 values, users has 1"),
        (([0], [0], [1], []), r"timestamps has 0 values, users has 1"),
        (([1, 0], [0, 0], [1, np.nan]), r"rating at row 1 is nan: ratings must be finite numbers"),
        (([0], [0], [np.inf]), r"rating at row 0 is inf"),
    ],
)
def test_columns_that_make_no_interactions_are_refused(columns, message):
    with pytest.raises(DataError, match=message):
        Interactions.of(CATALOG, *columns)


@pytest.mark.parametrize("operation", ["__sub__", "__and__", "__or__", "contains"])
def test_interactions_of_different_catalogs_do_not_mix(operation):
    other = Interactions.of(numbered_catalog(N_USERS, N_ITEMS + 1), [0], [0])
    with pytest.raises(DataError, match="belong to different catalogs"):
        getattr(of([(0, 0)]), operation)(other)
    assert of([(0, 0)]) != other
