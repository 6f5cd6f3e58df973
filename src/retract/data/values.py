"""Ratings and times as people write them: decimal commas, ISO dates, milliseconds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retract.data.table import Table, could_be_numbers, first_row, shown

if TYPE_CHECKING:
    import polars as pl

_DECIMAL_COMMA = r"^[+-]?[0-9]+,[0-9]+$"
_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2},[0-9]{3}$"
_ISO = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,][0-9]+)?)?)?"
    r"\s*(Z|UTC|[+-][0-9]{2}:?[0-9]{2})?$"
)
_UNITS = (("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9))
_YEAR_1973, _YEAR_2103 = 10**8, 42 * 10**8
"""Seconds since 1970. Read as seconds, milliseconds of these years would lie thousands of years ahead."""


def ratings_of(table: Table) -> tuple[NDArray[np.float32] | None, list[str]]:
    """The ratings, finite, and what there is to say of them; None where there are none.

    Raises
    ------
    DataError
        On the first that is no finite number.
    """
    if "rating" not in table.frame.columns:
        return None, []
    import polars as pl

    column, notes = table.frame["rating"], list[str]()
    if not could_be_numbers(column):
        raise table.type_error("rating", "ratings must be finite numbers")
    numbers = column.cast(pl.Float32, strict=False)
    if column.dtype == pl.String and (numbers.null_count() > column.null_count()):
        numbers, notes = _with_commas(table, column, numbers)
    if (row := first_row(~numbers.is_finite().fill_null(False))) is not None:
        value = column[row]
        said = "the rating is missing" if value is None else f"{shown(value)} is not a finite number"
        raise table.error("rating", row, f"{said}: correct or remove the row")
    return numbers.to_numpy(), notes


def _with_commas(table: Table, column: pl.Series, numbers: pl.Series) -> tuple[pl.Series, list[str]]:
    """Ratings with decimal commas, where no rating has a point."""
    import polars as pl

    commas = column.str.contains(_DECIMAL_COMMA).fill_null(False)
    if not commas.any() or column.str.contains(".", literal=True).any():
        return numbers, []
    row = first_row(commas)
    assert row is not None
    if column.filter(commas).str.contains(_THOUSANDS).all():
        said = f"{shown(column[row])} reads in two ways, with a decimal comma and as thousands"
        raise table.error("rating", row, f"{said}: write ratings with a decimal point")
    note = f"ratings are read with decimal commas: {shown(column[row])} is {column[row].replace(',', '.')}"
    return column.str.replace(",", ".", literal=True).cast(pl.Float32, strict=False), [note]


def timestamps_of(table: Table) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Seconds since 1970, fractions rounded down, and what there is to say of them; None where there are no times.

    Raises
    ------
    DataError
        On the first that is no time.
    """
    if "timestamp" not in table.frame.columns:
        return None, []
    import polars as pl

    column, notes = table.frame["timestamp"], list[str]()
    if column.dtype in (pl.Date, pl.Datetime):
        numbers = column.dt.epoch("s").cast(pl.Int64)
    elif not could_be_numbers(column):
        raise table.type_error("timestamp", "timestamps must be whole numbers of seconds since 1970, or ISO dates")
    else:
        numbers = _numbers(column)
        if column.dtype == pl.String and numbers.null_count() == len(numbers):
            numbers = _of_iso(column)
        else:
            numbers, notes = _in_seconds(numbers)
    if (row := first_row(numbers.is_null())) is not None:
        value = column[row]
        said = "the timestamp is missing" if value is None else f"{shown(value)} is not a time"
        raise table.error("timestamp", row, f"{said}: give seconds since 1970, or dates such as 2026-11-25 18:30:00")
    return numbers.to_numpy(), notes


def reads_as_number_or_time(text: str) -> bool:
    """Whether text could be a rating or a time."""
    return bool(re.match(r"^[+-]?[0-9]+([.,][0-9]*)?([eE][+-]?[0-9]+)?$", text) or re.match(_ISO, text))


def _numbers(column: pl.Series) -> pl.Series:
    """Whole numbers; null where a value is none."""
    import polars as pl

    if column.dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    numbers = column.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False)
    if column.dtype == pl.String:  # a float would lose the last digits of nanoseconds
        exact = column.cast(pl.Int64, strict=False)
        numbers = exact.zip_with(exact.is_not_null(), numbers)
    return numbers


def _of_iso(column: pl.Series) -> pl.Series:
    """Seconds since 1970 of ISO dates and times, those without a zone in UTC; null where text is none."""
    import polars as pl

    part = [pl.col("text").str.extract(_ISO, place) for place in (1, 2, 3, 4)]
    moment = pl.concat_str(part[0], pl.lit(" "), part[1].fill_null("00:00"), pl.lit(":"), part[2].fill_null("00"))
    zone = part[3].str.replace_all("[:ZUTC]", "").replace("", None).cast(pl.Int32, strict=False).fill_null(0)
    minutes = zone.sign() * (zone.abs() // 100 * 60 + zone.abs() % 100)
    seconds = moment.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False).dt.epoch("s").cast(pl.Int64)
    return pl.DataFrame({"text": column.str.strip_chars()}).select(seconds - 60 * minutes).to_series()


def _in_seconds(numbers: pl.Series) -> tuple[pl.Series, list[str]]:
    """Seconds, where most times are plainly in a finer unit."""
    latest = numbers.max()
    if not isinstance(latest, int) or latest < _YEAR_1973 * 10**3:
        return numbers, []
    middle = float(np.median(numbers.drop_nulls().to_numpy()))
    for name, parts in _UNITS:
        if _YEAR_1973 * parts <= middle <= _YEAR_2103 * parts:
            return numbers // parts, [f"timestamps are {name} since 1970, it seems: they are read as such"]
    return numbers, []
