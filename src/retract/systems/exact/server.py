"""Exact's server: from sums over users to the closed form, and from one closed form to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions
from retract.models.ease import changed_inverse, inverse_error, regularised_inverse, with_new_items
from retract.models.gram import gram_of, rows, user_weights, weighted_gram
from retract.models.graph_filter import ChangedGram
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.tables import Tables

WORTH = 4
"""A low-rank update of rank r beats a new factorisation of an n x n matrix while WORTH * r < n, as measured."""


@dataclass(frozen=True)
class Solved:
    """A closed form and how it was reached, for the log."""

    model: Mapping[str, Tensor]
    how: Mapping[str, object]


def solve(shared: Interactions, config: ExactConfig, reason: str = "training") -> Solved:
    """The closed form of S, from nothing."""
    form = config.form_for(shared.n_items)
    gram = gram_of(shared, config.exponent_for(form))
    how = {"form": form, "why": why(config, shared.n_items), "method": "closed form", "reason": reason}
    if form == "filter":
        return Solved(Tables(ChangedGram(gram), torch.from_numpy(shared.item_degrees())), how)
    return Solved({"inverse": regularised_inverse(gram, config.ridge)}, how)


def why(config: ExactConfig, n_items: int) -> str:
    """Why a catalog of this size gets its form."""
    if config.form != "auto":
        return f"form is set to {config.form}"
    compared = "at most" if config.form_for(n_items) == "ease" else "more than"
    need, limit = config.memory_for(n_items), config.memory_gb
    return f"EASE of {n_items:,} items takes {need:.3g} GB, {compared} the {limit:g} GB that memory_gb allows"


@dataclass(frozen=True)
class Difference:
    """What turns the Gram matrix of one set of interactions into another's: Uᵀ diag(c) U.

    Parameters
    ----------
    users
        U, one row per term, shape [r, n_items].
    weights
        c, shape [r].
    """

    users: sp.csr_matrix
    weights: NDArray[np.float64]

    @classmethod
    def between(
        cls, before: Interactions, after: Interactions, users: NDArray[np.int64], exponent: float
    ) -> Difference:
        """The terms of `users`, the only ones who changed: the old ones taken away, the new ones added."""
        terms, weights = [], []
        for held, sign in ((before, -1.0), (after, 1.0)):
            own = _rows_of(held, users)
            own = own[np.diff(own.indptr) > 0]
            terms.append(own)
            weights.append(sign * user_weights(np.diff(own.indptr), exponent))
        return cls(sp.csr_matrix(sp.vstack(terms)), np.concatenate(weights))


def resolve(
    model: Mapping[str, Tensor],
    before: Interactions,
    after: Interactions,
    users: NDArray[np.int64],
    config: ExactConfig,
) -> Solved:
    """The closed form of `after`, reached from that of `before`, where only some users' interactions differ.

    Parameters
    ----------
    before, after
        Over the same catalog.
    users
        Codes of the users who differ, ascending.
    """
    form = config.form_for(after.n_items)
    if form == "filter" and "inverse" in model:
        return solve(after, config, "the catalog outgrew EASE")
    difference = Difference.between(before, after, users, config.exponent_for(form))
    how: dict[str, object] = {"form": form, "rank": len(difference.weights)}
    if not len(difference.weights):
        return Solved(model, {**how, "method": "nothing to change"})
    if form == "filter":
        tables = Tables.of(model)
        gram = tables.gram.plus(weighted_gram(difference.users, difference.weights))
        return Solved(Tables(gram, _changed_degrees(tables.degrees, difference)), {**how, "method": "sums changed"})
    if WORTH * len(difference.weights) >= after.n_items:
        return solve(after, config, "cheaper than an update of this rank")
    inverse = changed_inverse(model["inverse"], difference.users, difference.weights)
    exponent = config.exponent_for(form)
    error = inverse_error(inverse, rows(after), user_weights(after.user_degrees(), exponent), config.ridge)
    if not error <= config.drift:
        return solve(after, config, f"estimated error {error:.1e} of the low-rank update")
    return Solved({"inverse": inverse}, {**how, "method": "low-rank update", "estimated_error": error})


def grown(model: Mapping[str, Tensor], n_items: int, config: ExactConfig) -> Mapping[str, Tensor]:
    """The same closed form over a larger catalog, in which nobody has touched the new items yet."""
    if "inverse" in model:
        return {"inverse": with_new_items(model["inverse"], n_items, config.ridge)}
    tables = Tables.of(model)
    total = tables.gram.total
    indptr = np.append(total.indptr, np.full(n_items - total.shape[0], total.indptr[-1]))
    gram = sp.csr_matrix((total.data, total.indices, indptr), shape=(n_items, n_items))
    degrees = torch.zeros(n_items, dtype=torch.int64)
    degrees[: len(tables.degrees)] = tables.degrees
    return Tables(ChangedGram(gram), degrees)


def _rows_of(interactions: Interactions, users: NDArray[np.int64]) -> sp.csr_matrix:
    """Some users' rows of X, at the cost of these rows."""
    begin = np.searchsorted(interactions.users, users, side="left")
    end = np.searchsorted(interactions.users, users, side="right")
    items = np.concatenate([interactions.items[a:b] for a, b in zip(begin, end, strict=True)])
    indptr = np.concatenate([[0], np.cumsum(end - begin)])
    return sp.csr_matrix((np.ones(len(items)), items, indptr), shape=(len(users), interactions.n_items))


def _changed_degrees(degrees: Tensor, difference: Difference) -> Tensor:
    """Item degrees after the change: a row with a negative weight is one less, another one more."""
    signs = np.repeat(np.sign(difference.weights), np.diff(difference.users.indptr)).astype(np.int64)
    out = degrees.numpy().copy()
    np.add.at(out, difference.users.indices, signs)
    return torch.from_numpy(out)
