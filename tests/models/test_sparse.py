"""The sparse products against dense ones."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from retract.models.learn.sparse import Pattern, pair_scores, row_sums, weighted_sum


def random_pattern(seed: int) -> Pattern:
    draw = np.random.default_rng(seed)
    degrees = draw.integers(0, 6, size=draw.integers(1, 8))
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    return Pattern(indptr, draw.integers(0, 9, size=indptr[-1]).astype(np.int64), 9)


def dense(pattern: Pattern, values: torch.Tensor) -> torch.Tensor:
    matrix = torch.zeros(pattern.n_rows, pattern.n_columns, dtype=values.dtype)
    return matrix.index_put((pattern.rows, pattern.column_index), values, accumulate=True)


@given(st.integers(0, 10_000))
def test_a_weighted_sum_and_its_gradient_equal_the_dense_product(seed):
    pattern = random_pattern(seed)
    values, table = torch.randn(len(pattern)), torch.randn(9, 4, requires_grad=True)
    got, want = weighted_sum(pattern, values, table), dense(pattern, values) @ table
    torch.testing.assert_close(got, want)
    upstream = torch.randn_like(want)
    torch.testing.assert_close(
        *(torch.autograd.grad(out, table, upstream)[0] for out in (got, want)), rtol=1e-5, atol=1e-5
    )


@given(st.integers(0, 10_000))
def test_pair_scores_and_both_gradients_equal_the_dense_ones(seed):
    pattern = random_pattern(seed)
    left = torch.randn(pattern.n_rows, 4, requires_grad=True)
    right = torch.randn(9, 4, requires_grad=True)
    got, want = pair_scores(pattern, left, right), (left @ right.T)[pattern.rows, pattern.column_index]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(want)
    for mine, plain in zip(
        torch.autograd.grad(got, (left, right), upstream),
        torch.autograd.grad(want, (left, right), upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 10_000))
def test_row_sums_add_what_stands_in_each_row(seed):
    pattern = random_pattern(seed)
    values = torch.randn(len(pattern))
    torch.testing.assert_close(row_sums(pattern, values), dense(pattern, values).sum(dim=1), rtol=1e-5, atol=1e-5)
