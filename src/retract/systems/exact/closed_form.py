"""From sums over users to the closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Arrays
from retract.models.ease import regularised_inverse
from retract.models.gram import gram_of, rows, user_weights
from retract.models.graph_filter import ChangedGram
from retract.models.neighbours import Neighbours
from retract.models.retained import Retained
from retract.models.subspace import Subspace, iterated
from retract.systems.exact.config import NOISE, OVERSAMPLING, SPECTRUM, ExactConfig, require_memory
from retract.systems.exact.tables import Tables

START = 0
"""The key of the subspace's start: the same for all, so that a model is a function of what is shared alone."""


@dataclass(frozen=True)
class Solved:
    """A closed form and how it was reached, for the log."""

    model: Arrays
    how: Mapping[str, object]


def solve(shared: Interactions, config: ExactConfig, reason: str = "training", known: Tables | None = None) -> Solved:
    """The closed form of S, from nothing.

    Parameters
    ----------
    config
        Settings that leave nothing open.
    known
        The filter's tables of S, if they are at hand.

    Raises
    ------
    ConfigError
        If the machine has no room for it (`require_memory`).
    """
    how = {"form": config.form, "method": "closed form", "reason": reason}
    if config.form == "ease":
        require_memory(shared.n_items)
        return Solved({"inverse": regularised_inverse(gram_of(shared, config.ease_exponent), config.ridge)}, how)
    dense: dict[str, NDArray[Any]] = {"degrees": shared.item_degrees()}
    if config.form == "spectral":
        dense |= folding_tables(shared, config)
        if not config.blend:
            return Solved(dense, how)
    if known is not None:
        return Solved(Tables(known.gram, dense, known.retained), how)
    return Solved(filter_tables(shared, config, dense), how)


def filter_tables(shared: Interactions, config: ExactConfig, dense: Arrays) -> Tables:
    """Those of the filter's sums, or of the largest of each item's, beside others."""
    if kept := config.neighbours_for(shared):
        retained = retained_sums(shared, config)
        return Tables(Neighbours.made(retained, kept, kept // 2), dense, retained)
    return Tables(ChangedGram(gram_of(shared, 1.0, config.filter_prior)), dense)


def retained_sums(shared: Interactions, config: ExactConfig) -> Retained:
    """What the filter's sums are made from."""
    return Retained(shared.csr(), user_weights(shared.user_degrees(), 1.0, config.filter_prior)).indexed()


def folding_tables(shared: Interactions, config: ExactConfig) -> dict[str, NDArray[Any]]:
    """What users are folded into: "items", Q, float32, shape [n_items, d]; and "mean_degree".

    A fixed number of steps from a fixed start: a function of S, so that what is made after a withdrawal is what
    training on the rest gives, bit for bit with as many threads on the same machine.
    """
    subspace = Subspace(
        shared.n_items,
        config.dimension_for(shared),
        START,
        oversampling=OVERSAMPLING,
        prior=config.degree_prior,
        noise=NOISE,
    )
    items, _ = iterated(subspace, rows(shared), config.steps).embeddings(SPECTRUM)
    return {"items": items, "mean_degree": np.asarray(len(shared) / max(len(shared.active_users()), 1))}
