"""Data sets: checked interactions with what a person should know about them."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retract.data.catalog import Catalog
from retract.data.columns import USUAL, Columns
from retract.data.ids import normal_id
from retract.data.interactions import Interactions
from retract.data.parts import parts_of, read_parts
from retract.data.readers import is_frame, is_known_kind, read_file, read_frame
from retract.data.splits import split_per_user
from retract.data.table import Table
from retract.data.tables import Encoded, encode
from retract.data.text_files import data_name
from retract.errors import DataError

if TYPE_CHECKING:
    import scipy.sparse as sp

GROUP = "retract.datasets"
DATASETS = {"movielens-small": "retract.data.demo:movielens_small"}
"""Our own, by name; others are plugged in as entry points of the group."""


@dataclass(frozen=True)
class Dataset:
    """Interactions and how to split them.

    Parameters
    ----------
    name
        The file's name without its ending, or the known name.
    interactions
        All of them, to train and to test on.
    is_test
        Which ones the source itself holds out, shape [len(interactions)]; None where it says nothing.
    notes
        Sentences for people: what was dropped, what to expect.
    is_shared
        Which ones the source itself says are shared, shape [len(interactions)]; None where it says nothing.
    """

    name: str
    interactions: Interactions
    is_test: NDArray[np.bool_] | None
    notes: tuple[str, ...]
    is_shared: NDArray[np.bool_] | None = None

    @property
    def shared(self) -> Interactions | None:
        """What the source itself says is shared; None where it says nothing."""
        return None if self.is_shared is None else self.interactions.where(self.is_shared)

    def split(self, seed: int = 0, test: float = 0.2) -> tuple[Interactions, Interactions]:
        """The part to train on and the part to test on.

        A split that came with the data is kept as it is, and `seed` and `test` have no effect; else each user's
        interactions are split at random.

        Raises
        ------
        ConfigError
            If `test` is needed and lies outside (0, 1).
        """
        if self.is_test is None:
            return split_per_user(self.interactions, test, seed)
        return self.interactions.where(~self.is_test), self.interactions.where(self.is_test)

    @property
    def reading_notes(self) -> tuple[str, ...]:
        """The notes on what was read, without those on what it means for testing."""
        on_testing = _notes_on_testing(self.interactions, self.is_test)
        return tuple(note for note in self.notes if note not in on_testing)

    def likes(self) -> Dataset:
        """The data set of what people like: without ratings of 0 and below; as it is where nothing is rated so.

        Raises
        ------
        DataError
            If nothing is left.
        """
        if self.interactions.ratings is None:
            return self
        return self._rated(self.interactions.ratings > 0, "0 or below, which is no like")

    def at_least(self, rating: float) -> Dataset:
        """The data set without what is rated below `rating`.

        Raises
        ------
        DataError
            If there are no ratings, or nothing is left.
        """
        if self.interactions.ratings is None:
            raise DataError(f"{self.name} has no ratings: leave --at-least-rating, at_least_rating= out")
        return self._rated(self.interactions.ratings >= np.float32(rating), f"below {rating:g}")

    def _rated(self, keep: NDArray[np.bool_], what: str) -> Dataset:
        """The part to keep, and a note on the rest."""
        if keep.all():
            return self
        if not keep.any():
            raise DataError(
                f"{self.name}: nothing is left to learn from, for all {len(keep):,} interactions are rated {what}; if "
                "the numbers are no ratings, name the columns without them: --columns user,item,-"
            )
        note = f"left out because rated {what}: {int((~keep).sum()):,} of {len(keep):,}"
        return replace(self, notes=(note, *self.notes)).only(keep)

    def only(self, stays: NDArray[np.bool_], *, idle: bool = True) -> Dataset:
        """The part where `stays` (shape [n]) is true; users and items that have nothing left are not known.

        Parameters
        ----------
        idle
            Whether items that had nothing before stay, such as those of a list of titles.
        """
        if stays.all() and idle:
            return self
        rows, catalog = self.interactions, self.interactions.catalog
        users, items = (
            _places(catalog.n_users, rows.users, stays, True),
            _places(catalog.n_items, rows.items, stays, idle),
        )
        titles = None if catalog.titles is None else catalog.titles[items >= 0]
        smaller = Catalog(catalog.user_ids[users >= 0], catalog.item_ids[items >= 0], titles)
        some = rows.where(stays)
        left = replace(
            some, catalog=smaller, users=users[some.users], items=items[some.items], duplicates=rows.duplicates
        )
        is_test, is_shared = (None if flag is None else flag[stays] for flag in (self.is_test, self.is_shared))
        notes = (*self.reading_notes, *_notes_on_testing(left, is_test))
        return Dataset(self.name, left, is_test, notes, is_shared)


def load(source: str | Path, *, columns: Columns = USUAL, at_least_rating: float | None = None) -> Dataset:
    """Load a file, or a data set by name.

    Ids are kept as text. Users and items stand in numeric order where all their ids are integers, else in the order
    of their characters, so the row order of the file does not matter.

    Parameters
    ----------
    source
        A path to a CSV, TSV, Parquet, RecBole `.inter`, MovieLens `ratings.dat` or `u.data` file, text also as `.gz` or
        `.zip`; a folder of such files, or a pattern such as `parts/*.parquet`; or the name of a data set:
        `movielens-small`, or one that a package plugs in. A name goes before a path unless the path is that of an
        existing file of one of these kinds; a `Path` is never a name.
    columns
        The columns' names where they are not the usual ones.
    at_least_rating
        Leave out what is rated lower; all rows are kept unless given.

    Raises
    ------
    DataError
        If the file is missing, unreadable, or holds a value that is not what it must be; the message says where.
    ConfigError
        If the data set is plugged in and cannot be loaded.
    MissingExtraError
        If it is a file and polars is not installed.
    """
    path = Path(source)
    if isinstance(source, str) and _is_name(source, path):
        if columns != USUAL:
            raise DataError(f"the columns of {source} are known: leave --user-col and its like out")
        return _from(_named(source), at_least_rating)
    try:
        if (parts := parts_of(path)) is not None:
            name = path.resolve().name if path.is_dir() else path.resolve().parent.name
            return _from(_dataset(name, read_parts(parts, columns)), at_least_rating)
        return _from(dataset_of(data_name(path), read_file(path, columns)), at_least_rating)
    except FileNotFoundError:
        known = ", ".join(_names())
        raise DataError(f"no such file: {path}; check the path, or name a known data set: {known}") from None


def to_dataset(data: Any, *, columns: Columns = USUAL, at_least_rating: float | None = None) -> Dataset:
    """The data set that somebody hands in, in whatever form.

    Parameters
    ----------
    data
        A data set; interactions; a path or a name, as for `load`; a data frame of pandas or polars, also a lazy one; or
        a SciPy CSR matrix or array.
    columns
        The columns' names where they are not the usual ones; for files and frames.
    at_least_rating
        Leave out what is rated lower; all rows are kept unless given.

    Raises
    ------
    DataError
        If it is none of these, is empty, or holds a value that is not what it must be.
    ConfigError
        If the data set is plugged in and cannot be loaded.
    MissingExtraError
        If it is a file or a data frame and polars is not installed.
    """
    return _from(_read(data, columns), at_least_rating)


def _read(data: Any, columns: Columns) -> Dataset:
    """All rows of what somebody hands in."""
    if isinstance(data, str | Path):
        return load(data, columns=columns)
    if is_frame(data):
        return from_frame(data, columns=columns)
    if columns != USUAL:
        raise DataError(f"{type(data).__name__} has no columns to choose: leave columns out")
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Interactions):
        if not len(data):
            raise DataError("there are no interactions: there is nothing to learn from")
        return Dataset("interactions", data, None, _notes(data, None))
    if hasattr(data, "tocsr"):
        return from_csr(data)
    raise DataError(
        f"{type(data).__name__} is no data to learn from: give a data set, interactions, a path or a name, a pandas or "
        "polars data frame, or a SciPy CSR matrix of users x items"
    )


def _places(n: int, codes: NDArray[np.int64], stays: NDArray[np.bool_], idle: bool) -> NDArray[np.int64]:
    """The new code of each of n old ones; -1 for one that loses all it had, or that had nothing and need not stay."""
    goes = np.full(n, not idle)
    goes[codes[~stays]] = True
    goes[codes[stays]] = False
    return np.where(goes, -1, np.cumsum(~goes) - 1)


def _from(dataset: Dataset, rating: float | None) -> Dataset:
    return dataset if rating is None else dataset.at_least(rating)


def from_frame(frame: object, *, columns: Columns = USUAL, name: str = "frame") -> Dataset:
    """The data set in a pandas or polars data frame, its columns found and its ids ordered as by `load`.

    Raises
    ------
    DataError
        If it is no data frame, lacks a column, or holds a value that is not what it must be; rows are counted from 1.
    MissingExtraError
        If polars is not installed; a pandas frame needs it as well.
    """
    return dataset_of(name, read_frame(frame, columns, name))


def from_csr(
    matrix: sp.csr_matrix | sp.csr_array, user_ids: ArrayLike | None = None, item_ids: ArrayLike | None = None
) -> Dataset:
    """The data set in a sparse user x item matrix: every entry that is stored is an interaction, one of 0 too.

    Parameters
    ----------
    matrix
        SciPy sparse, shape [n_users, n_items]. Its values are ratings unless all are 1. Zeros that a matrix stores are
        ratings of 0, as a file has them; `matrix.eliminate_zeros()` takes them out.
    user_ids, item_ids
        Unique ids, shapes [n_users] and [n_items]; by default the row and column numbers. Codes are the positions
        in the matrix, also for users and items without an interaction.

    Raises
    ------
    DataError
        If the matrix is not sparse, is empty, holds a value that is not finite, or does not fit its ids.
    """
    if not _is_csr(matrix):
        raise DataError(f"expected a SciPy CSR matrix of users x items, got {type(matrix).__name__}: convert it first")
    held = matrix.copy()
    held.sum_duplicates()  # what SciPy means by repeated entries; also sorts them
    if not held.nnz:
        raise DataError("the matrix has no entry: there is nothing to learn from")
    n_users, n_items = held.shape
    catalog = Catalog(_ids("user", user_ids, n_users), _ids("item", item_ids, n_items))
    users = np.repeat(np.arange(n_users), np.diff(held.indptr))
    values = _finite(held.data, users, held.indices)
    interactions = Interactions.of(catalog, users, held.indices, None if (values == 1).all() else values)
    return Dataset("matrix", interactions, None, _notes(interactions, None))


def dataset_of(name: str, table: Table) -> Dataset:
    """The data set of a table as it was read.

    Raises
    ------
    DataError
        On the first value that is not what it must be.
    """
    return _dataset(name, encode(table))


def _dataset(name: str, found: Encoded) -> Dataset:
    notes = (*found.notes, *_notes(found.interactions, found.is_test))
    return Dataset(name, found.interactions, found.is_test, notes, found.is_shared)


def _is_name(source: str, path: Path) -> bool:
    """Whether it names a data set; what is plugged in is looked up last, for that takes milliseconds."""
    return source in DATASETS or (not (is_known_kind(path) and os.path.exists(path)) and source in _names())


def _names() -> list[str]:
    """All data sets that are known by name."""
    from retract.plugins import names  # it finds installed packages, which a file needs not wait for

    return names(GROUP, DATASETS)


def _named(name: str) -> Dataset:
    from retract.plugins import find

    made = find(GROUP, DATASETS, name, "data set")()
    if not isinstance(made, Dataset):
        raise DataError(f"data set {name!r} is plugged in and gave a {type(made).__name__}: it must return a Dataset")
    return made


def _is_csr(data: Any) -> TypeGuard[sp.csr_matrix | sp.csr_array]:
    """Whether it is a SciPy CSR matrix or array; SciPy is only imported for what looks like one."""
    if getattr(data, "format", None) != "csr" or len(data.shape) != 2:
        return False
    import scipy.sparse as sp

    return bool(sp.issparse(data))


def _finite(data: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float32]:
    """The values as ratings, float32."""
    if data.dtype.kind not in "biuf":
        raise DataError(f"the matrix holds {data.dtype}: ratings must be finite numbers")
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # too large a value: reported just below
        values = data.astype(np.float32)
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        place = f"row {rows[at]}, column {columns[at]}"
        raise DataError(f"the matrix holds {data[at]} in {place}: ratings must be finite numbers")
    return values


def _ids(kind: str, given: ArrayLike | None, n: int) -> NDArray[np.str_]:
    ids: NDArray[np.str_] = np.asarray(np.arange(n) if given is None else given)
    ids = np.array([normal_id(one) for one in ids.ravel().tolist()], dtype=np.str_).reshape(ids.shape)
    if ids.shape != (n,):
        raise DataError(f"the matrix has {n} {kind}s, {kind}_ids has shape {ids.shape}: give one id for each")
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{kind}_ids holds {str(unique[counts > 1][0])!r} twice: ids must be unique")
    if (ids == "").any():
        raise DataError(f"{kind}_ids holds an empty id at position {int(np.flatnonzero(ids == '')[0])}: fill it in")
    return ids


def _notes(interactions: Interactions, is_test: NDArray[np.bool_] | None) -> tuple[str, ...]:
    return (*_notes_on_duplicates(interactions), *_notes_on_testing(interactions, is_test))


def _notes_on_duplicates(interactions: Interactions) -> tuple[str, ...]:
    if not interactions.duplicates:
        return ()
    rated = interactions.ratings is not None
    counts = "the mean of its ratings counts" if rated else "each counts once"
    if interactions.timestamps is not None:
        counts = "the latest of each counts"
    return (f"{_count(interactions.duplicates, 'duplicate interaction')} left out: {counts}",)


def _notes_on_testing(interactions: Interactions, is_test: NDArray[np.bool_] | None) -> tuple[str, ...]:
    notes: list[str] = []
    degrees = interactions.user_degrees()
    if is_test is None:
        if single := int((degrees == 1).sum()):
            have, they_are = ("has", "it is") if single == 1 else ("have", "they are")
            notes.append(f"{_count(single, 'user')} {have} a single interaction: {they_are} never held out")
    else:
        to_train = np.bincount(interactions.users[~is_test], minlength=interactions.n_users)
        if cold := int(((to_train == 0) & (degrees > 0)).sum()):
            have = "has" if cold == 1 else "have"
            notes.append(f"{_count(cold, 'user')} {have} interactions to test on but none to train on")
    if len(interactions.active_users()) == 1:
        notes.append("there is only one user: learning from others and unlearning need at least two")
    return tuple(notes)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
