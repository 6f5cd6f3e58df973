"""Two sparse products and their gradients: all that graph recommenders and vectorised cohorts need.

Both take a `Pattern`, the places of a ragged user x item matrix, and touch nothing but those places: no dense score
matrix and no copy of the embedding rows per interaction is ever made.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

# PyTorch announces on first use that its CSR layout is in beta and that it does not check what it is given.
warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)", category=UserWarning)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Places in an n_rows x n_columns matrix, row by row; a place may stand twice.

    Parameters
    ----------
    indptr
        Row pointers, int64, shape [n_rows + 1].
    columns
        Column of every place, int64, shape [n].
    n_columns
        Width of the matrix.
    """

    indptr: NDArray[np.int64]
    columns: NDArray[np.int64]
    n_columns: int

    @property
    def n_rows(self) -> int:
        """Height of the matrix."""
        return len(self.indptr) - 1

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def rows(self) -> Tensor:
        """Row of every place, int64, shape [n]."""
        return torch.from_numpy(np.repeat(np.arange(self.n_rows), np.diff(self.indptr)))

    @cached_property
    def column_index(self) -> Tensor:
        """Column of every place, int64, shape [n]."""
        return torch.from_numpy(self.columns)

    @cached_property
    def ones(self) -> Tensor:
        """A one at every place, shape [n]."""
        return torch.ones(len(self))

    def csr(self, values: Tensor) -> Tensor:
        """The sparse matrix with `values` (shape [n]) at the places."""
        return torch.sparse_csr_tensor(
            torch.from_numpy(self.indptr), self.column_index, values, size=(self.n_rows, self.n_columns)
        )

    def times(self, values: Tensor, table: Tensor) -> Tensor:
        """Matrix @ table, shape [n_rows, d]; `table` has shape [n_columns, d]."""
        return self.csr(values) @ table

    def transposed_times(self, values: Tensor, table: Tensor) -> Tensor:
        """Matrix.T @ table, shape [n_columns, d]; `table` has shape [n_rows, d].

        By SciPy: on a CPU its CSC product is several times faster than PyTorch's, which converts first.
        """
        matrix = sp.csc_matrix(
            (values.numpy(), self.columns, self.indptr), shape=(self.n_columns, self.n_rows), copy=False
        )
        return torch.from_numpy(matrix @ table.numpy())


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pattern: Pattern, values: Tensor, table: Tensor) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(values)
        return pattern.times(values, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        (values,) = ctx.saved_tensors
        return None, None, ctx.pattern.transposed_times(values, grads[0].contiguous())


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(left, right)
        if len(pattern) > pattern.n_rows * pattern.n_columns:  # more places than cells: PyTorch's kernel refuses
            return (left[pattern.rows] * right[pattern.column_index]).sum(dim=1)
        scores: Tensor = torch.sparse.sampled_addmm(pattern.csr(pattern.ones), left, right.T, beta=0.0).values()
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        left, right = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_left = ctx.pattern.times(grad, right) if ctx.needs_input_grad[1] else None
        grad_right = ctx.pattern.transposed_times(grad, left) if ctx.needs_input_grad[2] else None
        return None, grad_left, grad_right


def weighted_sum(pattern: Pattern, values: Tensor, table: Tensor) -> Tensor:
    """For every row, the sum of its places' table rows times `values`; differentiable in `table`.

    Parameters
    ----------
    values
        float32, shape [len(pattern)].
    table
        float32, shape [n_columns, d].

    Returns
    -------
    Tensor
        Shape [n_rows, d].
    """
    return _WeightedSum.apply(pattern, values, table)  # type: ignore[no-any-return, no-untyped-call]


def pair_scores(pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
    """For every place (r, c), the inner product of left[r] and right[c]; differentiable in both.

    Parameters
    ----------
    left
        float32, shape [n_rows, d].
    right
        float32, shape [n_columns, d].

    Returns
    -------
    Tensor
        Shape [len(pattern)].
    """
    return _PairScores.apply(pattern, left, right)  # type: ignore[no-any-return, no-untyped-call]


def row_sums(pattern: Pattern, values: Tensor) -> Tensor:
    """For every row, the sum of `values` (shape [n]) at its places; shape [n_rows]; differentiable."""
    return torch.zeros(pattern.n_rows, dtype=values.dtype).index_add(0, pattern.rows, values)
