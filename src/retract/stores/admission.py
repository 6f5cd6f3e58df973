"""What of new data may come in: not what was erased, and of what was unshared nothing as shared."""

from __future__ import annotations

from dataclasses import dataclass

from retract.data import Dataset, Interactions, Sharing
from retract.stores.recoding import recoded
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
    left = dataset.only(stays)
    unshared = left.interactions.where(verdicts[stays] == PRIVATE_ONLY)
    told = f"left out because they were erased (again takes them in, on a new consent): {int((~stays).sum()):,}"
    return Admitted(left, unshared, suppression, () if stays.all() else (told,))
