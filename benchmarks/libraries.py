"""Recommenders of other public libraries, as they come, in the terms of our own: what a user would pick instead.

`sansa` is not among them: it needs NumPy 2, and RecTools NumPy 1, so that no environment has both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from retract.data import Interactions
from retract.models.item_matrix import ItemToItem
from retract.models.recommender import DotProduct, Recommender, Scores

ROOM = 15_000
"""Items up to which RecTools' EASE, which inverts a dense matrix of them, is asked."""


@dataclass(frozen=True)
class Fitted:
    """A model of another library: read as ours are, in bytes, and its own way to make lists of k for all users."""

    recommender: Recommender
    nbytes: int
    lists: Callable[[int], Any]


def als(train: Interactions) -> Fitted:
    """`implicit`'s ALS of 64 factors."""
    from implicit.als import AlternatingLeastSquares

    matrix, users = train.csr(), np.arange(train.n_users)
    model = AlternatingLeastSquares(factors=64, random_state=0)
    model.fit(matrix, show_progress=False)
    own, items = np.asarray(model.user_factors), np.asarray(model.item_factors)
    return Fitted(DotProduct(own, items), own.nbytes + items.nbytes, lambda k: model.recommend(users, matrix, N=k))


def knn(train: Interactions) -> Fitted:
    """`implicit`'s item-kNN by cosine, of 20 neighbours."""
    from implicit.nearest_neighbours import CosineRecommender

    matrix, users, model = train.csr(), np.arange(train.n_users), CosineRecommender()
    model.fit(matrix, show_progress=False)
    similar = sp.csr_matrix(model.similarity, dtype=np.float32)
    return Fitted(ItemToItem(similar), 12 * similar.nnz, lambda k: model.recommend(users, matrix, N=k))


def rectools_ease(train: Interactions) -> Fitted:
    """RecTools' EASE, regularised by 500."""
    import pandas as pd
    from rectools.dataset import Dataset
    from rectools.models import EASEModel

    columns = {"user_id": train.users, "item_id": train.items, "weight": 1.0, "datetime": pd.Timestamp(0)}
    dataset, model = Dataset.construct(pd.DataFrame(columns)), EASEModel()
    model.fit(dataset)
    weights = np.zeros((train.n_items, train.n_items), dtype=np.float32)
    known = dataset.item_id_map.external_ids
    weights[np.ix_(known, known)] = model.weight
    users = train.active_users()
    return Fitted(
        Dense(weights), model.weight.nbytes, lambda k: model.recommend(users, dataset, k=k, filter_viewed=True)
    )


class Dense:
    """Scores x B of a dense B."""

    def __init__(self, weights: Scores) -> None:
        self.weights = weights

    def scores(self, users: Any, history: Interactions) -> Scores:
        found: Scores = history.csr()[users] @ self.weights
        return found


def libraries(train: Interactions) -> dict[str, Callable[[Interactions], Fitted]]:
    """Those that the data have room for, by name."""
    return {"als": als, "knn": knn} | ({"rectools_ease": rectools_ease} if train.n_items <= ROOM else {})
