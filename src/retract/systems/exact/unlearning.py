"""From one closed form to the next: what users take away is subtracted, what they add is added."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Arrays
from retract.models.ease import changed_inverse, inverse_error, with_new_items
from retract.models.gram import rows, user_weights, weighted_gram
from retract.models.graph_filter import ChangedGram
from retract.models.retained import Retained
from retract.systems.exact.closed_form import Solved, folding_tables, retained_sums, solve
from retract.systems.exact.config import ExactConfig, require_memory
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

    def weights(self, exponent: float, prior: float = 0.0) -> NDArray[np.float64]:
        """The terms' signed weights, shape [r]."""
        return self.signs * user_weights(np.diff(self.users.indptr), exponent, prior)

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
    retained: Callable[[], Interactions],
    config: ExactConfig,
) -> Solved:
    """The closed form of what is retained, reached from that of what was held, where only some users differ.

    Parameters
    ----------
    before, after
        What these users held and hold, over the same catalog, that of `model` or one that appends to it.
    retained
        Gives all that is held then; not asked where the difference is enough.

    Raises
    ------
    ConfigError
        As of `solve`.
    """
    users, n_items = np.union1d(before.active_users(), after.active_users()), after.n_items
    form, difference = form_of(model), Difference.between(before, after, users)
    how: dict[str, object] = {"form": form, "rank": len(difference)}
    if form == "ease":
        require_memory(n_items)
        inverse = with_new_items(model["inverse"], n_items, config.ridge)
        if not len(difference):
            return Solved({"inverse": inverse}, {**how, "method": "nothing to change"})
        return _resolve_inverse(inverse, difference, retained(), config, how)
    degrees = np.append(model["degrees"], np.zeros(n_items - len(model["degrees"]), dtype=np.int64))
    dense: dict[str, NDArray[Any]] = {"degrees": difference.of_items(degrees)}
    if form == "spectral":
        dense |= folding_tables(retained(), config)
        how["subspace"] = "made anew"
        if not config.blend:
            return Solved(dense, {**how, "method": "closed form"})
    known = Tables.of(model)
    gram = known.gram.over(n_items)
    weights = difference.weights(1.0, config.filter_prior)
    if isinstance(gram, ChangedGram):
        change = weighted_gram(difference.users, weights)
        return Solved(Tables(gram.plus(change), dense), {**how, "method": "sums changed"})
    left = _left(known, after, users, retained, config)
    if (difference.signs < 0).all():
        gram = gram.without(difference.users, -weights, left)
    else:
        gram = gram.changed(weighted_gram(difference.users, weights, ordered=False), left)
    return Solved(Tables(gram, dense, left), {**how, "method": "sums changed", "summed anew": gram.summed})


def _left(
    known: Tables,
    after: Interactions,
    users: NDArray[np.int64],
    retained: Callable[[], Interactions],
    config: ExactConfig,
) -> Retained:
    """What sums are made from after the change: from what they were made from before, where that is at hand."""
    if known.retained is None or known.retained.is_patchwork:
        return retained_sums(retained(), config)
    indptr, items = after.rows_of(users)
    now = sp.csr_matrix((np.ones(len(items)), items, indptr), shape=(len(users), after.n_items))
    return known.retained.changed(users, now, user_weights(np.diff(indptr), 1.0, config.filter_prior))


def _resolve_inverse(
    inverse: NDArray[np.float64],
    difference: Difference,
    after: Interactions,
    config: ExactConfig,
    how: Mapping[str, object],
) -> Solved:
    """EASE's inverse after the change; made anew where that is cheaper.

    Parameters
    ----------
    inverse
        P before.
    """
    anew = config.model_copy(update={"form": "ease"})
    if WORTH * len(difference) >= len(inverse):
        return solve(after, anew, "cheaper than an update of this rank")
    inverse = changed_inverse(inverse, difference.users, difference.weights(config.ease_exponent))
    _isolate(inverse, _left_alone(difference, after), config.ridge)
    interactions, weights = rows(after), user_weights(after.user_degrees(), config.ease_exponent)
    error = inverse_error(inverse, interactions, weights, config.ridge)
    if not error <= config.drift:
        return solve(after, anew, f"estimated error {error:.1e} of the low-rank update")
    return Solved({"inverse": inverse}, {**how, "method": "low-rank update", "estimated_error": error})


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
