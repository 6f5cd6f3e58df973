"""Ids: one way to write each, whatever it was read from, and every one that cannot be trusted named with its place.

The rules, for users and items alike:

- Blanks around an id are cut off.
- `42.0` is `42`: a whole number that was once a float. All other text stays as it is, `007` and `4.2` too.
- A float is an id only where it is whole and below 2^53 (float32: 2^24), beyond which neighbours are one number.
- `NaN`, `null`, `None`, `NA` and their like say that an id is missing. Taken as ids, they would make one user of many.
- `1.23E+12` is a number that a spreadsheet shortened: its digits are lost, and so it is no id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retract.data.table import Table, could_be_text, first_row, shown

if TYPE_CHECKING:
    import polars as pl

# numpy text is as wide as its longest entry, so a single runaway field would claim gigabytes.
_LONGEST = 500
_SAYS_MISSING = ("NaN", "nan", "NULL", "Null", "null", "None", "NA", "N/A", "n/a", "<NA>", "NaT", "#N/A")
_WHOLE_FLOAT = r"^(?:0|-?[1-9][0-9]*)\.0*$"
_SHORTENED = r"^[+-]?[0-9]+(?:\.[0-9]+[eE]\+?|\.?[eE]\+)[0-9]+$"
_FRACTION = r"^-?[0-9]+\.[0-9]*$"
_BITS = {"Float16": 11, "Float32": 24, "Float64": 53}
"""Below 2 to the power of so many bits every whole number has a float of its own."""


def normal_id(value: object) -> str:
    """The one way in which an id is written: without blanks around it, and `42.0` as `42`."""
    text = str(value).strip()
    return text.partition(".")[0] if re.match(_WHOLE_FLOAT, text) else text


def sorted_ids(names: Iterable[str]) -> list[str]:
    """Ids, each once, in the order of their codes: by number where all are integers, else by their characters."""
    found = set(names)
    if all(re.fullmatch(r"-?(0|[1-9][0-9]*)", name) for name in found):
        return sorted(found, key=lambda name: (int(name), name))
    return sorted(found)


@dataclass(frozen=True)
class Known:
    """The ids of a column, checked.

    Parameters
    ----------
    texts
        Each way in which one is written once: columns `raw`, as it stands there, and `text`, as it is written here.
    codes
        The row of `texts` of every row of the column, int32, shape [n].
    """

    texts: pl.DataFrame
    codes: NDArray[np.int32]


def known_ids(table: Table, role: str) -> Known:
    """Check the ids of a column.

    Raises
    ------
    DataError
        On the first that can be no id.
    """
    import polars as pl

    column = _column(table, role)
    known = pl.DataFrame({"raw": column.unique()}).with_columns(text=pl.col("raw").cast(pl.String))
    if column.dtype == pl.String:
        known = _normalised(known)
        _check(table, role, column, known)
    places = pl.int_range(len(known), dtype=pl.Int32, eager=True)
    return Known(known, column.replace_strict(known["raw"], places, return_dtype=pl.Int32).to_numpy())


def join_ids(role: str, parts: Sequence[Known]) -> tuple[NDArray[np.str_], NDArray[np.int64], list[str]]:
    """One code for each id, whatever parts it is in.

    Returns
    -------
    ids
        Each once: in numeric order where all are integers, else in the order of their characters.
    codes
        The position of every row's id among them, part after part.
    notes
        What is odd about them and may be a mistake of the source.
    """
    import polars as pl

    texts = pl.concat([part.texts for part in parts], how="vertical_relaxed")
    is_text = texts["raw"].dtype == pl.String
    notes = _suspicious(role, texts.unique()) if is_text else []
    ids = texts.select(pl.col("text").unique()).with_columns(number=pl.col("text").cast(pl.Int128, strict=False))
    ids = ids.sort(["text"] if ids["number"].has_nulls() else ["number", "text"])
    places = pl.int_range(len(ids), dtype=pl.Int64, eager=True)
    code = texts["text"].replace_strict(ids["text"], places, return_dtype=pl.Int64).to_numpy()
    begins = np.cumsum([0, *(len(part.texts) for part in parts)])
    codes = np.empty(sum(len(part.codes) for part in parts), dtype=np.int64)
    rows = np.cumsum([0, *(len(part.codes) for part in parts)])
    for part, begin, row in zip(parts, begins, rows, strict=False):
        code[begin:].take(part.codes, out=codes[row : row + len(part.codes)])
    return ids["text"].to_numpy().astype(np.str_), codes, notes


def _column(table: Table, role: str) -> pl.Series:
    """The ids as whole numbers or as text, none missing."""
    import polars as pl

    column = table.frame[role]
    if column.dtype.is_float() or column.dtype.is_decimal():
        column = _whole(table, role)
    elif could_be_text(column):
        column = column.cast(pl.String)
    elif not column.dtype.is_integer():
        raise table.type_error(role, "ids must be text or whole numbers")
    if (row := first_row(column.is_null())) is not None:
        raise table.error(role, row, f"the {role} id is missing: fill it in or remove the row")
    return column


def _whole(table: Table, role: str) -> pl.Series:
    """Floats and decimals as whole numbers; null where a value is missing, as in pandas, which has floats then."""
    import polars as pl

    column = table.frame[role]
    missing = column.is_null()
    if column.dtype.is_float():
        column = column.fill_nan(None)
        missing = column.is_null()
        bits = _BITS[str(column.dtype)]
        if (row := first_row((column.abs() >= 2**bits) & column.is_finite())) is not None:
            raise table.error(role, row, f"{shown(column[row])} is no {role} id: {_inexact(bits)}")
    whole = column.cast(pl.Int128 if column.dtype.is_decimal() else pl.Int64, strict=False)
    same = (whole.cast(column.dtype, strict=False) == column).fill_null(False)
    if (row := first_row(~missing & ~same)) is not None:
        raise table.error(role, row, f"{shown(column[row])} is no {role} id: ids must be text or whole numbers")
    return whole


def _inexact(bits: int) -> str:
    return f"from 2^{bits} on a float stands for several whole numbers; write ids as text or as whole numbers"


def _normalised(known: pl.DataFrame) -> pl.DataFrame:
    """Distinct ids, their text made normal; only those that are not are looked at one by one."""
    import polars as pl

    text = pl.col("raw")
    odd = (text.str.strip_chars() != text) | text.str.contains(_WHOLE_FLOAT)
    if not known.select(odd.any()).item():
        return known
    return known.with_columns(
        text=pl.when(odd).then(text.map_elements(normal_id, return_dtype=pl.String)).otherwise(text)
    )


def _check(table: Table, role: str, column: pl.Series, known: pl.DataFrame) -> None:
    """Refuse text that can be no id; only the distinct ids are looked at, for speed."""
    import polars as pl

    text = pl.col("text")
    was_float = pl.col("raw").str.contains(r"\.0*\s*$") & ~text.str.contains(".", literal=True)
    beyond = text.str.len_chars().ge(16) & (text.cast(pl.Float64, strict=False).abs() >= 2**53)
    missing = "missing: fill it in or remove the row"
    for bad, complaint in (
        (text == "", f"the {role} id is {missing}"),
        (text.str.len_chars() > _LONGEST, f"the {role} id is over {_LONGEST} characters long: is a quote not closed?"),
        # numpy drops a NUL at the end, so two users would get one name
        (text.str.contains("\0", literal=True), f"the {role} id holds a NUL character: remove it"),
        (text.is_in(_SAYS_MISSING), f"{{}} says that the {role} id is {missing}"),
        (
            text.str.contains(_SHORTENED),
            f"{{}} is a number cut short, its last digits are lost: write {role} ids as text",
        ),
        (was_float & beyond, f"{{}} is no {role} id: {_inexact(53)}"),
    ):
        found = known.filter(bad)["raw"]
        if len(found):
            row = int(column.is_in(found.implode()).arg_true()[0])
            raise table.error(role, row, complaint.replace("{}", shown(column[row])))


def _suspicious(role: str, known: pl.DataFrame) -> list[str]:
    """What is odd about distinct ids, in sentences."""
    text, notes = known["text"].unique(), []
    alike = {
        f"{role} ids that are written in several ways and read as one": _groups(known["text"], known["raw"]),
        f"{role} ids that differ in leading zeros alone and stay apart": _groups(
            text.filter(text.str.contains("^[0-9]+$")).str.strip_chars_start("0"),
            text.filter(text.str.contains("^[0-9]+$")),
        ),
        f"{role} ids that differ in upper and lower case alone and stay apart": _groups(text.str.to_lowercase(), text),
    }
    for what, groups in alike.items():
        if len(groups):
            one, other = groups[0].to_list()[:2]
            notes.append(f"{what}: {groups.list.len().sum():,}, such as {one!r} and {other!r}")
    for what, pattern in (
        (f"{role} ids with characters that were lost (\ufffd): another encoding may help", "\ufffd"),
        (f"{role} ids that are fractions: is this the right column?", _FRACTION),
    ):
        if len(found := text.filter(text.str.contains(pattern)).sort()):
            notes.append(f"{what} {len(found):,}, such as {found[0]!r}")
    return notes


def _groups(key: pl.Series, text: pl.Series) -> pl.Series:
    """The texts that share a key with another one, a list for each such key, in order."""
    import polars as pl

    if key.n_unique() == len(key):
        return pl.Series([], dtype=pl.List(pl.String))
    pairs = pl.DataFrame({"key": key, "text": text})
    return pairs.group_by("key").agg(pl.col("text").sort()).filter(pl.col("text").list.len() > 1).sort("text")["text"]
