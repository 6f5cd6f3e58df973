"""What a model is asked for, as the caller gets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.api.frames import Ids, make_frame
from retract.data import Catalog, Interactions
from retract.errors import ConfigError
from retract.models.recommender import DotProduct, Ranking, Scores, best_of
from retract.stores.held import Held
from retract.stores.local import reader_of

ITEM_TABLES = ("items", "output.weight")
"""Tables of a model with a row for each item."""


def similar(held: Held, codes: NDArray[np.int64], k: int) -> Ranking:
    """The `k` nearest of each item, itself left out.

    Raises
    ------
    ConfigError
        If `k` is below 1.
    """
    require_length(k)
    scores = _similarities(held, codes)
    scores[np.arange(len(codes)), codes] = -np.inf
    return best_of(scores, min(k, held.catalog.n_items))


def require_length(k: int) -> None:
    """Refuse lists of nothing.

    Raises
    ------
    ConfigError
        If `k` is below 1.
    """
    if k < 1:
        raise ConfigError(f"k is {k}: a list has at least 1 item")


def as_frame(
    whose: str, names: Sequence[Any], best: Ranking, what: str, catalog: Catalog, ids: Ids, library: str | None
) -> Any:
    """Lists as one frame; what is left of a list that ends early is not shown.

    Parameters
    ----------
    whose, names
        The first column: its name, and whose each list is.
    what
        The second column's name.
    library
        The frame library; see `make_frame`.
    """
    shown, k = np.isfinite(best.scores), best.items.shape[1]
    rank = np.broadcast_to(np.arange(1, k + 1), best.items.shape)
    columns: dict[str, Sequence[Any]] = {
        whose: [name for name, row in zip(names, shown, strict=True) for _ in range(int(row.sum()))],
        what: ids.items(catalog.item_ids[best.items[shown]].tolist()),
        "score": best.scores[shown],
        "rank": rank[shown],
    }
    return make_frame(columns, library)


def listed(values: object) -> list[Any]:
    """One value or several as a list."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        return [values]
    found: Callable[[], list[Any]] | None = getattr(values, "to_list", None) or getattr(values, "tolist", None)
    return list(values) if found is None else found()


def _similarities(held: Held, codes: NDArray[np.int64]) -> Scores:
    """How near all items are to some, shape [len(codes), n_items]."""
    table = next((held.trained.model[name] for name in ITEM_TABLES if name in held.trained.model), None)
    if table is not None:
        rows = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        return DotProduct(rows, rows).scores(codes, held.interactions)
    asking = replace(held.catalog, user_ids=np.array([f"{n}" for n in range(len(codes))]))
    alone = Interactions.of(asking, np.arange(len(codes)), codes)
    return reader_of(held.system, held.trained, None).scores(np.arange(len(codes)), alone)
