"""What the server makes of what is shared with it, for everybody: a closed form of full rank, which no rounds give."""

from __future__ import annotations

from typing import Any

import scipy.sparse as sp
from numpy.typing import NDArray

from retract.data import Interactions
from retract.models.ease import regularised_inverse
from retract.models.gram import most_frequent, rows, user_weights, weighted_gram
from retract.models.item_matrix import Quantised, largest_weights, placed
from retract.systems.fedshare.config import VIEW, FedShareConfig


def view_tables(shared: Interactions, config: FedShareConfig) -> dict[str, NDArray[Any]]:
    """The view to publish, a function of S: the largest entries of B over the most shared items; {} without any.

    Raises
    ------
    ConfigError
        If `ridge` is too small for this data.
    """
    if not len(shared):
        return {}
    n_items = shared.n_items
    degrees = shared.item_degrees()
    head = most_frequent(degrees, min(config.view_items, int((degrees > 0).sum())))
    gram = weighted_gram(
        sp.csr_matrix(rows(shared)[:, head]), user_weights(shared.user_degrees(), config.ease_exponent)
    )
    entry = 3 if n_items <= 2**16 else 5
    inverse, entries = regularised_inverse(gram, config.ridge), int(config.view_mb * 1e6) // entry
    return Quantised.of(placed(largest_weights(inverse, entries), head, n_items)).tables(VIEW)
