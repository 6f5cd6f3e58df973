"""Who and what is left without a shared interaction by a withdrawal, and what that changes for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.federation import Clients
from retract.models.recommender import FallsBack, Recommender


@dataclass(frozen=True, eq=False)
class Isolated:
    """Users and items that have lost their last shared interaction.

    Parameters
    ----------
    users
        Codes of those who still hold something, ascending; who holds nothing is no user any more.
    items
        Codes, ascending.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]

    def notes(self, model: Recommender) -> tuple[str, ...]:
        """What to tell people of it, where the model then falls back on something."""
        if not isinstance(model, FallsBack):
            return ()
        unknown = int((~model.known[self.users]).sum())
        told = {
            f"users who share nothing any more, whose lists go by {model.fallback} from now on": unknown,
            "items that nobody shares any more, of which the model knows nothing now": len(self.items),
        }
        return tuple(f"{text}: {count:,}" for text, count in told.items() if count)


def isolated(before: Clients, after: Clients) -> Isolated:
    """What a withdrawal left without a shared interaction."""
    held, left = before.sharing.shared, after.sharing.shared
    users = np.setdiff1d(held.users, left.users)
    return Isolated(np.intersect1d(users, after.interactions.users), np.setdiff1d(held.items, left.items))
