"""From columns as they were read to checked interactions: every fault named with its value and its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retract.data.catalog import Catalog
from retract.data.interactions import Interactions, last_of_each
from retract.errors import DataError

if TYPE_CHECKING:
    import polars as pl

# numpy text is as wide as its longest entry, so a single runaway field would claim gigabytes.
_LONGEST_ID = 500
_LONGEST_TITLE = 200
_MISSING = "is missing: fill it in or remove the row"


@dataclass(frozen=True)
class Table:
    """Columns as they were read, not yet checked.

    Parameters
    ----------
    source
        What messages call the data: a path, or a name.
    frame
        At least one row; columns `user`, `item` and, where present, `rating`, `timestamp`, `fold`, `shared`, `title`.
    names
        What the source itself calls these columns.
    place
        Where a row of the frame stands in the source: "line 7", "row 6".
    """

    source: str
    frame: pl.DataFrame
    names: Mapping[str, str]
    place: Callable[[int], str]

    def error(self, role: str, row: int, complaint: str) -> DataError:
        """The error that a value deserves, with its place."""
        return DataError(f"{self.source}, {self.place(row)}, column {self.names[role]!r}: {complaint}")

    def type_error(self, role: str, complaint: str) -> DataError:
        """The error that a whole column deserves."""
        dtype = self.frame.schema[role]
        return DataError(f"{self.source}: column {self.names[role]!r} holds {dtype}: {complaint}")


def encode(table: Table) -> tuple[Interactions, NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Check everything and replace ids by their codes.

    Ids stand in numeric order where all are integers, else in the order of their characters, whatever the row order.

    Returns
    -------
    interactions
        Each pair once, the last row of equal pairs.
    is_test, is_shared
        Shapes [len(interactions)], or None without a column of folds or of what is shared.

    Raises
    ------
    DataError
        On the first value that is not what it must be.
    """
    user_ids, users = _codes(table, "user")
    item_ids, items = _codes(table, "item")
    catalog = Catalog(user_ids, item_ids, _titles(table, items, item_ids))
    interactions = Interactions.of(catalog, users, items, _ratings(table), _timestamps(table))
    keys = users * catalog.n_items + items
    return interactions, _is_test(table, keys, catalog), _is_shared(table, keys, catalog)


def _codes(table: Table, role: str) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """The ids as text in catalog order, and the code of every row."""
    import polars as pl

    column = _id_column(table, role)
    distinct = column.unique()
    if column.dtype == pl.String:
        _check_text(table, role, column, distinct)
    known = pl.DataFrame({"id": distinct}).with_columns(text=pl.col("id").cast(pl.String))
    known = known.with_columns(number=pl.col("text").cast(pl.Int128, strict=False))
    known = known.sort(["text"] if known["number"].has_nulls() else ["number", "text"])
    numbers = pl.Series(np.arange(len(known)), dtype=pl.Int64)
    codes = column.replace_strict(known["id"], numbers, return_dtype=pl.Int64)
    return known["text"].to_numpy().astype(np.str_), codes.to_numpy()


def _id_column(table: Table, role: str) -> pl.Series:
    """The ids as whole numbers or as text, none missing."""
    import polars as pl

    column = table.frame[role]
    if column.dtype.is_float():
        # pandas turns whole numbers into floats where one is missing
        whole = column.cast(pl.Int64, strict=False)
        missing = column.is_null() | column.is_nan()
        if (row := _first(~missing & (whole.cast(pl.Float64) != column).fill_null(True))) is not None:
            raise table.error(role, row, f"{_shown(column[row])} is no {role} id: ids must be text or whole numbers")
        column = whole
    elif _could_be_text(column):
        column = column.cast(pl.String)
    elif not column.dtype.is_integer():
        raise table.type_error(role, "ids must be text or whole numbers")
    if (row := _first(column.is_null())) is not None:
        raise table.error(role, row, f"the {role} id {_MISSING}")
    return column


