"""Exact beside the user's data: a user's term of the sums, and the recommendations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions
from retract.federation import Broadcast, ClientState, Cohort, Reply, Update
from retract.models.ease import item_weights
from retract.models.gram import user_weights, weighted_gram
from retract.models.graph_filter import filtered
from retract.models.recommender import Recommender
from retract.models.sparse import Pattern
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.tables import Tables, form_of


class Term:
    """A user's term ω_u x_u x_uᵀ of the Gram matrix (a `ClientTask`): what a client adds to a sum, and nothing else.

    Sums of terms are exact, so the law holds to the last bit, and a secure sum over integers can carry it.
    """

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def start(self, clients: NDArray[np.int64], seed: int) -> ClientState:
        """A client keeps nothing."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sum, dense; a client's message is counted as the triangle of its term, 12 bytes a number."""
        shape = (len(cohort), cohort.n_items)
        rows = sp.csr_matrix((np.ones(len(cohort.items)), cohort.items, cohort.indptr), shape=shape)
        gram = weighted_gram(rows, user_weights(cohort.degrees, self.exponent))
        sent = torch.from_numpy(cohort.degrees * (cohort.degrees + 1) // 2 * 12)
        return Reply(Update({"gram": torch.from_numpy(gram.toarray())}, len(cohort)), {}, sent)


class EaseRecommender:
    """Scores x B with B = I - P diag(P)^{-1}, from the users' own histories, whatever they share.

    Parameters
    ----------
    inverse
        P, float64, shape [n_items, n_items].
    """

    few = 32
    """Up to so many users their items' rows are read from P; for more, B is made once."""
    width = 512
    """B is kept in blocks of so many columns: a block's rows stay in the processor's cache."""

    def __init__(self, inverse: Tensor) -> None:
        self.inverse = inverse

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), n_items]."""
        return self.scores_of(history.csr()[users])

    def scores_of(self, own: sp.csr_matrix) -> Tensor:
        """Scores from rows of ones (float32), shape [n, n_items]."""
        if own.shape[0] <= self.few:
            read = torch.stack([self.inverse[torch.from_numpy(row.indices.astype(np.int64))].sum(0) for row in own])
            return (torch.from_numpy(own.toarray()) - read / self.inverse.diagonal()).float()
        places = Pattern(own.indptr.astype(np.int64), own.indices.astype(np.int64), own.shape[1])
        rows = places.csr(places.ones)
        scores = torch.empty(own.shape)
        for begin, block in self._blocks:
            scores[:, begin : begin + self.width] = rows @ block
        return scores

    @cached_property
    def _blocks(self) -> list[tuple[int, Tensor]]:
        """First column and columns of B, block by block, float32."""
        begins = range(0, len(self.inverse), self.width)
        return [(begin, item_weights(self.inverse, begin, begin + self.width)) for begin in begins]


class FilterRecommender:
    """Scores by the graph filter, from the users' own histories, whatever they share."""

    def __init__(self, tables: Tables, config: ExactConfig) -> None:
        self.tables, self.config = tables, config

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), n_items]."""
        own = sp.csr_matrix(history.csr()[users], dtype=np.float64)
        degrees, exponents = self.tables["degrees"].numpy(), (self.config.source_exponent, self.config.target_exponent)
        return torch.from_numpy(filtered(own, self.tables.gram, degrees, *exponents)).float()


class BlockRecommender:
    """The filter's scores of all items, and on top EASE's of the most frequent ones."""

    def __init__(self, tables: Tables, config: ExactConfig) -> None:
        self.filter, self.ease = FilterRecommender(tables, config), EaseRecommender(tables["inverse"])
        self.head, self.blend = tables["head"], config.blend

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), n_items]."""
        own = sp.csr_matrix(history.csr()[users][:, self.head.numpy()])
        scores = self.blend * self.filter.scores(users, history)
        scores[:, self.head] += self.ease.scores_of(own)
        return scores


def recommender_of(model: Mapping[str, Tensor], config: ExactConfig) -> Recommender:
    """The recommender that reads these tables."""
    form = form_of(model)
    if form == "ease":
        return EaseRecommender(model["inverse"])
    return (FilterRecommender if form == "filter" else BlockRecommender)(Tables.of(model), config)
