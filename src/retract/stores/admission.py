"""What of new data may come in: not what was erased, and of what was unshared nothing as shared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retract.data import Catalog, Dataset, Interactions, Sharing
from retract.stores.suppression import ERASED, PRIVATE_ONLY, Suppression


@dataclass(frozen=True)
class Admitted:
    """Data held against a suppression list.

    Parameters
    ----------
    dataset
        What may come in.
    unshared
        The part of it that may not be shared.
    suppression
        The list as it is once the data is in.
    notes
        What to tell of it.
    """

    dataset: Dataset
    unshared: Interactions
    suppression: Suppression
    notes: tuple[str, ...] = ()

    def kept(self, sharing: Sharing) -> tuple[Sharing, tuple[str, ...]]:
        """A sharing of some of it, with what may not be shared among what is private; and a note on that."""
        unshared = recoded(self.unshared, sharing.shared.catalog) & sharing.shared
        if not len(unshared):
            return sharing, ()
        told = f"kept private because they were unshared (again shares them, on a new consent): {len(unshared):,}"
        return sharing.unshare(unshared), (told,)


def admitted(dataset: Dataset, suppression: Suppression, again: bool = False) -> Admitted:
    """What of a data set may come in.

    Parameters
    ----------
    again
        Whether all of it may, for its users have consented anew; what concerns them then leaves the list.
    """
    offered = dataset.interactions
    none = Interactions.empty(offered.catalog)
    if again or not suppression:
        return Admitted(dataset, none, suppression.without(offered) if again else suppression)
    verdicts = suppression.verdicts(offered)
    stays = verdicts != ERASED
    left = only(dataset, stays)
    unshared = left.interactions.where(verdicts[stays] == PRIVATE_ONLY)
    told = f"left out because they were erased (again takes them in, on a new consent): {int((~stays).sum()):,}"
    return Admitted(left, unshared, suppression, () if stays.all() else (told,))


def only(dataset: Dataset, stays: NDArray[np.bool_], *, idle: bool = True) -> Dataset:
    """The part of a data set where `stays` (shape [n]) is true; users and items that have nothing left are not known.

    Parameters
    ----------
    idle
        Whether items that had nothing before stay, such as those of a list of titles.
    """
    if stays.all() and idle:
        return dataset
    rows, catalog = dataset.interactions, dataset.interactions.catalog
    users, items = _places(catalog.n_users, rows.users, stays, True), _places(catalog.n_items, rows.items, stays, idle)
    titles = None if catalog.titles is None else catalog.titles[items >= 0]
    smaller = Catalog(catalog.user_ids[users >= 0], catalog.item_ids[items >= 0], titles)
    some = rows.where(stays)
    left = replace(some, catalog=smaller, users=users[some.users], items=items[some.items], duplicates=rows.duplicates)
    is_test, is_shared = (None if flag is None else flag[stays] for flag in (dataset.is_test, dataset.is_shared))
    return replace(dataset, interactions=left, is_test=is_test, is_shared=is_shared)


def recoded(interactions: Interactions, catalog: Catalog) -> Interactions:
    """The interactions by the codes of another catalog that knows their ids."""
    own = interactions.catalog
    if own is catalog:
        return interactions
    users = np.array([catalog.user(name) for name in own.user_ids], dtype=np.int64)
    items = catalog.items(own.item_ids)
    codes = users[interactions.users], items[interactions.items]
    return Interactions.of(catalog, *codes, interactions.ratings, interactions.timestamps)


def _places(n: int, codes: NDArray[np.int64], stays: NDArray[np.bool_], idle: bool) -> NDArray[np.int64]:
    """The new code of each of n old ones; -1 for one that loses all it had, or that had nothing and need not stay."""
    goes = np.full(n, not idle)
    goes[codes[~stays]] = True
    goes[codes[stays]] = False
    return np.where(goes, -1, np.cumsum(~goes) - 1)
