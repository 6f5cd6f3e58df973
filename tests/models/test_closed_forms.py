"""The sums and inverses behind Exact, against their dense formulas: sums to the last bit, inverses to rounding."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from retract.errors import ConfigError, DataError
from retract.models import gram as gram_room
from retract.models.ease import changed_inverse, inverse_error, regularised_inverse, with_new_items
from retract.models.gram import LARGEST_SUM, UNIT, gram_of, rows, user_weights, weighted_gram
from retract.models.graph_filter import ChangedGram, filtered, sides
from tests.samples import random_interactions

SEEDS = st.integers(0, 10_000)
EXPONENTS = st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0])


def binary(draw: np.random.Generator, n: int, n_items: int, density: float = 0.2) -> sp.csr_matrix:
    return sp.csr_matrix((draw.random((n, n_items)) < density).astype(float))


def weights_of(matrix: sp.csr_matrix, exponent: float = 0.5) -> np.ndarray:
    return user_weights(np.diff(matrix.indptr), exponent)


def dense_gram(matrix: sp.csr_matrix, weights: np.ndarray) -> np.ndarray:
    full = matrix.toarray()
    return full.T @ (weights[:, None] * full)


def regularised(matrix: sp.csr_matrix, weights: np.ndarray, ridge: float) -> np.ndarray:
    return dense_gram(matrix, weights) + ridge * np.eye(matrix.shape[1])


def distance(got, want) -> float:
    """Relative, in the Frobenius norm."""
    return float(np.linalg.norm(np.asarray(got) - np.asarray(want)) / np.linalg.norm(np.asarray(want)))


def assert_same_matrix(one: sp.csr_matrix, other: sp.csr_matrix) -> None:
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
    assert one.shape == other.shape


# --- sums -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0, 0.25, 0.5, 1])
def test_a_weight_is_the_multiple_of_the_unit_nearest_to_the_power_of_the_degree(exponent):
    degrees = np.arange(100_000)
    weights = user_weights(degrees, exponent)
    assert (weights / UNIT == np.rint(weights / UNIT)).all()
    assert weights[0] == 0
    assert np.abs(weights[1:] - degrees[1:] ** -float(exponent)).max() <= UNIT / 2


@given(SEEDS, EXPONENTS)
def test_the_gram_matrix_is_the_dense_one_whatever_the_order_of_users_and_their_split(seed, exponent):
    data, draw = random_interactions(seed, n_users=20), np.random.default_rng(seed)
    matrix, gram = rows(data), gram_of(data, exponent)
    weights = weights_of(matrix, exponent)
    np.testing.assert_array_equal(gram.toarray(), dense_gram(matrix, weights))
    order, cuts = draw.permutation(20), np.sort(draw.integers(0, 21, 3))
    parts = [weighted_gram(matrix[part], weights[part]) for part in np.split(order, cuts)]
    assert_same_matrix(sp.csr_matrix(sum(parts[1:], parts[0])), gram)


@given(SEEDS, EXPONENTS)
def test_what_is_added_and_taken_away_again_leaves_not_one_bit(seed, exponent):
    draw = np.random.default_rng(seed)
    first, passing = binary(draw, 8, 15), binary(draw, 6, 15)
    before, moved = (weighted_gram(part, weights_of(part, exponent)) for part in (first, passing))
    assert_same_matrix(sp.csr_matrix((before + moved) - moved), before)
    again = weighted_gram(sp.vstack([passing, passing]).tocsr(), np.r_[weights_of(passing), -weights_of(passing)])
    assert again.nnz == 0


def test_sums_too_large_to_be_exact_are_refused():
    one_item = sp.csr_matrix(np.ones((2, 1)))
    almost = weighted_gram(one_item, np.array([LARGEST_SUM / 2, LARGEST_SUM / 2 - UNIT]))
    assert almost[0, 0] == LARGEST_SUM - UNIT
    with pytest.raises(DataError, match="too many to sum exactly"):
        weighted_gram(one_item, np.full(2, LARGEST_SUM / 2))


# --- EASE -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_items", [1, 40, 513, 1100])  # below, just above and beyond the blocks of the mirroring
def test_the_inverse_is_numpys_and_symmetric_to_the_last_bit(n_items):
    matrix = binary(np.random.default_rng(n_items), 60, n_items)
    weights = weights_of(matrix)
    inverse = regularised_inverse(weighted_gram(matrix, weights), 2.0)
    assert inverse.dtype == np.float64
    assert np.array_equal(inverse, inverse.T)
    assert distance(inverse, np.linalg.inv(regularised(matrix, weights, 2.0))) < 1e-12


def test_a_matrix_that_is_not_positive_definite_in_float64_is_refused():
    gram = sp.csr_matrix(np.full((3, 3), 1e6))
    with pytest.raises(ConfigError, match=r"ridge 1e-20 is too small"):
        regularised_inverse(gram, 1e-20)


@given(SEEDS, st.integers(1, 20), st.sampled_from([0.5, 5.0, 50.0]))
def test_a_changed_inverse_is_the_inverse_of_what_changed(seed, rank, ridge):
    draw = np.random.default_rng(seed)
    held, new = binary(draw, 60, 50), binary(draw, rank, 50)
    held_weights, new_weights = weights_of(held), weights_of(new)
    leaving = draw.permutation(60)[: draw.integers(0, rank + 1)]
    coming = np.flatnonzero(new_weights)[: rank - len(leaving)]
    change = sp.vstack([held[leaving], new[coming]]).tocsr()
    weights = np.r_[-held_weights[leaving], new_weights[coming]]
    some = weights != 0
    staying = np.setdiff1d(np.arange(60), leaving)
    after = sp.vstack([held[staying], new[coming]]).tocsr()
    after_weights = np.r_[held_weights[staying], new_weights[coming]]
    before = regularised_inverse(weighted_gram(held, held_weights), ridge)
    kept = before.copy()
    if some.any():
        got = changed_inverse(before, change[some], weights[some])
        assert distance(got, np.linalg.inv(regularised(after, after_weights, ridge))) < 1e-12
    assert np.array_equal(before, kept)


@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1e-5, 1e-2])
def test_the_estimated_error_is_about_the_true_one(scale):
    draw = np.random.default_rng(0)
    matrix = binary(draw, 80, 120)
    weights = weights_of(matrix)
    full = regularised(matrix, weights, 3.0)
    wrong = np.linalg.inv(full) + scale * draw.standard_normal((120, 120))
    true = np.linalg.norm(wrong @ full - np.eye(120))
    assert inverse_error(wrong, matrix, weights, 3.0) == pytest.approx(true, rel=0.3)


def test_the_inverse_over_a_larger_catalog_is_the_one_made_from_nothing():
    matrix = binary(np.random.default_rng(0), 30, 20)
    larger = sp.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(30, 26))
    weights = weights_of(matrix)
    small, large = (regularised_inverse(weighted_gram(part, weights), 4.0) for part in (matrix, larger))
    np.testing.assert_allclose(with_new_items(small, 26, 4.0), large, rtol=1e-12, atol=1e-14)


# --- graph filter -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(SEEDS, st.integers(1, 30))
def test_a_changed_gram_is_always_the_dense_sum_and_leaves_what_it_came_from(seed, n_changes):
    draw = np.random.default_rng(seed)
    base = weighted_gram(*with_weights(binary(draw, 200, 60, 0.3)))
    gram, changes = ChangedGram(base), []
    for _ in range(n_changes):  # some fold into the base, most do not
        change = weighted_gram(*with_weights(binary(draw, 1, 60, 0.05), draw.choice([-1.0, 1.0])))
        before, total_before = gram, gram.total.copy()
        gram = gram.plus(change)
        changes.append(change)
        assert_same_matrix(before.total, total_before)
    want = base.toarray() + sum(change.toarray() for change in changes)
    np.testing.assert_array_equal(gram.total.toarray(), want)
    assert (gram.total.data != 0).all()
    users = binary(draw, 5, 60)
    np.testing.assert_allclose(gram.of(users), users.toarray() @ want, rtol=1e-13)
    for change in changes:
        gram = gram.plus(-change)
    assert_same_matrix(gram.total, base)


def with_weights(matrix: sp.csr_matrix, sign: float = 1.0) -> tuple[sp.csr_matrix, np.ndarray]:
    return matrix, sign * weights_of(matrix)


@pytest.mark.parametrize(("beta", "prior"), [(0.5, 0), (0.2, 0), (0.4, 5)])
@given(SEEDS)
def test_the_filter_is_its_formula_and_at_a_half_that_of_gf_cf(beta, prior, seed):
    data = random_interactions(seed)
    full = rows(data).toarray()
    by_user, by_item = (np.maximum(full.sum(axis) + prior, 1) for axis in (1, 0))
    normalised = by_user[:, None] ** -0.5 * full * by_item**-0.5
    want = full @ (by_item[:, None] ** -beta * (normalised.T @ normalised) * by_item**beta)
    got = filtered(rows(data), ChangedGram(gram_of(data, 1, prior)), *sides(data.item_degrees() + prior, beta))
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-12)  # the weights' own rounding, 2^-31 of at most 1


def test_a_gram_matrix_is_the_same_however_many_threads_share_its_rows(monkeypatch):
    matrix = binary(np.random.default_rng(0), 300, 80)
    weights = weights_of(matrix)
    want = weighted_gram(matrix, weights)
    monkeypatch.setattr(gram_room, "WORTH_SHARING", 0)
    for count in (2, 3, 7):
        monkeypatch.setattr("retract.workers.threads", lambda count=count: count)
        assert_same_matrix(weighted_gram(matrix, weights), want)
    loose = weighted_gram(matrix, weights, ordered=False)
    loose.sort_indices()
    assert_same_matrix(loose, want)
