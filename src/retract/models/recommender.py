"""What a trained model can do: score, and recommend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions
from retract.errors import ConfigError


class Recommender(Protocol):
    """Anything that can score all items for some users."""

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """How much each user would like each item.

        Parameters
        ----------
        users
            User codes, shape [n].
        history
            What these users did; read for them alone.

        Returns
        -------
        Tensor
            float32, shape [n, n_items].
        """
        ...


@runtime_checkable
class PredictsRatings(Protocol):
    """A recommender that says how its users would rate."""

    def ratings(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
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
    scores: NDArray[np.float32]


def recommend(model: Recommender, users: NDArray[np.int64], history: Interactions, k: int) -> Ranking:
    """The `k` best items of each user, those in `history` left out.

    Raises
    ------
    ConfigError
        If k lies outside [1, n_items].
    """
    if not 1 <= k <= history.n_items:
        raise ConfigError(f"k is {k}: it must lie between 1 and the {history.n_items} items of the catalog")
    scores = mask_seen(model.scores(users, history), users, history)
    best = scores.topk(k, dim=1)
    return Ranking(best.indices.numpy(), best.values.numpy())


def recommend_to(
    model: Recommender, user: int, history: Interactions, k: int | None = None
) -> list[tuple[str, str, float]]:
    """Id, title and score of the best items of one user, fewer where fewer are left.

    Parameters
    ----------
    k
        How many: 10, or all of a smaller catalog, unless given. Errors as in `recommend`.
    """
    catalog = history.catalog
    best = recommend(model, np.array([user]), history, min(10, catalog.n_items) if k is None else k)
    return [
        (str(catalog.item_ids[item]), catalog.title(item), score)
        for item, score in zip(best.items[0].tolist(), best.scores[0].tolist(), strict=True)
        if np.isfinite(score)
    ]


def mask_seen(scores: Tensor, users: NDArray[np.int64], history: Interactions) -> Tensor:
    """A copy of `scores` (shape [len(users), n_items]) with -inf at what each user already has."""
    seen = history.csr()[users].tocoo()
    masked = scores.clone()
    masked[torch.from_numpy(seen.row.astype(np.int64)), torch.from_numpy(seen.col.astype(np.int64))] = -torch.inf
    return masked


def standardised(scores: Tensor) -> Tensor:
    """Scores with mean 0 and deviation 1 per user, so that different models can be mixed; constant rows become 0."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / deviation.clamp_min(1e-12)


class HistoryReader:
    """A table read through a history alone: what anybody can score by who has the table, and no vector of a user.

    Parameters
    ----------
    table
        Rows of the items, shape [n_items, d].
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), n_items]."""
        return read_history(users, history, self.table) @ self.table.T


def read_history(users: NDArray[np.int64], history: Interactions, table: Tensor) -> Tensor:
    """|D_u|^{-1/2} Σ_{i ∈ D_u} table_i for some users, shape [len(users), d]."""
    rows = history.csr()[users]
    scale = np.maximum(np.diff(rows.indptr), 1)[:, None] ** -0.5
    return torch.from_numpy((rows @ table.numpy()) * scale).float()


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
        self.popularity = torch.from_numpy(popularity / max(popularity.max(initial=0), 1)).float()

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), n_items]; popularity lies between 0 and 1."""
        known = torch.from_numpy(self.known[users])[:, None]
        return torch.where(known, self.model.scores(users, history), self.popularity)
