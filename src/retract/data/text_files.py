"""Text files as strangers have them: any usual separator, with a header or without, compressed, in another encoding."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, cast

from retract.data.columns import REQUIRED, USUAL, Columns, find_columns, listed, names_of, unread_note
from retract.data.table import NoRowsError, Table
from retract.data.values import reads_as_number_or_time
from retract.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_MOVIELENS = ("user", "item", "rating", "timestamp")
_SEPARATORS = (",", ";", "\t", "|", " ")
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_DAMAGED = (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
_HOW = "write the interactions into it, or give another file"


@dataclass(frozen=True)
class _Text:
    """A dialect of delimited text; `names` are the columns where the kind of file has no header."""

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

    def header(self, record: list[str]) -> list[str]:
        """The names in a header."""
        return [name.split(":")[0].strip() if self.typed_header else name.strip() for name in record]

    @property
    def dialects(self) -> Iterator[_Text]:
        """Itself, and those that files of the same kind are written in as well."""
        yield self
        for separator in _SEPARATORS:
            if separator != self.separator or self.names is not None:
                yield replace(self, separator=separator, names=None, quoted=self.quoted or self.names is not None)


_TEXTS = {
    ".csv": _Text(","),
    ".tsv": _Text("\t"),
    ".txt": _Text("\t"),
    ".inter": _Text("\t", quoted=False, typed_header=True),
    ".dat": _Text("::", quoted=False, names=_MOVIELENS),
    ".data": _Text("\t", quoted=False, names=_MOVIELENS),
}


def is_text(path: PurePath) -> bool:
    """Whether its name says that it is text, or text that was compressed."""
    inner = PurePath(path.stem) if path.suffix.lower() == ".gz" else path
    return inner.suffix.lower() in _TEXTS or path.suffix.lower() == ".zip"


def data_name(path: Path) -> str:
    """A file's name without its endings."""
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def read_text(path: Path, columns: Columns) -> Table:
    """Read a text file; errors as of `read_file`."""
    from polars.exceptions import PolarsError

    file = _File.at(path, columns.encoding)
    try:
        text, seen, header, notes = _layout(file, columns)
        found = find_columns(seen, columns, str(path))
        try:
            frame = _parse(file, text, len(seen), found, header)
        except PolarsError:
            raise _diagnosis(file, text, len(seen)) from None
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be unpacked: {str(error) or 'it is damaged'}: unpack it yourself") from None
    if not len(frame):
        raise NoRowsError(f"{path} has a header but no rows: there is nothing to learn from")
    names = {role: seen[at] for role, at in found.items()}
    notes += unread_note(seen, found)
    return Table(str(path), frame, names, lambda row: _line(file, text, header, row), notes)


def header_names(path: Path, columns: Columns) -> list[str]:
    """What a text file calls its columns; errors as of `read_file`."""
    return _layout(_File.at(path, columns.encoding), columns)[1]


@dataclass(frozen=True)
class _File:
    """A text file, perhaps packed.

    Parameters
    ----------
    path
        Where it lies.
    kind
        The ending that says its dialect.
    member
        Its name in a zip file; empty where it is none.
    encoding
        Python's name of its encoding.
    """

    path: Path
    kind: str
    member: str
    encoding: str

    @classmethod
    def at(cls, path: Path, encoding: str | None) -> _File:
        """The file at a path.

        Raises
        ------
        DataError
            If the encoding is unknown, or a zip file does not hold exactly one file of interactions.
        """
        kind, member = path.suffix.lower(), ""
        try:
            if kind == ".zip":
                member = _only_member(path)
                kind = PurePath(member).suffix.lower()
        except _DAMAGED as error:
            raise DataError(f"{path} cannot be unpacked: {error}: unpack it yourself") from None
        kind = Path(path.stem).suffix.lower() if kind == ".gz" else kind
        try:
            known = codecs.lookup(encoding or "utf-8").name
        except LookupError:
            raise DataError(f"unknown encoding {encoding!r}: give one such as utf-8, latin-1 or utf-16") from None
        made = cls(path, kind, member, known)
        return replace(made, encoding=made._marked()) if encoding is None or known == "utf-8" else made

    @property
    def plain(self) -> bool:
        """Whether the fast parser can read the file itself."""
        return self.encoding == "utf-8-sig" and not self.member and self.path.suffix.lower() != ".gz"

    def content(self) -> Path | bytes:
        """What the fast parser reads: the file, or its content as UTF-8.

        Raises
        ------
        UnicodeDecodeError
            If it is encoded in another way.
        """
        if self.plain:
            return self.path
        with ExitStack() as stack:
            return self._bytes(stack).read().decode(self.encoding).encode()

    def records(self, text: _Text) -> Iterator[tuple[int, list[str]]]:
        """Every record that is not an empty line, with the 1-based line where it starts."""
        with ExitStack() as stack:
            lines = io.TextIOWrapper(self._bytes(stack), encoding=self.encoding, newline="")
            reader = csv.reader(
                lines,
                delimiter=text.delimiter,
                quoting=csv.QUOTE_MINIMAL if text.quoted else csv.QUOTE_NONE,
                strict=True,
            )
            line = 1
            for record in reader:
                if record:
                    yield line, text.fields(record)
                line = reader.line_num + 1

    def _bytes(self, stack: ExitStack) -> IO[bytes]:
        if self.member:
            return stack.enter_context(stack.enter_context(zipfile.ZipFile(self.path)).open(self.member))
        if self.path.suffix.lower() == ".gz":
            return cast(IO[bytes], stack.enter_context(gzip.open(self.path)))
        return stack.enter_context(self.path.open("rb"))

    def _marked(self) -> str:
        """The encoding that the first bytes tell; UTF-8, with a mark or without, where they tell none."""
        with ExitStack() as stack:
            try:
                return _MARKS.get(self._bytes(stack).read(2), "utf-8-sig")
            except _DAMAGED as error:
                raise DataError(f"{self.path} cannot be unpacked: {error}: unpack it yourself") from None


