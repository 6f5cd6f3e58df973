"""From columns as they were read to checked interactions: every fault named with its value and its place."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retract.data.catalog import Catalog
from retract.data.ids import encode_ids
from retract.data.interactions import Interactions, latest_of_each
from retract.data.table import Table, could_be_numbers, could_be_text, first_row, shown
from retract.data.values import ratings_of, timestamps_of
from retract.errors import DataError

_LONGEST_TITLE = 200


class Encoded(NamedTuple):
    """A table that was checked: see `encode`."""

    interactions: Interactions
    is_test: NDArray[np.bool_] | None
    is_shared: NDArray[np.bool_] | None
    notes: tuple[str, ...]


def encode(table: Table) -> Encoded:
    """Check everything and replace ids by their codes.

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
        On the first value that is not what it must be.
    """
    table = _without_headers(table)
    user_ids, users, on_users = encode_ids(table, "user")
    item_ids, items, on_items = encode_ids(table, "item")
    catalog = Catalog(user_ids, item_ids, _titles(table, items, item_ids))
    ratings, on_ratings = ratings_of(table)
    times, on_times = timestamps_of(table)
    interactions = Interactions.of(catalog, users, items, ratings, times)
    keys = users * catalog.n_items + items
    notes = (*table.notes, *on_users, *on_items, *on_ratings, *on_times)
    return Encoded(interactions, _is_test(table, keys, catalog), _is_shared(table, keys, times, catalog), notes)


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


def _is_test(table: Table, keys: NDArray[np.int64], catalog: Catalog) -> NDArray[np.bool_] | None:
    """Whether each pair is to test on, pairs in the order of their keys (user * n_items + item)."""
    if "fold" not in table.frame.columns:
        return None
    in_test = _folds(table)
    marked = np.unique(keys * 2 + in_test)
    pairs = marked // 2
    leaked = pairs[1:][pairs[1:] == pairs[:-1]]
    if len(leaked):
        user, item = divmod(leaked[0], catalog.n_items)
        named = f"item {catalog.item_ids[item]} of user {catalog.user_ids[user]}"
        more = f" ({len(leaked)} such pairs)" if len(leaked) > 1 else ""
        row = int(np.flatnonzero((keys == leaked[0]) & in_test)[0])
        raise table.error("fold", row, f"{named} is in train and in test{more}: keep it in one of them")
    is_test: NDArray[np.bool_] = marked % 2 == 1
    return is_test


def _folds(table: Table) -> NDArray[np.bool_]:
    """Whether each row is to test on."""
    import polars as pl

    column = table.frame["fold"]
    if not could_be_text(column):
        raise table.type_error("fold", "folds must be 'train' or 'test'")
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    if (row := first_row(~text.is_in(["train", "test"]).fill_null(False))) is not None:
        raise table.error("fold", row, f"{shown(column[row])} is not a fold: write 'train' or 'test'")
    in_test: NDArray[np.bool_] = (text == "test").to_numpy()
    for fold, present in (("train", not in_test.all()), ("test", in_test.any())):
        if not present:
            where = f"{table.source}, column {table.names['fold']!r}"
            raise DataError(f"{where}: no row is {fold!r}: mark some so, or leave the column out")
    return in_test


def _is_shared(
    table: Table, keys: NDArray[np.int64], times: NDArray[np.int64] | None, catalog: Catalog
) -> NDArray[np.bool_] | None:
    """Whether each pair is shared, pairs in the order of their keys; of equal pairs the latest says."""
    if "shared" not in table.frame.columns:
        return None
    import polars as pl

    column = table.frame["shared"]
    if not could_be_numbers(column):
        raise table.type_error("shared", "true or false must say whether an interaction is shared")
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    yes, no = text.is_in(["true", "1", "1.0"]), text.is_in(["false", "0", "0.0"])  # pandas has floats beside gaps
    if (row := first_row(~(yes | no).fill_null(False))) is not None:
        value = column[row]
        said = "the value is missing" if value is None else f"{shown(value)} does not say whether this is shared"
        raise table.error("shared", row, f"{said}: write true or false")
    rows, begins = latest_of_each(keys, catalog.n_users * catalog.n_items, times)
    said_so: NDArray[np.bool_] = yes.to_numpy()[rows]
    shared: NDArray[np.bool_] = np.logical_or.reduceat(said_so, begins)
    if (unsure := shared != np.logical_and.reduceat(said_so, begins)).any():
        pair = int(np.argmax(unsure))
        own = np.split(np.arange(len(rows)), begins[1:])[pair]
        one, other = sorted(int(rows[own][said_so[own] == answer].min()) for answer in (True, False))
        user, item = divmod(int(keys[one]), catalog.n_items)
        named = f"item {catalog.item_ids[item]} of user {catalog.user_ids[user]}"
        before = f"{named} is shared by one row and not by another ({table.place(one)}) of the same time"
        raise table.error("shared", other, f"{before}: correct one of them")
    return shared


def _titles(table: Table, items: NDArray[np.int64], item_ids: NDArray[np.str_]) -> NDArray[np.str_] | None:
    """One title per item: of several the first in the alphabet, so that row order does not matter; its id for none."""
    import polars as pl

    if "title" not in table.frame.columns or table.frame.schema["title"] != pl.String:
        return None
    rows = pl.DataFrame({"item": items, "title": table.frame["title"].str.strip_chars().str.head(_LONGEST_TITLE)})
    best = rows.filter(pl.col("title") != "").group_by("item").agg(pl.col("title").min())
    titles = item_ids.astype(object)
    titles[best["item"].to_numpy()] = best["title"].to_numpy()
    return titles.astype(np.str_)
