"""Exact's model read through histories: by a device from its user's own, by the server from what is shared."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Arrays
from retract.models.ease import item_weights
from retract.models.fold_in import FoldIn
from retract.models.graph_filter import filtered, sides
from retract.models.recommender import Mixed, Recommender, Scores, rows_of
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.tables import Tables, form_of
from retract.threads import threads


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

    def __init__(self, inverse: NDArray[np.float64]) -> None:
        self.inverse = inverse

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        return self.scores_of(rows_of(users, history))

    def scores_of(self, own: sp.csr_matrix) -> Scores:
        """Scores from rows of ones (float32), shape [n, n_items]."""
        if own.shape[0] <= self.few:
            parts = [own.indices[own.indptr[row] : own.indptr[row + 1]] for row in range(own.shape[0])]
            read = np.array([self.inverse[part].sum(axis=0) for part in parts]).reshape(own.shape)
            few: Scores = (own.toarray() - read / self.inverse.diagonal()).astype(np.float32)
            return few
        scores = np.empty(own.shape, dtype=np.float32)

        def fill(place: tuple[int, NDArray[np.float32]]) -> None:
            scores[:, place[0] : place[0] + self.width] = own @ place[1]

        with ThreadPoolExecutor(threads()) as pool:  # SciPy's products take one thread each, and let others run
            list(pool.map(fill, self._blocks))
        return scores

    @cached_property
    def _blocks(self) -> list[tuple[int, NDArray[np.float32]]]:
        """First column and columns of B, block by block, float32."""
        begins = range(0, len(self.inverse), self.width)
        return [(begin, item_weights(self.inverse, begin, begin + self.width)) for begin in begins]


class FilterRecommender:
    """Scores by the graph filter, from the users' own histories, whatever they share."""

    def __init__(self, tables: Tables, config: ExactConfig) -> None:
        assert config.filter_beta is not None
        self.gram, self._sides = tables.gram, sides(tables["degrees"] + config.filter_prior, config.filter_beta)

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        return filtered(rows_of(users, history, np.float64), self.gram, *self._sides).astype(np.float32)


def folding_numbers(config: ExactConfig) -> dict[str, float]:
    """The settings by which users are folded in, as `FoldIn` names them."""
    assert config.popularity is not None
    return {
        "unobserved": config.unobserved,
        "ridge": config.fold_ridge,
        "popularity": config.popularity,
        "prior": config.degree_prior,
    }


def folding_of(model: Arrays, config: ExactConfig) -> FoldIn:
    """The reading of the spectral form's own tables."""
    return FoldIn(model["items"], model["degrees"], float(model["mean_degree"]), **folding_numbers(config))


def recommender_of(model: Arrays, config: ExactConfig) -> Recommender:
    """The recommender that reads these tables."""
    form = form_of(model)
    if form == "ease":
        return EaseRecommender(model["inverse"])
    if form == "filter":
        return FilterRecommender(Tables.of(model), config)
    folding = folding_of(model, config)
    if not config.blend:
        return folding
    return Mixed([folding, FilterRecommender(Tables.of(model), config)], [1.0, config.blend])
