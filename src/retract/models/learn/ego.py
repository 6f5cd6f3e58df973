"""The ego graph: a user as what the user did, read from an item table.

    h_u = p_u + |D_u|^{-1/2} Σ_{i ∈ D_u} q_i

Clients read the federated item table this way, and the same reading of the server's table gives a user's global view
without the server knowing the user. In training, a positive is scored by the ego graph *without* itself, as it will be
when it is recommended: h_u∖i · q_i = h_u · q_i - |D_u|^{-1/2} ‖q_i‖². The leave-one-out is ours; it is the counterpart
of the zero diagonal in item-based models (Kabbur et al., KDD 2013; Steck, WWW 2019), and without it a model learns to
recognise what is in the history instead of what comes next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.models.learn.sparse import Pattern, pair_scores, weighted_sum


class EgoScores(NamedTuple):
    """Scores of training pairs: `positive` of shape [n], `negative` of shape [n, negatives per positive]."""

    positive: Tensor
    negative: Tensor


class EgoBatch:
    """Users, their positives and their negatives, ready to be scored against any item table.

    Parameters
    ----------
    indptr, items
        Each user's positives, shapes [n_users + 1] and [n].
    negatives
        Shape [n, per_positive], from `retract.models.negatives.sample_negatives`.
    n_items
        Rows of the item tables.
    """

    def __init__(
        self, indptr: NDArray[np.int64], items: NDArray[np.int64], negatives: NDArray[np.int64], n_items: int
    ) -> None:
        self.positives = Pattern(indptr, items, n_items)
        self.per_positive = negatives.shape[1]
        together = np.concatenate([items[:, None], negatives], axis=1)
        self.pairs = Pattern(indptr * (1 + self.per_positive), together.reshape(-1), n_items)
        self.negatives = Pattern(indptr * self.per_positive, negatives.reshape(-1), n_items)
        degrees = np.diff(indptr)
        self.scale = torch.from_numpy(np.maximum(degrees, 1) ** -0.5).float()

    def read(self, table: Tensor) -> Tensor:
        """|D_u|^{-1/2} Σ_{i ∈ D_u} table_i, shape [n_users, d]."""
        return self.scale[:, None] * weighted_sum(self.positives, self.positives.ones, table)

    def scores(self, users: Tensor, table: Tensor) -> EgoScores:
        """Inner products of users (shape [n_users, d]) with their pairs, positives left out of their own ego graph."""
        all_pairs = pair_scores(self.pairs, users, table).view(-1, 1 + self.per_positive)
        itself = self.scale[self.positives.rows] * table.square().sum(dim=1).index_select(
            0, self.positives.column_index
        )
        return EgoScores(all_pairs[:, 0] - itself, all_pairs[:, 1:])
