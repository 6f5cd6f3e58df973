"""Readers: text files of all kinds, Parquet, pandas and polars frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retract.data.columns import Columns, find_columns, names_of, unread_note
from retract.data.table import NoRowsError, Table
from retract.data.text_files import header_names, is_text, read_text
from retract.errors import DataError, missing_extra

if TYPE_CHECKING:
    import polars as pl

_KNOWN = (
    ".csv, .tsv, .txt, .parquet, .inter (RecBole), .dat (MovieLens ratings.dat), .data (MovieLens u.data), and text as "
    ".gz or .zip"
)


def is_known_kind(path: Path) -> bool:
    """Whether its extension is that of files that can be read."""
    return path.suffix.lower() == ".parquet" or is_text(path)


def require_polars(what: str, extra: str = "files") -> None:
    """Refuse to begin where polars is missing, which reads all files and data frames.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import_module("polars")
    except ImportError:
        raise missing_extra(what, extra, "polars") from None


def read_file(path: Path, columns: Columns) -> Table:
    """Read a file of a kind that its extension tells.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If it is of an unknown kind, empty or damaged, or a column is missing.
    MissingExtraError
        If polars is not installed.
    """
    kind = path.suffix.lower()
    try:
        size = path.stat().st_size
        if not is_known_kind(path):
            raise DataError(f"{path}: unknown kind of file {kind or path.name!r}; known: {_KNOWN}")
        if path.is_file() and size == 0:
            raise DataError(f"{path} is empty: write the interactions into it, or give another file")
        with path.open("rb"):  # a file that may not be read fails here, with the system's own words
            pass
        require_polars(f"reading {path}")
        return _read_parquet(path, columns) if kind == ".parquet" else read_text(path, columns)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def column_names(path: Path, columns: Columns) -> list[str]:
    """What a file calls its columns, in their order; errors as of `read_file`."""
    if path.suffix.lower() != ".parquet":
        return header_names(path, columns)
    import polars as pl

    return list(names_of(list(pl.read_parquet_schema(path)), columns, str(path)))


def is_frame(data: object) -> bool:
    """Whether this is a data frame of pandas or polars; neither is imported for it."""
    return _is_of(data, "pandas", "DataFrame") or _is_of(data, "polars", "DataFrame", "LazyFrame")


def read_frame(frame: object, columns: Columns, source: str) -> Table:
    """Take the columns of a pandas or polars frame; a row is counted from 1.

    Raises
    ------
    DataError
        If it is no such frame, has no rows, or lacks a column.
    MissingExtraError
        If polars is not installed; a pandas frame needs it as well.
    """
    if not is_frame(frame):
        raise DataError(f"{source}: expected a pandas or polars data frame, got {type(frame).__name__}")
    require_polars("reading a data frame")
    import polars as pl

    held: Any = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
    at: Callable[[int], pl.Series] = held.to_series if isinstance(held, pl.DataFrame) else _columns_of(held)
    seen = [str(name) for name in held.columns]
    found = find_columns(seen, columns, source)
    if not len(held):
        raise NoRowsError(f"{source} has no rows: there is nothing to learn from")
    taken = pl.DataFrame({role: at(position) for role, position in found.items()})
    return _table(source, taken, names_of(seen, columns, source), found)


def _is_of(data: object, package: str, *names: str) -> bool:
    """Whether it is of one of a package's classes, or of one that inherits from it."""
    return any(kind.__module__.split(".")[0] == package and kind.__name__ in names for kind in type(data).__mro__)


def _columns_of(frame: Any) -> Callable[[int], pl.Series]:
    """The columns of a pandas frame by position."""
    return lambda position: _from_pandas(frame.iloc[:, position])


def _from_pandas(column: Any) -> pl.Series:
    """A pandas column, without pyarrow: numbers and times as they are, all else as text."""
    import polars as pl

    if (
        column.dtype.kind in "iufb" and (values := column.to_numpy()).dtype.kind in "iufb"
    ):  # objects: a value is missing
        return pl.Series(values)
    if column.dtype.kind == "M":
        return pl.Series(column.to_numpy(dtype="datetime64[ns]"))
    present = zip(column.astype(object), column.notna(), strict=True)
    return pl.Series([str(value) if known else None for value, known in present], dtype=pl.String)


def _read_parquet(path: Path, columns: Columns) -> Table:
    import polars as pl
    from polars.exceptions import PanicException, PolarsError

    try:
        file = pl.scan_parquet(path, glob=False)
        seen = file.collect_schema().names()
        found = find_columns(seen, columns, str(path))
        wanted = [pl.col(seen[at]).alias(role) for role, at in found.items()]
        frame = file.select(wanted).collect()
    except (PolarsError, PanicException):  # on some damage polars panics
        raise DataError(
            f"{path} is no readable Parquet file, it is damaged or of another kind: write it anew"
        ) from None
    if not len(frame):
        raise NoRowsError(f"{path} has columns but no rows: there is nothing to learn from")
    return _table(str(path), frame, names_of(seen, columns, str(path)), found)


def _table(source: str, frame: pl.DataFrame, names: Sequence[str], found: dict[str, int]) -> Table:
    """A table whose rows are counted from 1."""
    called = {role: names[at] for role, at in found.items()}
    return Table(source, frame, called, lambda row: f"row {row + 1}", unread_note(names, found))
