"""What a trained model can do: score, and recommend. Closed forms alone: nothing here needs more than NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import ConfigError

Scores = NDArray[np.float32]


class Recommender(Protocol):
    """Anything that can score all items for some users."""

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """How much each user would like each item.

        Parameters
        ----------
        users
            User codes, shape [n].
        history
            What these users did; read for them alone.

        Returns
        -------
        ndarray
            float32, shape [n, n_items].
        """
        ...


@runtime_checkable
class PredictsRatings(Protocol):
    """A recommender that says how its users would rate."""

    def ratings(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Predicted ratings on the data's own scale, float32, shape [n, n_items]; arguments as of `scores`."""
        ...


@runtime_checkable
class FallsBack(Protocol):
    """A recommender that knows some users, and gives all others the same."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether it knows a user, shape [n_users]."""
        ...

    @property
    def fallback(self) -> str:
        """What the users get whom it does not know, in a word such as "popularity"."""
        ...


def fallback_of(model: Recommender, user: int) -> str | None:
    """What a user gets who is not known to the model; None where the list is the user's own."""
    return model.fallback if isinstance(model, FallsBack) and not model.known[user] else None


@dataclass(frozen=True)
class Ranking:
    """The best items of some users, best first.

    Parameters
    ----------
    items
        Item codes, int64, shape [n_users, k].
    scores
        float32, shape [n_users, k]; -inf where a user has fewer than k unseen items.
    """

    items: NDArray[np.int64]
    scores: Scores


def recommend(
    model: Recommender,
    users: NDArray[np.int64],
    history: Interactions,
    k: int,
    *,
    hidden: Interactions | None = None,
) -> Ranking:
    """The `k` best items of each user, those in `history` and in `hidden` left out.

    Parameters
    ----------
    hidden
        What the users have besides, and the model is not to be told.

    Raises
    ------
    ConfigError
        If k lies outside [1, n_items].
    """
    if not 1 <= k <= history.n_items:
        raise ConfigError(f"k is {k}: it must lie between 1 and the {history.n_items} items of the catalog")
    scores = mask_seen(model.scores(users, history), users, history)
    return best_of(scores if hidden is None else mask_seen(scores, users, hidden), k)


def best_of(scores: Scores, k: int) -> Ranking:
    """The `k` greatest of every row, greatest first; of equals the lower code comes first.

    No row is sorted as a whole. Columns are dealt into at least k blocks: the k-th greatest of the blocks' maxima is at
    most the row's k-th greatest value, so the few values from there on are all that can be among the best.

    Parameters
    ----------
    scores
        Shape [n, n_items].
    """
    n, n_items = scores.shape
    rows, items = np.divmod(np.flatnonzero(scores >= kth_of_blocks(scores, k)[:, None]), n_items)
    begins = np.searchsorted(rows, np.arange(n + 1))
    place = np.arange(len(rows)) - begins[rows]
    values = np.full((n, int(np.diff(begins).max(initial=k))), -np.inf, dtype=scores.dtype)
    values[rows, place] = scores[rows, items]
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    found = items[np.minimum(begins[:-1, None] + order, max(len(items) - 1, 0))]
    return Ranking(found, np.take_along_axis(values, order, axis=1))


def kth_of_blocks(scores: NDArray[Any], k: int) -> NDArray[Any]:
    """A lower bound of the k-th greatest value of each row, shape [n]; k is at most the number of columns."""
    n, n_items = scores.shape
    blocks = min(4 * k, n_items)
    whole = n_items // blocks * blocks
    maxima = scores[:, :whole].reshape(n, whole // blocks, blocks).max(axis=1)
    if whole < n_items:
        rest = scores[:, whole:]
        maxima[:, : rest.shape[1]] = np.maximum(maxima[:, : rest.shape[1]], rest)
    return np.partition(maxima, blocks - k, axis=1)[:, blocks - k]


def mask_seen(scores: Scores, users: NDArray[np.int64], history: Interactions) -> Scores:
    """A copy of `scores` (shape [len(users), n_items]) with -inf at what each user already has."""
    indptr, items = history.rows_of(users)
    masked = scores.copy()
    masked[np.repeat(np.arange(len(users)), np.diff(indptr)), items] = -np.inf
    return masked


def rows_of(users: NDArray[np.int64], history: Interactions, dtype: Any = np.float32) -> sp.csr_matrix:
    """Some users' rows of the user x item matrix, ones, shape [len(users), n_items]."""
    indptr, items = history.rows_of(users)
    return sp.csr_matrix((np.ones(len(items), dtype=dtype), items, indptr), shape=(len(users), history.n_items))


def standardised(scores: Scores) -> Scores:
    """Scores with mean 0 and deviation 1 per user, so that different models can be mixed; constant rows become 0."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
    scaled: Scores = centred / np.maximum(deviation, 1e-12)
    return scaled


class DotProduct:
    """A recommender that scores by the inner product of user and item embeddings.

    Parameters
    ----------
    users, items
        Final embeddings, float32, shapes [n_users, d] and [n_items, d].
    """

    def __init__(self, users: Scores, items: Scores) -> None:
        self.users, self.items = users, items

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Inner products, shape [len(users), n_items]; the history is already in the user embeddings."""
        found: Scores = self.users[users] @ self.items.T
        return found


class HistoryReader:
    """A table read through a history alone: what anybody can score by who has the table, and no vector of a user.

    Parameters
    ----------
    table
        Rows of the items, float32, shape [n_items, d].
    """

    def __init__(self, table: Scores) -> None:
        self.table = table

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        found: Scores = read_history(users, history, self.table) @ self.table.T
        return found


def read_history(users: NDArray[np.int64], history: Interactions, table: Scores) -> Scores:
    """|D_u|^{-1/2} Σ_{i ∈ D_u} table_i for some users, float32, shape [len(users), d]."""
    rows = rows_of(users, history)
    scale = np.maximum(np.diff(rows.indptr), 1)[:, None] ** -0.5
    read: Scores = ((rows @ table) * scale).astype(np.float32)
    return read


class KnowsNothing:
    """What recommends where nothing was learnt: it has no item for anybody."""

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """-inf throughout, shape [len(users), n_items]: a list ends before the first item."""
        return np.full((len(users), history.n_items), -np.inf, dtype=np.float32)


class OrPopular:
    """A recommender for the users that it knows, and what is popular for all others.

    Parameters
    ----------
    model
        The recommender.
    known
        Whether it knows a user, shape [n_users].
    popularity
        Interactions per item, shape [n_items].
    """

    fallback = "popularity"

    def __init__(self, model: Recommender, known: NDArray[np.bool_], popularity: NDArray[np.int64]) -> None:
        self.model, self.known = model, known
        self.popularity = (popularity / max(popularity.max(initial=0), 1)).astype(np.float32)

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]; popularity lies between 0 and 1."""
        return np.where(self.known[users][:, None], self.model.scores(users, history), self.popularity)


class Mixed:
    """Several recommenders' scores, each standardised per user, in a weighted sum.

    Parameters
    ----------
    models, weights
        The recommenders, and what each counts for.
    """

    def __init__(self, models: Sequence[Recommender], weights: Sequence[float]) -> None:
        self.models, self.weights = models, weights

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        parts = (
            weight * standardised(one.scores(users, history))
            for one, weight in zip(self.models, self.weights, strict=True)
        )
        total: Scores = np.sum(list(parts), axis=0, dtype=np.float32)
        return total
