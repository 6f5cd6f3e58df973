"""What an attack has to tell apart: the forgotten, as many like them that never were, and what the attacker knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data import Interactions


@dataclass(frozen=True)
class Targets:
    """Pairs that an attack has to tell apart, and the history it may use.

    Parameters
    ----------
    members
        Forgotten interactions.
    others
        For each member, an item that its user never had, of like popularity or a decoy; codes, shape [len(members)].
    known
        All that the users still hold, of which the attacker is taken to know everything: the worst case.
    """

    members: Interactions
    others: NDArray[np.int64]
    known: Interactions

    @property
    def users(self) -> NDArray[np.int64]:
        """The user of every pair, members and others alike; shape [len(members)]."""
        return self.members.users


def choose_targets(
    forget: Interactions, held: Interactions, test: Interactions, seed: int, decoys: Interactions | None = None
) -> Targets:
    """Members, matched non-members, and the known history.

    Of a user who keeps nothing, half of what is forgotten counts as known and the other half is attacked: a history
    there must be for the model to be asked at all.

    Parameters
    ----------
    forget
        What was withdrawn.
    held
        All that the users held before, `forget` included.
    test
        Held-out interactions: neither members nor non-members.
    decoys
        Non-members to take instead of those of like popularity: of each user who forgets, as many as are forgotten.
        Every user must keep something then.
    """
    known, forget = held - forget, held & forget  # with the columns of what is held
    if decoys:
        return Targets(forget, decoys.of_users(np.unique(forget.users)).items, known)
    bare = ~np.isin(forget.users, known.active_users())
    half = streams.bits(seed, 0, forget.users, "known half", forget.items) & np.uint64(1)
    told = bare & (half == 1)
    # Popularity without the forget set: the same before, after and for the oracle.
    others = _matched(members := forget.where(~told), held | test, known.item_degrees(), seed)
    found = others >= 0
    return Targets(members.where(found), others[found], known | forget.where(told))


def _matched(
    members: Interactions, touched: Interactions, popularity: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """For each member, the untouched item of its user that is nearest in popularity, each at most once.

    -1 where none stands within half the catalog: what is further off is no match.
    """
    n_items = members.n_items
    order = np.lexsort((streams.bits(seed, 0, np.arange(n_items), "popularity ties"), popularity))
    place = np.empty(n_items, dtype=np.int64)
    place[order] = np.arange(n_items)
    side = 1 - 2 * streams.below(2, seed, 0, members.users, "nearer side", members.items)
    others, taken = np.full(len(members), -1), touched.of_users(np.unique(members.users)).keys
    for distance in range(1, n_items):
        for sign in (side, -side):
            left = np.flatnonzero(others < 0)
            at = place[members.items[left]] + sign[left] * distance
            left, at = left[(at >= 0) & (at < n_items)], at[(at >= 0) & (at < n_items)]
            wanted: NDArray[np.int64] = members.users[left] * n_items + order[at]
            keys, first = np.unique(wanted, return_index=True)
            before = np.searchsorted(taken, keys)
            free = np.append(taken, -1)[before] != keys
            others[left[first[free]]] = keys[free] % n_items
            taken = np.insert(taken, before[free], keys[free])
        if (others >= 0).all() or distance > n_items // 2:
            break
    return others
