"""Data in parts: the files of a folder, or those that a pattern names, each read and coded by itself.

Of a part only its numbers stay in memory, and its ids once each. Workers read parts beside each other; what comes of it
does not depend on how rows are dealt among the parts, nor on the parts' names.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from retract.data.columns import Columns, listed
from retract.data.readers import is_known_kind, read_file
from retract.data.table import NoRowsError
from retract.data.tables import Coded, Encoded, code, join
from retract.errors import DataError
from retract.workers import workers

if TYPE_CHECKING:
    import polars as pl

_OF = re.compile(r"-of-0*([1-9][0-9]*)(?:\.|$)")
"""How a part says of how many it is one: part-00003-of-00016.parquet."""


def parts_of(source: Path) -> list[Path] | None:
    """The files that a folder or a pattern stands for, by name; None for what is one file.

    Raises
    ------
    DataError
        If there are none, they are of several kinds, or fewer than their names say.
    """
    if os.path.isdir(source):
        try:
            found = [path for path in sorted(source.iterdir()) if is_known_kind(path) and not _hidden(path)]
        except OSError as error:
            raise DataError(f"{source} cannot be read: {error.strerror or error}") from None
        if not found:
            raise DataError(f"{source} is a folder without data: give a file, or a folder of Parquet or text files")
    elif os.path.exists(source) or not glob.has_magic(str(source)):
        return None
    else:
        found = [path for path in map(Path, sorted(glob.glob(str(source), recursive=True))) if path.is_file()]
        if not found:
            raise DataError(f"no file is named as {source} says: check the pattern, and quote it from the shell")
    kinds = sorted({path.suffix.lower() for path in found})
    if len(kinds) > 1:
        raise DataError(
            f"{source} holds files of several kinds ({listed(kinds)}): give a file, or a pattern of one kind"
        )
    told = {int(match[1]) for path in found if (match := _OF.search(path.name))}
    if told and told != {len(found)}:
        raise DataError(
            f"{source} holds {len(found)} files, and their names say that there are {max(told)}: bring in the missing "
            "ones, or rename them"
        )
    return found


def read_parts(paths: Sequence[Path], columns: Columns) -> Encoded:
    """Read files with the same columns as one set of interactions. A part without rows adds nothing.

    Raises
    ------
    DataError
        If a part is damaged, gone or of another kind than the first; the message names it. Or if none has rows.
    WorkerError
        If workers were lost that read them.
    """
    parts = [part for part in workers().map(partial(_read, columns=columns), list(paths)) if part is not None]
    if not parts:
        raise DataError(f"{paths[0]} and the other parts have no rows: there is nothing to learn from")
    for part in parts[1:]:
        _require_alike(parts[0], part)
    return join(parts)


def _read(path: Path, columns: Columns) -> Coded | None:
    """A part; None where it has no rows."""
    try:
        return code(read_file(path, columns))
    except NoRowsError:
        return None
    except FileNotFoundError:
        raise DataError(f"{path} was there and is gone: bring it back, and read again") from None


def _require_alike(first: Coded, part: Coded) -> None:
    """Refuse parts whose columns have other names or types."""
    one, other = first.table, part.table
    if one.names != other.names:
        raise DataError(
            f"{other.source} has the columns {listed(list(other.names.values()))}, and {one.source} has "
            f"{listed(list(one.names.values()))}: write all parts alike"
        )
    for role, name in one.names.items():
        kinds = [_kind(table.frame.schema[role]) for table in (one, other)]
        if kinds[0] != kinds[1]:
            raise DataError(
                f"{other.source}: column {name!r} holds {kinds[1]}, and {kinds[0]} in {one.source}: write all parts "
                "alike"
            )


def _kind(dtype: pl.DataType) -> str:
    """What values of a type are; how wide numbers are does not matter."""
    import polars as pl

    if dtype.is_integer():
        return "whole numbers"
    if dtype.is_numeric():
        return "numbers with fractions"
    return "text" if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null) else str(dtype)


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "_"))
