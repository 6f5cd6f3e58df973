"""From columns as they were read to checked interactions: every fault named with its value and its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retract.data.catalog import Catalog
from retract.data.ids import Known, join_ids, known_ids
from retract.data.interactions import Interactions, latest_of_each
from retract.data.table import Table, could_be_numbers, could_be_text, first_row, shown
from retract.data.values import ratings_of, timestamps_of
from retract.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_LONGEST_TITLE = 200


class Encoded(NamedTuple):
    """Data that was checked: see `join`."""

    interactions: Interactions
    is_test: NDArray[np.bool_] | None
    is_shared: NDArray[np.bool_] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Coded:
    """A table with every value checked, and its ids replaced by numbers of its own.

    Parameters
    ----------
    table
        What it was, with the types of its columns but without its rows.
    users, items
        Their ids.
    ratings, times, in_test, says_shared
        A value for every row; None where there is no such column.
    titles
        Columns `text`, an item, and `title`: the first in the alphabet of its titles. None where there are none.
    notes
        What to know of its values, in sentences.
    """

    table: Table
    users: Known
    items: Known
    ratings: NDArray[np.float32] | None
    times: NDArray[np.int64] | None
    in_test: NDArray[np.bool_] | None
    says_shared: NDArray[np.bool_] | None
    titles: pl.DataFrame | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.users.codes)


def code(table: Table) -> Coded:
    """Check every value by itself.

    Raises
    ------
    DataError
        On the first that is not what it must be.
    """
    table = _without_headers(table)
    users, items = known_ids(table, "user"), known_ids(table, "item")
    ratings, on_ratings = ratings_of(table)
    times, on_times = timestamps_of(table)
    return Coded(
        replace(table, frame=table.frame.clear()),
        users,
        items,
        ratings,
        times,
        _folds(table),
        _said(table),
        _titles(table, items),
        (*on_ratings, *on_times),
    )


def join(parts: Sequence[Coded]) -> Encoded:
    """One set of interactions of tables with the same columns.

    Ids stand in numeric order where all are integers, else in the order of their characters, whatever the row order.

    Returns
    -------
    interactions
        Each pair once; of equal pairs what `Interactions.of` makes of them.
    is_test, is_shared
        Shapes [len(interactions)], or None without a column of folds or of what is shared.
    notes
        What to know of it, in sentences.

    Raises
    ------
    DataError
        If rows contradict each other.
    """
    user_ids, users, on_users = join_ids("user", [part.users for part in parts])
    item_ids, items, on_items = join_ids("item", [part.items for part in parts])
    catalog = Catalog(user_ids, item_ids, _joined_titles(parts, item_ids))
    times = _column(parts, "times")
    interactions = Interactions.of(catalog, users, items, _column(parts, "ratings"), times)
    told = dict.fromkeys(note for part in parts for note in (*part.table.notes, *on_users, *on_items, *part.notes))
    keys = users
    keys *= catalog.n_items  # in place, for there may be hundreds of millions
    keys += items
    is_test, is_shared = _is_test(parts, keys, catalog), _is_shared(parts, keys, times, catalog)
    return Encoded(interactions, is_test, is_shared, tuple(told))


def encode(table: Table) -> Encoded:
    """Check everything and replace ids by their codes; see `join`.

    Raises
    ------
    DataError
        On the first value that is not what it must be.
    """
    return join([code(table)])


def _column(parts: Sequence[Coded], name: str) -> Any:
    """A column of all parts, part after part; None where they have none."""
    columns = [getattr(part, name) for part in parts]
    if len(columns) == 1 or columns[0] is None:
        return columns[0]
    return np.concatenate(columns)


def _at(parts: Sequence[Coded], row: int) -> tuple[Table, int]:
    """The table that a row of all parts is in, and its number there."""
    begins = np.cumsum([0, *(len(part) for part in parts)])
    place = int(np.searchsorted(begins, row, side="right")) - 1
    return parts[place].table, row - int(begins[place])


def _without_headers(table: Table) -> Table:
    """The table without rows that repeat its header, as files have that were put together of several."""
    import polars as pl

    if any(kind != pl.String for kind in table.frame.dtypes):  # a header among numbers would have made text of them
        return table
    places = table.frame["user"] == table.names["user"]
    if not places.any():
        return table
    same = [pl.col(role) == name for role, name in table.names.items()]
    places = table.frame.select(pl.all_horizontal(same).fill_null(False).alias("repeats")).to_series()
    if not places.any():
        return table
    kept = (~places).arg_true()
    if not len(kept):
        raise DataError(f"{table.source} holds its header alone: there is nothing to learn from")
    count, where = int(places.sum()), table.place(int(places.arg_true()[0]))
    more = f" and {count - 1:,} more" if count > 1 else ""
    note = f"the header is repeated in {where}{more}, which is left out"
    frame = table.frame.filter(~places)
    return replace(table, frame=frame, place=lambda row: table.place(int(kept[row])), notes=(*table.notes, note))


def _is_test(parts: Sequence[Coded], keys: NDArray[np.int64], catalog: Catalog) -> NDArray[np.bool_] | None:
    """Whether each pair is to test on, pairs in the order of their keys (user * n_items + item)."""
    in_test = _column(parts, "in_test")
    if in_test is None:
        return None
    for fold, present in (("train", not in_test.all()), ("test", in_test.any())):
        if not present:
            table = parts[0].table
            where = f"{table.source}, column {table.names['fold']!r}"
            raise DataError(f"{where}: no row is {fold!r}: mark some so, or leave the column out")
    marked = np.unique(keys * 2 + in_test)
    pairs = marked // 2
    leaked = pairs[1:][pairs[1:] == pairs[:-1]]
    if len(leaked):
        user, item = divmod(leaked[0], catalog.n_items)
        named = f"item {catalog.item_ids[item]} of user {catalog.user_ids[user]}"
        more = f" ({len(leaked)} such pairs)" if len(leaked) > 1 else ""
        table, row = _at(parts, int(np.flatnonzero((keys == leaked[0]) & in_test)[0]))
        raise table.error("fold", row, f"{named} is in train and in test{more}: keep it in one of them")
    is_test: NDArray[np.bool_] = marked % 2 == 1
    return is_test


def _folds(table: Table) -> NDArray[np.bool_] | None:
    """Whether each row is to test on."""
    import polars as pl

    if "fold" not in table.frame.columns:
        return None
    column = table.frame["fold"]
    if not could_be_text(column):
        raise table.type_error("fold", "folds must be 'train' or 'test'")
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    if (row := first_row(~text.is_in(["train", "test"]).fill_null(False))) is not None:
        raise table.error("fold", row, f"{shown(column[row])} is not a fold: write 'train' or 'test'")
    in_test: NDArray[np.bool_] = (text == "test").to_numpy()
    return in_test


def _said(table: Table) -> NDArray[np.bool_] | None:
    """Whether each row says that it is shared."""
    import polars as pl

    if "shared" not in table.frame.columns:
        return None
    column = table.frame["shared"]
    if not could_be_numbers(column):
        raise table.type_error("shared", "true or false must say whether an interaction is shared")
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    yes, no = text.is_in(["true", "1", "1.0"]), text.is_in(["false", "0", "0.0"])  # pandas has floats beside gaps
    if (row := first_row(~(yes | no).fill_null(False))) is not None:
        value = column[row]
        said = "the value is missing" if value is None else f"{shown(value)} does not say whether this is shared"
        raise table.error("shared", row, f"{said}: write true or false")
    said_so: NDArray[np.bool_] = yes.to_numpy()
    return said_so


def _is_shared(
    parts: Sequence[Coded], keys: NDArray[np.int64], times: NDArray[np.int64] | None, catalog: Catalog
) -> NDArray[np.bool_] | None:
    """Whether each pair is shared, pairs in the order of their keys; of equal pairs the latest says."""
    said_so = _column(parts, "says_shared")
    if said_so is None:
        return None
    rows, begins = latest_of_each(keys, catalog.n_users * catalog.n_items, times)
    said_so = said_so[rows]
    shared: NDArray[np.bool_] = np.logical_or.reduceat(said_so, begins)
    if (unsure := shared != np.logical_and.reduceat(said_so, begins)).any():
        pair = int(np.argmax(unsure))
        own = np.split(np.arange(len(rows)), begins[1:])[pair]
        one, other = sorted(int(rows[own][said_so[own] == answer].min()) for answer in (True, False))
        user, item = divmod(int(keys[one]), catalog.n_items)
        named = f"item {catalog.item_ids[item]} of user {catalog.user_ids[user]}"
        (first, at), (table, row) = _at(parts, one), _at(parts, other)
        place = first.place(at) if first is table else f"{first.source}, {first.place(at)}"
        before = f"{named} is shared by one row and not by another ({place}) of the same time"
        raise table.error("shared", row, f"{before}: correct one of them")
    return shared


def _titles(table: Table, items: Known) -> pl.DataFrame | None:
    """One title for each item with some: of several the first in the alphabet, so that row order does not matter."""
    import polars as pl

    if "title" not in table.frame.columns or table.frame.schema["title"] != pl.String:
        return None
    text = items.texts["text"].gather(items.codes)
    rows = pl.DataFrame({"text": text, "title": table.frame["title"].str.strip_chars().str.head(_LONGEST_TITLE)})
    return rows.filter(pl.col("title") != "").group_by("text").agg(pl.col("title").min())


def _joined_titles(parts: Sequence[Coded], item_ids: NDArray[np.str_]) -> NDArray[np.str_] | None:
    """One title per item, its id where it has none."""
    import polars as pl

    known = [part.titles for part in parts if part.titles is not None]
    if not known:
        return None
    best = pl.concat(known).group_by("text").agg(pl.col("title").min())
    titles = pl.DataFrame({"text": item_ids}).join(best, on="text", how="left", maintain_order="left")
    return titles.select(pl.coalesce("title", "text")).to_series().to_numpy().astype(np.str_)
