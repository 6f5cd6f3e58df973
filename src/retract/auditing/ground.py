"""What an audit of somebody else's recommender stands on: who withdrew what and who holds what, over one catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.auditing.targets import Targets, choose_targets
from retract.data import Catalog, Columns, Interactions, from_frame, to_dataset
from retract.data.columns import USUAL, find_columns
from retract.data.ids import normal_id
from retract.data.readers import is_frame
from retract.errors import ConfigError, DataError


@dataclass(frozen=True)
class Ground:
    """Interactions over one catalog, and what a model calls its ids.

    Parameters
    ----------
    forget
        What was withdrawn.
    history
        What users hold after the withdrawal; None where nobody said.
    test
        Held-out interactions; None where there are none.
    users, items
        The ids of the catalog as models are asked for them: numbers where the data has numbers, else text.
    scored
        The pairs that all models scored; None where models can be asked for any.
    """

    forget: Interactions
    history: Interactions | None
    test: Interactions | None
    users: Sequence[Any]
    items: Sequence[Any]
    scored: Interactions | None = None

    @property
    def known(self) -> Interactions:
        """What users hold, as far as it is known."""
        return Interactions.empty(self.forget.catalog) if self.history is None else self.history

    def targets(self, seed: int) -> Targets:
        """Forgotten pairs, and as many of the same users that never were.

        Matched by popularity where the history is known, else drawn from the whole catalog.

        Raises
        ------
        DataError
            If nothing can be compared with.
        """
        nothing = Interactions.empty(self.forget.catalog)
        held_out = nothing if self.test is None else self.test
        if self.scored is None and self.history is not None:
            found = choose_targets(self.forget, self.history | self.forget, held_out, seed)
        else:
            found = self._by_user(self.known | self.forget | held_out, seed)
        if not len(found.users):
            raise DataError(
                "nothing can be compared with the forgotten pairs: the users who forget need items that they never "
                "had, scored like all others (items= or history= names them)"
            )
        return found

    def _by_user(self, taken: Interactions, seed: int) -> Targets:
        """For each forgotten pair another item of its user that was scored and is not taken, each once."""
        n_items = self.forget.n_items
        place = None if self.history is None else _places(self.history.item_degrees(), seed)
        others = np.full(len(self.forget), -1)
        for user in self.forget.active_users().tolist():
            scored = np.arange(n_items) if self.scored is None else self.scored.items_of(user)
            free = np.setdiff1d(scored, taken.items_of(user))
            free = free[np.argsort(streams.bits(seed, 0, user, "others drawn", free), kind="stable")]
            pairs = slice(self.forget.indptr[user], self.forget.indptr[user + 1])
            wanted = self.forget.items[pairs]
            others[pairs] = _first(free, len(wanted)) if place is None else _nearest(wanted, free, place)
        found = others >= 0
        return Targets(self.forget.where(found), others[found], self.known)


def _places(popularity: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Each item's place in the order of popularity, ties in a keyed order; shape [n_items]."""
    n_items = len(popularity)
    place = np.empty(n_items, dtype=np.int64)
    order = np.lexsort((streams.bits(seed, 0, np.arange(n_items), "popularity ties"), popularity))
    place[order] = np.arange(n_items)
    return place


