"""The people of the story: who withdraws, whose lists are shown, and what is in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data import Interactions
from retract.models.recommender import Recommender, recommend
from retract.report.facts import Agreement, Forgotten, Listed, Person, Trio

HISTORY = (30, 150)
"""Interactions of a person whose lists are shown: enough to say something, few enough to be read."""
LIST = 10
EXAMPLES = 5


def choose_withdrawers(shared: Interactions, part: float, seed: int) -> NDArray[np.int64]:
    """A seeded part of the users who share anything, at least one of them, ascending; someone goes on sharing."""
    sharers = shared.active_users()
    count = min(max(1, round(part * len(sharers))), len(sharers) - 1)
    order = streams.bits(seed, 0, sharers, "demo withdrawers")
    return np.sort(sharers[np.argsort(order)[:count]])


def choose_people(
    among: NDArray[np.int64], history: Interactions, test: Interactions, seed: int, count: int = 3
) -> NDArray[np.int64]:
    """Whose lists are shown: a seeded draw from the users with a history in `HISTORY` and something to test.

    Where there are too few of these, the others follow.
    """
    degrees = history.user_degrees()[among]
    fitting = (degrees >= HISTORY[0]) & (degrees <= HISTORY[1]) & (test.user_degrees()[among] > 0)
    order = np.lexsort((streams.bits(seed, 0, among, "demo people"), ~fitting))
    return np.sort(among[order[:count]])


def introduce(
    user: int, history: Interactions, test: Interactions, forget: Interactions, models: Trio[Recommender]
) -> Person:
    """One user's withdrawn items and recommendations under the three models."""
    catalog, k = history.catalog, min(LIST, history.n_items)
    only = np.array([user])
    lists = models.map(lambda model: recommend(model, only, history, k).items[0])
    wanted = set(test.items_of(user).tolist())

    def entries(items: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[Listed, ...]:
        known = set(other.tolist())
        return tuple(Listed(catalog.title(i), i not in known, i in wanted) for i in items.tolist())

    withdrawn = len(forget.items_of(user))
    return Person(
        str(catalog.user_ids[user]),
        len(history.items_of(user)) - withdrawn,
        withdrawn,
        _examples(user, history, forget, models),
        Trio(entries(lists.before, lists.after), *(entries(own, lists.before) for own in (lists.after, lists.oracle))),
    )


def _examples(
    user: int, history: Interactions, forget: Interactions, models: Trio[Recommender]
) -> tuple[Forgotten, ...]:
    """The best rated of the withdrawn items, the better known first among equals, with their positions."""
    own = forget.of_users([user])
    rated = np.zeros(len(own)) if own.ratings is None else own.ratings
    best = np.lexsort((-history.item_degrees()[own.items], -rated))[:EXAMPLES]
    ordered = models.map(lambda model: positions(model, user, history))
    return tuple(
        Forgotten(own.catalog.title(item), ordered.map(lambda places, item=item: int(places[item])))  # type: ignore[misc]
        for item in own.items[best].tolist()
    )


def positions(model: Recommender, user: int, history: Interactions) -> NDArray[np.int64]:
    """Every item's place in a user's list of all items, 1 at the top; of equals the lower code comes first."""
    scores = model.scores(np.array([user]), history)[0]
    places = np.empty(len(scores), dtype=np.int64)
    places[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return places


def agreement(models: Trio[Recommender], users: NDArray[np.int64], history: Interactions) -> Agreement:
    """How many of the oracle's top items stand in the other two lists, mean over `users`."""
    k = min(LIST, history.n_items)
    lists = models.map(lambda model: recommend(model, users, history, k).items)

    def common(other: NDArray[np.int64]) -> float:
        return float((lists.oracle[:, :, None] == other[:, None, :]).any(axis=2).sum(axis=1).mean())

    return Agreement(k, common(lists.before), common(lists.after))
