"""The same interactions under the codes of another catalog, by their original ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract.data import Catalog, Interactions, Sharing


def recoded(held: Interactions, catalog: Catalog) -> Interactions:
    """What `held` names, under the codes of `catalog`; users and items that this one does not know are left out."""
    users = _places(held.catalog.user_ids, catalog.user_ids)[held.users]
    items = _places(held.catalog.item_ids, catalog.item_ids)[held.items]
    known = (users >= 0) & (items >= 0)
    ratings, times = held.ratings, held.timestamps
    return Interactions.of(
        catalog,
        users[known],
        items[known],
        None if ratings is None else ratings[known],
        None if times is None else times[known],
    )


def recoded_sharing(sharing: Sharing, catalog: Catalog) -> Sharing:
    """Both parts of what users hold, likewise; every user is a client."""
    return Sharing(recoded(sharing.shared, catalog), recoded(sharing.private, catalog))


def _places(names: NDArray[np.str_], among: NDArray[np.str_]) -> NDArray[np.int64]:
    """The place of each name, -1 for one that is not there, and for the empty one, which names nobody."""
    known = {name: place for place, name in enumerate(among.tolist()) if name}
    return np.array([known.get(name, -1) for name in names.tolist()], dtype=np.int64)
