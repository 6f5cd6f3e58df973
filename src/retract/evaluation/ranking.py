"""Ranking metrics over all items, those of the history left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.models.recommender import Recommender, best_of, mask_seen, rows_of

BATCH_SCORES = 32_000_000
"""Scores held at once while evaluating: bounds the memory, never the result."""


@dataclass(frozen=True)
class PerUser:
    """Metrics of every user who has something to test.

    Parameters
    ----------
    users
        User codes, shape [n].
    recall, ndcg
        In [0, 1], shape [n].
    k
        Length of the lists.
    """

    users: NDArray[np.int64]
    recall: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    k: int

    def mean(self, users: NDArray[np.int64] | None = None) -> dict[str, float]:
        """Means over all tested users, or over those of `users`; NaN where there is none."""
        among = slice(None) if users is None else np.isin(self.users, users)
        pairs = ((f"recall@{self.k}", self.recall[among]), (f"ndcg@{self.k}", self.ndcg[among]))
        return {name: float(values.mean()) if len(values) else float("nan") for name, values in pairs}


def evaluate(model: Recommender, history: Interactions, test: Interactions, k: int = 20) -> PerUser:
    """Recall@k and NDCG@k for every user of `test`, all items ranked, those in `history` left out.

    Recall is hits / |test items|; NDCG has binary gains, discount log2(rank + 1), and the ideal list of
    min(k, |test items|) hits: the definitions of LightGCN's evaluation (He et al., SIGIR 2020).
    """
    users = test.active_users()
    k = min(k, test.n_items)
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)
    recall, ndcg = np.zeros(len(users)), np.zeros(len(users))
    for part in batches(len(users), test.n_items):
        scores = mask_seen(model.scores(users[part], history), users[part], history)
        wanted = rows_of(users[part], test).toarray()
        best = best_of(scores, k)
        hits = np.take_along_axis(wanted, best.items, axis=1) * np.isfinite(best.scores)  # a list may end early
        sizes = test.user_degrees()[users[part]]
        recall[part] = hits.sum(axis=1) / sizes
        ndcg[part] = (hits * discount).sum(axis=1) / ideal[np.minimum(sizes, k) - 1]
    return PerUser(users, recall, ndcg, k)


def percentile_ranks(model: Recommender, history: Interactions, of: Interactions) -> NDArray[np.float64]:
    """Where each interaction of `of` stands in its user's list of all items: 0 is the top, 1 the bottom.

    Ties count half. Items of the history are ranked like all others, for it is among them that a trace would show.

    Returns
    -------
    ndarray
        Shape [len(of)], in the order of `of`.
    """
    users = of.active_users()
    ranks = np.zeros(len(of))
    for part in batches(len(users), of.n_items):
        for user, scores in zip(users[part], model.scores(users[part], history), strict=True):
            own = slice(of.indptr[user], of.indptr[user + 1])
            ranks[own] = _percentiles(scores, of.items[own])
    return ranks


def _percentiles(scores: NDArray[np.float32], items: NDArray[np.int64]) -> NDArray[np.float64]:
    ordered = np.sort(scores)
    better = len(scores) - np.searchsorted(ordered, scores[items], side="right")
    worse = np.searchsorted(ordered, scores[items], side="left")
    return 0.5 + (better - worse) / (2.0 * max(len(scores) - 1, 1))


def batches(n: int, n_items: int) -> Iterator[slice]:
    """Slices of `n` users whose scores fit into memory."""
    size = max(1, BATCH_SCORES // max(n_items, 1))
    return (slice(begin, min(begin + size, n)) for begin in range(0, n, size))
