"""From what a caller hands in to what a training takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.api.frames import Ids, library_of
from retract.data import Catalog, Columns, Dataset, Interactions, to_dataset
from retract.data.columns import USUAL, find_columns
from retract.systems.likes import suited_to
from retract.systems.system import SystemType


@dataclass(frozen=True)
class Fit:
    """Data to fit to.

    Parameters
    ----------
    dataset
        All of it that the system learns from.
    ids, library
        How the caller writes ids, and in which frame library.
    """

    dataset: Dataset
    ids: Ids
    library: str | None

    @classmethod
    def of(cls, kind: SystemType, data: object, columns: Columns | None, at_least_rating: float | None) -> Fit:
        """Read whatever form the data has, and take what the system learns from."""
        named, library = columns or USUAL, library_of(data)
        dataset = suited_to(kind, to_dataset(data, columns=named, at_least_rating=at_least_rating))
        own = {} if library is None else _own_names(data, named, dataset.name)
        return cls(dataset, Ids.of(data, dataset.interactions.catalog, own), library)


def recoded(kind: SystemType, data: object, columns: Columns | None, catalog: Catalog) -> tuple[Interactions, int]:
    """Interactions by the codes of a catalog, and how many of them name a user or an item that it lacks."""
    found = suited_to(kind, to_dataset(data, columns=columns or USUAL)).interactions
    own = found.catalog
    users, items = _codes(own.user_ids, catalog.user_ids), _codes(own.item_ids, catalog.item_ids)
    known = (users[found.users] >= 0) & (items[found.items] >= 0)
    some = found.where(known)
    return (
        Interactions.of(catalog, users[some.users], items[some.items], some.ratings, some.timestamps),
        int((~known).sum()),
    )


def _codes(names: NDArray[np.str_], known: NDArray[np.str_]) -> NDArray[np.int64]:
    """The code of each name among known ones; -1 for one that is not."""
    codes = {name: code for code, name in enumerate(known.tolist()) if name}
    return np.array([codes.get(name, -1) for name in names.tolist()], dtype=np.int64)


def _own_names(frame: object, columns: Columns, source: str) -> dict[str, str]:
    """What a frame calls its user's and its item's column."""
    schema = getattr(frame, "collect_schema", None)
    seen = [str(name) for name in (schema().names() if schema else frame.columns)]  # type: ignore[attr-defined]
    found = find_columns(seen, columns, source)
    return {role: seen[found[role]] for role in ("user", "item")}
