"""From sums over users to the closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import scipy.sparse as sp
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Arrays
from retract.models.ease import regularised_inverse
from retract.models.gram import gram_of, most_frequent, rows, user_weights, weighted_gram
from retract.models.graph_filter import ChangedGram
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.tables import Tables


@dataclass(frozen=True)
class Solved:
    """A closed form and how it was reached, for the log."""

    model: Arrays
    how: Mapping[str, object]


def solve(shared: Interactions, config: ExactConfig, reason: str = "training") -> Solved:
    """The closed form of S, from nothing.

    Raises
    ------
    ConfigError
        If the machine has no room for it (`ExactConfig.require_memory`).
    """
    config.require_memory(shared.n_items)
    form = config.form_for(shared.n_items)
    how = {"form": form, "why": why(config, shared.n_items), "method": "closed form", "reason": reason}
    if form == "ease":
        return Solved({"inverse": regularised_inverse(gram_of(shared, config.ease_exponent), config.ridge)}, how)
    degrees = shared.item_degrees()
    dense: dict[str, NDArray[Any]] = {"degrees": degrees}
    if form == "block":
        head = most_frequent(degrees, config.head_for(shared.n_items))
        weights = user_weights(shared.user_degrees(), config.ease_exponent)
        gram = weighted_gram(sp.csr_matrix(rows(shared)[:, head]), weights)
        dense |= {"head": head, "inverse": regularised_inverse(gram, config.ridge)}
    return Solved(Tables(ChangedGram(gram_of(shared, config.filter_exponent)), dense), how)


def why(config: ExactConfig, n_items: int) -> str:
    """Why a catalog of this size gets its form."""
    if config.form != "auto":
        return f"form is set to {config.form}"
    compared = "at most" if config.form_for(n_items) == "ease" else "more than"
    need, limit = config.memory_for(n_items), config.memory_gb
    return f"EASE of {n_items:,} items takes {need:.3g} GB, {compared} the {limit:g} GB that memory_gb allows"