def _check_text(table: Table, role: str, column: pl.Series, distinct: pl.Series) -> None:
    """Refuse text that can be no id; only the distinct ids are looked at, for speed."""
    for bad, complaint in (
        (distinct.str.strip_chars() == "", _MISSING),
        (distinct.str.len_chars() > _LONGEST_ID, f"is over {_LONGEST_ID} characters long: look for an unclosed quote"),
        # numpy drops a NUL at the end, so two users would get one name
        (distinct.str.contains("\0", literal=True), "holds a NUL character: remove it"),
    ):
        if bad.any():
            row = column.is_in(distinct.filter(bad).implode()).arg_true()[0]
            raise table.error(role, int(row), f"the {role} id {complaint}")


def _ratings(table: Table) -> NDArray[np.float32] | None:
    if "rating" not in table.frame.columns:
        return None
    import polars as pl

    column = table.frame["rating"]
    if not _could_be_numbers(column):
        raise table.type_error("rating", "ratings must be finite numbers")
    numbers = column.cast(pl.Float32, strict=False)
    if (row := _first(~numbers.is_finite().fill_null(False))) is not None:
        value = column[row]
        said = "the rating is missing" if value is None else f"{_shown(value)} is not a finite number"
        raise table.error("rating", row, f"{said}: correct or remove the row")
    return numbers.to_numpy()


def _timestamps(table: Table) -> NDArray[np.int64] | None:
    """Seconds since 1970, fractions rounded down."""
    if "timestamp" not in table.frame.columns:
        return None
    import polars as pl

    column = table.frame["timestamp"]
    if column.dtype in (pl.Date, pl.Datetime):
        numbers = column.dt.epoch("s").cast(pl.Int64)
    elif not _could_be_numbers(column):
        raise table.type_error("timestamp", "timestamps must be whole numbers of seconds since 1970")
    elif column.dtype.is_integer():
        numbers = column.cast(pl.Int64, strict=False)
    else:
        numbers = column.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False)
        if column.dtype == pl.String:  # a float would lose the last digits of nanoseconds
            exact = column.cast(pl.Int64, strict=False)
            numbers = exact.zip_with(exact.is_not_null(), numbers)
    if (row := _first(numbers.is_null())) is not None:
        value = column[row]
        said = "the timestamp is missing" if value is None else f"{_shown(value)} is not a number"
        raise table.error("timestamp", row, f"{said}: give whole seconds since 1970")
    return numbers.to_numpy()


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
    if not _could_be_text(column):
        raise table.type_error("fold", "folds must be 'train' or 'test'")
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    if (row := _first(~text.is_in(["train", "test"]).fill_null(False))) is not None:
        raise table.error("fold", row, f"{_shown(column[row])} is not a fold: write 'train' or 'test'")
    in_test: NDArray[np.bool_] = (text == "test").to_numpy()
    for fold, present in (("train", not in_test.all()), ("test", in_test.any())):
        if not present:
            where = f"{table.source}, column {table.names['fold']!r}"
            raise DataError(f"{where}: no row is {fold!r}: mark some so, or leave the column out")
    return in_test


def _is_shared(table: Table, keys: NDArray[np.int64], catalog: Catalog) -> NDArray[np.bool_] | None:
    """Whether each pair is shared, pairs in the order of their keys; of equal pairs the last row says."""
    if "shared" not in table.frame.columns:
        return None
    import polars as pl

    column = table.frame["shared"]
    if not _could_be_numbers(column):
        raise table.type_error("shared", "true or false must say whether an interaction is shared")
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    yes, no = text.is_in(["true", "1", "1.0"]), text.is_in(["false", "0", "0.0"])  # pandas has floats beside gaps
    if (row := _first(~(yes | no).fill_null(False))) is not None:
        value = column[row]
        said = "the value is missing" if value is None else f"{_shown(value)} does not say whether this is shared"
        raise table.error("shared", row, f"{said}: write true or false")
    shared: NDArray[np.bool_] = yes.to_numpy()
    return shared[last_of_each(keys, catalog.n_users * catalog.n_items)[1]]


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


def _could_be_text(column: pl.Series) -> bool:
    import polars as pl

    return column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)


def _could_be_numbers(column: pl.Series) -> bool:
    import polars as pl

    return column.dtype.is_numeric() or column.dtype == pl.Boolean or _could_be_text(column)


def _shown(value: object, longest: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[:longest] + "…"


def _first(bad: pl.Series) -> int | None:
    """The first row where `bad` is true."""
    return int(bad.arg_true()[0]) if bad.any() else None