def _first(free: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The first `n`, and -1 where there are no more."""
    return np.concatenate([free[:n], np.full(max(n - len(free), 0), -1)])


def _nearest(wanted: NDArray[np.int64], free: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each wanted item the free one nearest in popularity, each once; -1 where none is within half the catalog."""
    found = np.full(len(wanted), -1)
    for row, item in enumerate(wanted):
        if len(free):
            distance = np.abs(place[free] - place[item])
            best = int(distance.argmin())
            if distance[best] <= max(len(place) // 2, 1):
                found[row] = free[best]
                free = np.delete(free, best)
    return found


def gather(
    forget: object,
    history: object | None,
    test: object | None,
    items: Iterable[Sequence[Any]] = (),
    columns: Columns = USUAL,
) -> Ground:
    """Bring everything to one catalog.

    Parameters
    ----------
    forget, history, test
        Data frames, files, matrices or interactions, by original ids.
    items
        Lists of further items that models can recommend.
    columns
        The columns' names where they are not the usual ones.

    Raises
    ------
    DataError
        If one of them cannot be read, or the history still holds what was withdrawn.
    ConfigError
        If the forget set is empty.
    """
    over, users, names = bring_together({"forget": forget, "history": history, "test": test}, items, columns)
    if not len(over["forget"]):
        raise ConfigError("the forget set is empty: there is nothing to audit")
    refuse_remembered(over["forget"], over.get("history"))
    return Ground(over["forget"], over.get("history"), over.get("test"), users, names)


def bring_together(
    given: Mapping[str, object | None], items: Iterable[Sequence[Any]] = (), columns: Columns = USUAL
) -> tuple[dict[str, Interactions], list[Any], list[Any]]:
    """Data over one catalog, by the names it was given under, without what is None.

    Returns
    -------
    over
        The interactions by name.
    users, items
        The catalog's ids as models are asked for them: as the first of the data writes them that has a way of its own.

    Raises
    ------
    DataError
        If one cannot be read.
    """
    told = {name: one for name, one in given.items() if one is not None}
    read = {name: _interactions(one, name, columns) for name, one in told.items()}
    lists = [list(one) for one in items]
    catalog = union(read.values(), lists)
    users: dict[str, Any] = {}
    names = {normal_id(name): name for one in lists for name in one}
    for one in reversed(told.values()):
        of_users, of_items = _originals(one, columns)
        users |= of_users
        names |= of_items
    over = {name: recode(one, catalog) for name, one in read.items()}
    return over, _asked(catalog.user_ids, users), _asked(catalog.item_ids, names)


def refuse_remembered(forget: Interactions, history: Interactions | None) -> None:
    """Refuse a history from before the withdrawal.

    Raises
    ------
    DataError
        If it holds a forgotten pair.
    """
    left = Interactions.empty(forget.catalog) if history is None else forget & history
    if len(left):
        raise DataError(
            f"history still holds {len(left):,} of the {len(forget):,} forgotten pairs ({named(left)}): "
            "history is what users hold after the withdrawal"
        )


def named(pairs: Interactions) -> str:
    """The first of some pairs, for a message."""
    catalog = pairs.catalog
    return f"the first: user {catalog.user_ids[pairs.users[0]]}, item {catalog.item_ids[pairs.items[0]]}"


def union(read: Iterable[Interactions], items: Iterable[Sequence[Any]] = ()) -> Catalog:
    """One catalog of all their ids, in the order of their characters."""
    read = list(read)
    users = np.unique(np.concatenate([one.catalog.user_ids for one in read]))
    lists = [np.array([normal_id(name) for name in one], dtype=np.str_) for one in items]
    return Catalog(users[users != ""], np.unique(np.concatenate([*(one.catalog.item_ids for one in read), *lists])))


def recode(read: Interactions, catalog: Catalog) -> Interactions:
    """The same interactions by the codes of another catalog, which holds their ids in the order of characters."""
    users = np.searchsorted(catalog.user_ids, read.catalog.user_ids)
    items = np.searchsorted(catalog.item_ids, read.catalog.item_ids)
    return Interactions.of(catalog, users[read.users], items[read.items], read.ratings)


def _interactions(data: object, name: str, columns: Columns) -> Interactions:
    if isinstance(data, Interactions):
        return data
    if is_frame(data):
        return from_frame(data, columns=columns, name=name).interactions
    try:
        # A matrix has no columns to name, a file has.
        return to_dataset(data, columns=columns if isinstance(data, str | Path) else USUAL).interactions
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _originals(data: Any, columns: Columns) -> tuple[dict[str, Any], dict[str, Any]]:
    """Users and items as the data itself writes them, by their text; nothing where it knows text alone."""
    if is_frame(data):
        held = data.collect() if hasattr(data, "collect") else data
        at = find_columns([str(name) for name in held.columns], columns, "the data")
        users, items = (np.asarray(held[held.columns[at[role]]].unique()).tolist() for role in ("user", "item"))
        return {normal_id(name): name for name in users}, {normal_id(name): name for name in items}
    if hasattr(data, "indptr") and hasattr(data, "shape"):
        rows, width = data.shape
        return {str(row): row for row in range(rows)}, {str(column): column for column in range(width)}
    return {}, {}


def _asked(ids: NDArray[np.str_], originals: dict[str, Any]) -> list[Any]:
    """What models are asked for: numbers throughout where the data has numbers, else as the data writes them."""
    names = ids.tolist()
    if any(isinstance(one, int) for one in originals.values()) and all(_is_number(name) for name in names):
        return [int(name) for name in names]
    return [originals.get(name, name) for name in names]


def _is_number(name: str) -> bool:
    return name.isdecimal() and str(int(name)) == name
