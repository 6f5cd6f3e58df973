"""From what a caller hands in to what a training takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.api.frames import Ids, library_of
from retract.data import Catalog, Columns, Dataset, Interactions, Sharing, sharing_of, to_dataset
from retract.data.columns import USUAL, find_columns
from retract.errors import ConfigError
from retract.systems.likes import suited_to
from retract.systems.system import SystemType


@dataclass(frozen=True)
class Fit:
    """Data to fit to.

    Parameters
    ----------
    dataset
        All of it.
    train, test
        What is learnt from and what is held out.
    ids, library
        How the caller writes ids, and in which frame library.
    """

    dataset: Dataset
    train: Interactions
    test: Interactions
    ids: Ids
    library: str | None

    @classmethod
    def of(
        cls,
        kind: SystemType,
        data: object,
        columns: Columns | None,
        at_least_rating: float | None,
        test: float | None,
        seed: int,
    ) -> Fit:
        """Read and split; nothing is held out unless the data or `test` says so."""
        named = columns or USUAL
        dataset = suited_to(kind, to_dataset(data, columns=named, at_least_rating=at_least_rating))
        if dataset.is_test is None and test is None:
            train, held_out = dataset.interactions, Interactions.empty(dataset.interactions.catalog)
        else:
            train, held_out = dataset.split(seed=seed, test=0.2 if test is None else test)
        library = library_of(data)
        own = {} if library is None else _own_names(data, named, dataset.name)
        return cls(dataset, train, held_out, Ids.of(data, dataset.interactions.catalog, own), library)


def chosen_sharing(
    given: Fit, system: str, share: float | None, default: float | None, clients: int | None, seed: int
) -> Sharing:
    """What of the training part is shared.

    Raises
    ------
    ConfigError
        If nothing says so and the system has no default.
    """
    said = given.dataset.shared
    if share is None and default is None and said is None:
        raise ConfigError(
            f"{system} shares what its users choose: give share=… between 0 and 1, or a column named shared"
        )
    usual = {} if default is None else {"default": default}
    sharing = sharing_of(given.train, share, said, **usual, seed=seed)
    return sharing if clients is None else sharing.held_by(clients, seed)


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
