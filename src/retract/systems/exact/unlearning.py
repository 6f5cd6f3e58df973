"""From one closed form to the next: what users take away is subtracted, what they add is added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Arrays
from retract.models.ease import changed_inverse, exchanged_inverse, inverse_error, with_new_items
from retract.models.gram import most_frequent, rows, user_weights, weighted_gram
from retract.systems.exact.closed_form import Solved, solve
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.tables import Tables, form_of

WORTH = 4
"""A low-rank update of rank r beats a new factorisation of an n x n matrix while WORTH * r < n, as measured."""


@dataclass(frozen=True)
class Difference:
    """What turns the sums over one set of interactions into another's: one term per row, with a sign.

    Parameters
    ----------
    users
        U, shape [r, n_items].
    signs
        -1 for a term that is taken away, 1 for one that is added, shape [r].
    """

    users: sp.csr_matrix
    signs: NDArray[np.float64]

    @classmethod
    def between(cls, before: Interactions, after: Interactions, users: NDArray[np.int64]) -> Difference:
        """The terms of `users`, the only ones who changed."""
        terms, signs = [np.empty(0, dtype=np.int64)], []
        for held, sign in ((before, -1.0), (after, 1.0)):
            begin = np.searchsorted(held.users, users, side="left")
            end = np.searchsorted(held.users, users, side="right")
            own = [held.items[a:b] for a, b in zip(begin, end, strict=True) if b > a]
            terms += own
            signs += [sign] * len(own)
        items, indptr = np.concatenate(terms), np.cumsum([len(term) for term in terms])
        shape = (len(signs), before.n_items)
        return cls(sp.csr_matrix((np.ones(len(items)), items, indptr), shape=shape), np.array(signs))

    def __len__(self) -> int:
        return len(self.signs)

    def weights(self, exponent: float) -> NDArray[np.float64]:
        """The terms' signed weights, shape [r]."""
        return self.signs * user_weights(np.diff(self.users.indptr), exponent)

    def of_items(self, degrees: NDArray[np.int64]) -> NDArray[np.int64]:
        """Item degrees after the change."""
        signs = np.repeat(self.signs, np.diff(self.users.indptr)).astype(np.int64)
        out = degrees.copy()
        np.add.at(out, self.users.indices, signs)
        return out


def resolve(
    model: Arrays,
    before: Interactions,
    after: Interactions,
    users: NDArray[np.int64],
    config: ExactConfig,
) -> Solved:
    """The closed form of `after`, reached from that of `before`, where only some users' interactions differ.

    Parameters
    ----------
    before, after
        Over the same catalog, that of `model` or one that appends to it.
    users
        Codes of the users who differ, ascending.

    Raises
    ------
    ConfigError
        As of `solve`.
    """
    config.require_memory(after.n_items)
    form = config.form_for(after.n_items)
    if form_of(model) != form:
        return solve(after, config, f"a catalog of this size gets another form than {form_of(model)}")
    difference = Difference.between(before, after, users)
    how: dict[str, object] = {"form": form, "rank": len(difference)}
    if form == "ease":
        inverse = with_new_items(model["inverse"], after.n_items, config.ridge)
        if not len(difference):
            return Solved({"inverse": inverse}, {**how, "method": "nothing to change"})
        return _resolve_inverse(inverse, np.arange(after.n_items), difference, after, config, how)
    tables = Tables.of(model)
    tables = tables if len(tables.dense["degrees"]) == after.n_items else tables.over(after.n_items)
    gram = tables.gram.plus(weighted_gram(difference.users, difference.weights(config.filter_exponent)))
    dense = {**tables.dense, "degrees": difference.of_items(tables.dense["degrees"])}
    how["method"] = "sums changed"
    if form == "block":
        solved = _resolve_inverse(dense["inverse"], dense["head"], difference, after, config, how)
        if "degrees" in solved.model:  # solved anew as a whole
            return solved
        dense, how = {**dense, **solved.model}, {**how, **solved.how}
    return Solved(Tables(gram, dense), how)


def _resolve_inverse(
    inverse: NDArray[np.float64],
    head: NDArray[np.int64],
    difference: Difference,
    after: Interactions,
    config: ExactConfig,
    how: Mapping[str, object],
) -> Solved:
    """EASE's part after the change, over the items that are then the most frequent; or all anew where that is cheaper.

    Parameters
    ----------
    inverse, head
        P before, and the codes of its items.
    """
    if WORTH * len(difference) >= len(head):
        return solve(after, config, "cheaper than an update of this rank")
    terms = sp.csr_matrix(difference.users[:, head])
    some = np.diff(terms.indptr) > 0
    if some.any():
        inverse = changed_inverse(inverse, terms[some], difference.weights(config.ease_exponent)[some])
        _isolate(inverse, np.flatnonzero(np.isin(head, _left_alone(difference, after))), config.ridge)
    interactions, weights = rows(after), user_weights(after.user_degrees(), config.ease_exponent)
    tables: dict[str, NDArray[Any]] = {"inverse": inverse}
    if config.form_for(after.n_items) == "block":
        now = most_frequent(after.item_degrees(), config.head_for(after.n_items))
        if not np.array_equal(now, head):
            come, gone = np.setdiff1d(now, head), np.setdiff1d(head, now)
            if WORTH * (len(come) + len(gone)) >= len(head):
                return solve(after, config, "cheaper than exchanging so many items")
            new = sp.diags(weights) @ interactions[:, come]
            inverse = exchanged_inverse(inverse, head, now, (interactions[:, now].T @ new).toarray(), config.ridge)
            how, head = {**how, "exchanged": len(come)}, now
        tables = {"inverse": inverse, "head": head}
    error = inverse_error(inverse, interactions, weights, config.ridge, head)
    if not error <= config.drift:
        return solve(after, config, f"estimated error {error:.1e} of the low-rank update")
    return Solved(tables, {**how, "method": "low-rank update", "estimated_error": error})


def _left_alone(difference: Difference, after: Interactions) -> NDArray[np.int64]:
    """Items of the change that nobody holds any more."""
    touched: NDArray[np.int64] = np.unique(difference.users.indices).astype(np.int64)
    alone: NDArray[np.int64] = touched[after.item_degrees()[touched] == 0]
    return alone


def _isolate(inverse: NDArray[np.float64], places: NDArray[np.int64], ridge: float) -> None:
    """Set to what they are the rows of items that nobody holds: rounding would tell that somebody once did."""
    if len(places):
        inverse[places] = 0
        inverse[:, places] = 0
        inverse[places, places] = 1 / ridge
