"""Readers: CSV, TSV, Parquet, RecBole `.inter`, MovieLens `ratings.dat` and `u.data`, pandas and polars frames."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retract.data.columns import Columns, find_columns
from retract.data.tables import Table
from retract.errors import DataError, missing_extra

if TYPE_CHECKING:
    import polars as pl

_MOVIELENS = ("user", "item", "rating", "timestamp")


@dataclass(frozen=True)
class _Text:
    """A dialect of delimited text; `names` are the columns where the file has no header."""

    separator: str
    quoted: bool = True
    names: tuple[str, ...] | None = None
    typed_header: bool = False

    @property
    def delimiter(self) -> str:
        """What the parsers split at: they know single characters only, so a longer separator is split afterwards."""
        return self.separator if len(self.separator) == 1 else "\x01"

    def fields(self, record: list[str]) -> list[str]:
        """A record's fields, also where the separator is longer than one character."""
        return record if len(self.separator) == 1 else record[0].split(self.separator)

    def open(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Every record that is not an empty line, with the 1-based line where it starts."""
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(
                file,
                delimiter=self.delimiter,
                quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
                strict=True,
            )
            line = 1
            for record in reader:
                if record:
                    yield line, self.fields(record)
                line = reader.line_num + 1


_TEXTS = {
    ".csv": _Text(","),
    ".tsv": _Text("\t"),
    ".inter": _Text("\t", quoted=False, typed_header=True),
    ".dat": _Text("::", quoted=False, names=_MOVIELENS),
    ".data": _Text("\t", quoted=False, names=_MOVIELENS),
}
_KNOWN = ".csv, .tsv, .parquet, .inter (RecBole), .dat (MovieLens ratings.dat), .data (MovieLens u.data)"


def is_known_kind(path: Path) -> bool:
    """Whether its extension is that of files that can be read."""
    return path.suffix.lower() in (".parquet", *_TEXTS)


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
        if path.is_dir():
            raise DataError(f"{path} is a folder: give a file in it ({_KNOWN})")
        size = path.stat().st_size
        if not is_known_kind(path):
            raise DataError(f"{path}: unknown kind of file {kind or path.name!r}; known: {_KNOWN}")
        if path.is_file() and size == 0:
            raise DataError(f"{path} is empty: write the interactions into it, or give another file")
        with path.open("rb"):  # a file that may not be read fails here, with the system's own words
            pass
        require_polars(f"reading {path}")
        return _read_parquet(path, columns) if kind == ".parquet" else _read_text(path, _TEXTS[kind], columns)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


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
        raise DataError(f"{source} has no rows: there is nothing to learn from")
    taken = pl.DataFrame({role: at(position) for role, position in found.items()})
    return Table(source, taken, {role: seen[at] for role, at in found.items()}, _row)


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


def _row(row: int) -> str:
    return f"row {row + 1}"


def _read_parquet(path: Path, columns: Columns) -> Table:
    import polars as pl
    from polars.exceptions import PanicException, PolarsError

    try:
        file = pl.scan_parquet(path, glob=False)
        seen = file.collect_schema().names()
        found = find_columns(seen, columns, str(path))
        names = {role: seen[at] for role, at in found.items()}
        wanted = [pl.col(name).alias(role) for role, name in names.items()]
        frame = file.select(wanted).collect()
    except (PolarsError, PanicException):  # on some damage polars panics
        raise DataError(
            f"{path} is no readable Parquet file, it is damaged or of another kind: write it anew"
        ) from None
    if not len(frame):
        raise DataError(f"{path} has columns but no rows: there is nothing to learn from")
    return Table(str(path), frame, names, _row)


def _read_text(path: Path, text: _Text, columns: Columns) -> Table:
    from polars.exceptions import PolarsError

    seen = _header(path, text)
    found = find_columns(seen, columns, str(path))
    try:
        frame = _parse(path, text, len(seen), found)
    except PolarsError:
        raise _diagnosis(path, text, len(seen)) from None
    if not len(frame):
        raise DataError(f"{path} has a header but no rows: there is nothing to learn from")
    names = {role: seen[at] for role, at in found.items()}
    return Table(str(path), frame, names, lambda row: _line(path, text, row))


def _header(path: Path, text: _Text) -> list[str]:
    """The column names, from the first record or, where the format has none, from the format."""
    try:
        line, first = next(text.open(path), (1, []))
    except (csv.Error, UnicodeDecodeError):
        raise _diagnosis(path, text, 0) from None
    if not any(field.strip() for field in first):
        raise DataError(f"{path} is empty: write the interactions into it, or give another file")
    if text.names is not None:
        if len(first) != len(text.names):
            layout = text.separator.replace("\t", "<tab>").join(text.names)
            raise DataError(f"{path}, line {line}: {_count(len(first))} where {layout} was expected")
        return list(text.names)
    return [name.split(":")[0].strip() if text.typed_header else name.strip() for name in first]


def _parse(path: Path, text: _Text, width: int, found: dict[str, int]) -> pl.DataFrame:
    """The wanted fields as text, blanks around them cut off, empty ones null; blank rows left out."""
    import polars as pl

    split = len(text.separator) > 1
    rows = pl.scan_csv(
        path,
        separator=text.delimiter,
        quote_char='"' if text.quoted else None,
        has_header=text.names is None,
        new_columns=["line"] if split else [str(at) for at in range(width)],
        infer_schema=False,
        glob=False,
    ).filter(pl.any_horizontal(pl.all().str.strip_chars() != ""))
    if split:
        fields = pl.col("line").str.splitn(text.separator, width)
        rows = rows.select(fields.struct.rename_fields([str(at) for at in range(width)])).unnest("line")
    wanted = rows.select(pl.col(str(at)).str.strip_chars().alias(role) for role, at in found.items())
    return wanted.with_columns(pl.when(pl.all() != "").then(pl.all())).collect()


def _line(path: Path, text: _Text, row: int) -> str:
    """Where the row stands: blank lines are no rows, and a quoted field may span lines, so the file is read again."""
    try:
        records = text.open(path)
        if text.names is None:
            next(records)
        for line, record in records:
            if any(field.strip() for field in record):
                if row == 0:
                    return f"line {line}"
                row -= 1
    except (csv.Error, UnicodeDecodeError):
        pass  # the fast parser is more lenient; the row still says where
    return _row(row)


def _diagnosis(path: Path, text: _Text, width: int) -> DataError:
    """What is wrong with a text file that the fast parser refused: the slow one knows the line."""
    line = 0
    try:
        for line, record in text.open(path):
            if width and len(record) > width:
                return DataError(f"{path}, line {line}: {_count(len(record))} where the header has {width}: correct it")
    except UnicodeDecodeError:
        return DataError(f"{path} is not UTF-8 text: save it as UTF-8")
    except csv.Error as error:
        return DataError(f"{path}, after line {line}: {error}: correct the quotes")
    return DataError(f"{path} cannot be read as {path.suffix} text: check its quotes and separators")


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"