def _only_member(path: Path) -> str:
    """The name of the one text file in a zip file."""
    with zipfile.ZipFile(path) as packed:
        held = [name for name in packed.namelist() if not name.startswith("__MACOSX")]
    names = [name for name in held if PurePath(name).suffix.lower() in _TEXTS]
    if len(names) != 1:
        found = f"holds several files ({listed(names)})" if names else f"holds no {', '.join(_TEXTS)} file"
        raise DataError(f"{path} {found}: unpack it, and give the one with the interactions")
    return names[0]


def _layout(file: _File, columns: Columns) -> tuple[_Text, list[str], bool, tuple[str, ...]]:
    """The dialect, the columns' names, whether the first line is a header, and notes.

    A file's own ending goes first; where its columns are not found so, the other separators are tried.

    Raises
    ------
    DataError
        If the columns are found with none.
    """
    complaints: list[tuple[int, DataError]] = []
    for text in _TEXTS[file.kind].dialects:
        try:
            line, first = next(file.records(text), (1, []))
        except (csv.Error, UnicodeDecodeError):
            complaints.append((0, _diagnosis(file, text, 0)))
            continue
        if any("\0" in field for field in first):  # UTF-16 of plain letters is UTF-8 too, with a NUL beside each
            raise _misread(file)
        if not any(field.strip() for field in first):
            raise DataError(f"{file.path} is empty: {_HOW}")
        try:
            return text, *_names(file, text, columns, line, first)
        except DataError as error:
            complaints.append((len(first), error))
    fixed = _TEXTS[file.kind].names is not None and columns.names is None
    raise complaints[0][1] if fixed else max(complaints, key=lambda one: one[0])[1]


def _names(
    file: _File, text: _Text, columns: Columns, line: int, first: list[str]
) -> tuple[list[str], bool, tuple[str, ...]]:
    """The columns' names, whether the first line is a header, and notes; refused where columns are not found."""
    source = str(file.path)
    if columns.names is None and text.names is None:
        names = text.header(first)
        find_columns(names, columns, source, REQUIRED)
        return names, True, ()
    if columns.names is None and text.names is not None and len(first) != len(text.names):
        layout = text.separator.replace("\t", "<tab>").join(text.names)
        raise DataError(f"{source}, line {line}: {_count(len(first))} where {layout} was expected")
    names = list(text.names or ()) if columns.names is None else list(names_of(first, columns, source))
    found = find_columns(names, columns, source)
    header = _is_header(text.header(first), found)
    return names, header, (f"line {line} is taken for a header and not read: {listed(first)}",) if header else ()


def _is_header(first: Sequence[str], found: dict[str, int]) -> bool:
    """Whether a first line is a header though the caller names the columns: plainly one, or not readable as data."""
    try:
        find_columns(first, USUAL, "", REQUIRED)
    except DataError:
        values = [first[found[role]] for role in ("rating", "timestamp") if role in found]
        return bool(values) and not any(reads_as_number_or_time(value) for value in values)
    return True


def _parse(file: _File, text: _Text, width: int, found: dict[str, int], header: bool) -> pl.DataFrame:
    """The wanted fields as text, blanks around them cut off, empty ones null; blank rows left out."""
    import polars as pl

    try:
        content = file.content()
    except UnicodeDecodeError:
        raise _diagnosis(file, text, width) from None
    split = len(text.separator) > 1
    rows = pl.scan_csv(
        content,
        separator=text.delimiter,
        quote_char='"' if text.quoted else None,
        has_header=header,
        new_columns=["line"] if split else [str(at) for at in range(width)],
        infer_schema=False,
        glob=False,
    ).filter(pl.any_horizontal(pl.all().str.strip_chars() != ""))
    if split:
        fields = pl.col("line").str.splitn(text.separator, width)
        rows = rows.select(fields.struct.rename_fields([str(at) for at in range(width)])).unnest("line")
    wanted = rows.select(pl.col(str(at)).str.strip_chars().alias(role) for role, at in found.items())
    return wanted.with_columns(pl.when(pl.all() != "").then(pl.all())).collect()


def _line(file: _File, text: _Text, header: bool, row: int) -> str:
    """Where the row stands: blank lines are no rows, and a quoted field may span lines, so the file is read again."""
    at = row
    try:
        records = file.records(text)
        if header:
            next(records)
        for line, record in records:
            if any(field.strip() for field in record):
                if at == 0:
                    return f"line {line}"
                at -= 1
    except (csv.Error, UnicodeDecodeError):
        pass  # the fast parser is more lenient; the row still says where
    return f"row {row + 1}"


def _diagnosis(file: _File, text: _Text, width: int) -> DataError:
    """What is wrong with a text file that the fast parser refused: the slow one knows the line."""
    line = 0
    try:
        for line, record in file.records(text):
            if width and len(record) > width:
                found = f"{file.path}, line {line}: {_count(len(record))} where the header has {width}"
                return DataError(f"{found}: correct it")
    except UnicodeDecodeError:
        return _misread(file)
    except csv.Error as error:
        return DataError(f"{file.path}, after line {line}: {error}: correct the quotes")
    return DataError(f"{file.path} cannot be read as {file.kind} text: check its quotes and separators")


def _misread(file: _File) -> DataError:
    return DataError(
        f"{file.path} is not {file.encoding.removesuffix('-sig')} text: say how it is encoded (--encoding latin-1, or "
        "utf-16-le; Columns(encoding=...)), or save it as UTF-8"
    )


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"
