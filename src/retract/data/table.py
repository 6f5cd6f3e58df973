"""A table: columns as they were read, and where each row stands in its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retract.errors import DataError

if TYPE_CHECKING:
    import polars as pl


class NoRowsError(DataError):
    """A file or frame with columns but without rows."""


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
    notes
        What its reader has to say, in sentences.
    """

    source: str
    frame: pl.DataFrame
    names: Mapping[str, str]
    place: Callable[[int], str]
    notes: tuple[str, ...] = ()

    def error(self, role: str, row: int, complaint: str) -> DataError:
        """The error that a value deserves, with its place."""
        return DataError(f"{self.source}, {self.place(row)}, column {self.names[role]!r}: {complaint}")

    def type_error(self, role: str, complaint: str) -> DataError:
        """The error that a whole column deserves."""
        dtype = self.frame.schema[role]
        return DataError(f"{self.source}: column {self.names[role]!r} holds {dtype}: {complaint}")


def could_be_text(column: pl.Series) -> bool:
    """Whether its type is one of text, or of nothing at all."""
    import polars as pl

    return column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)


def could_be_numbers(column: pl.Series) -> bool:
    """Whether its type is one of numbers, or text may tell them."""
    import polars as pl

    return column.dtype.is_numeric() or column.dtype == pl.Boolean or could_be_text(column)


def shown(value: object, longest: int = 60) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= longest else text[:longest] + "…"


def first_row(bad: pl.Series) -> int | None:
    """The first row where `bad` is true."""
    return int(bad.arg_true()[0]) if bad.any() else None
