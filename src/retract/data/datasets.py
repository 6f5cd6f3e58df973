"""Data sets: checked interactions with what a person should know about them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from retract.data.catalog import Catalog
from retract.data.columns import USUAL, Columns
from retract.data.demo import MOVIELENS_SMALL, movielens_small
from retract.data.interactions import Interactions
from retract.data.readers import read_file, read_frame
from retract.data.splits import split_per_user
from retract.data.tables import Table, encode
from retract.errors import DataError


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
    """

    name: str
    interactions: Interactions
    is_test: NDArray[np.bool_] | None
    notes: tuple[str, ...]

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


def load(source: str | Path, *, columns: Columns = USUAL) -> Dataset:
    """Load a file, or a data set by name.

    Ids are kept as text. Users and items stand in numeric order where all their ids are integers, else in the order
    of their characters, so the row order of the file does not matter.

    Parameters
    ----------
    source
        A path to a CSV, TSV, Parquet, RecBole `.inter`, MovieLens `ratings.dat` or `u.data` file; or `movielens-small`.
    columns
        The columns' names where they are not the usual ones.

    Raises
    ------
    DataError
        If the file is missing, unreadable, or holds a value that is not what it must be; the message says where.
    """
    if source == MOVIELENS_SMALL:
        if columns != USUAL:
            raise DataError(f"the columns of {MOVIELENS_SMALL} are known: leave --user-col and its like out")
        return movielens_small(lambda table: _dataset(MOVIELENS_SMALL, table))
    path = Path(source)
    return _dataset(path.stem, read_file(path, columns))


def from_frame(frame: object, *, columns: Columns = USUAL, name: str = "frame") -> Dataset:
    """The data set in a pandas or polars data frame, its columns found and its ids ordered as by `load`.

    Raises
    ------
    DataError
        If it is no data frame, lacks a column, or holds a value that is not what it must be; rows are counted from 1.
    """
    return _dataset(name, read_frame(frame, columns, name))


def from_csr(
    matrix: sp.csr_matrix | sp.csr_array, user_ids: ArrayLike | None = None, item_ids: ArrayLike | None = None
) -> Dataset:
    """The data set in a sparse user x item matrix; entries that are zero are no interactions.

    Parameters
    ----------
    matrix
        SciPy sparse, shape [n_users, n_items]. Its values are ratings unless all are 1.
    user_ids, item_ids
        Unique ids, shapes [n_users] and [n_items]; by default the row and column numbers. Codes are the positions
        in the matrix, also for users and items without an interaction.

    Raises
    ------
    DataError
        If the matrix is not sparse, is empty, holds a value that is not finite, or does not fit its ids.
    """
    if getattr(matrix, "format", None) != "csr" or len(matrix.shape) != 2:
        raise DataError(f"expected a SciPy CSR matrix of users x items, got {type(matrix).__name__}: convert it first")
    held = sp.csr_matrix(matrix, copy=True)
    held.sum_duplicates()  # what SciPy means by repeated entries; also sorts them
    held.eliminate_zeros()
    if not held.nnz:
        raise DataError("the matrix has no entry but zeros: there is nothing to learn from")
    n_users, n_items = held.shape
    catalog = Catalog(_ids("user", user_ids, n_users), _ids("item", item_ids, n_items))
    users = np.repeat(np.arange(n_users), np.diff(held.indptr))
    values = _finite(held.data, users, held.indices)
    interactions = Interactions.of(catalog, users, held.indices, None if (values == 1).all() else values)
    return Dataset("matrix", interactions, None, _notes(interactions, None))


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
    ids: NDArray[np.str_] = np.asarray(np.arange(n) if given is None else given).astype(np.str_)
    if ids.shape != (n,):
        raise DataError(f"the matrix has {n} {kind}s, {kind}_ids has shape {ids.shape}: give one id for each")
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{kind}_ids holds {str(unique[counts > 1][0])!r} twice: ids must be unique")
    if (ids == "").any():
        raise DataError(f"{kind}_ids holds an empty id at position {int(np.flatnonzero(ids == '')[0])}: fill it in")
    return ids


def _dataset(name: str, table: Table) -> Dataset:
    interactions, is_test = encode(table)
    return Dataset(name, interactions, is_test, _notes(interactions, is_test))


def _notes(interactions: Interactions, is_test: NDArray[np.bool_] | None) -> tuple[str, ...]:
    notes: list[str] = []
    if dropped := interactions.duplicates:
        notes.append(f"{_count(dropped, 'duplicate interaction')} dropped (the last of each was kept)")
    degrees = interactions.user_degrees()
    if is_test is None:
        if single := int((degrees == 1).sum()):
            have, they_are = ("has", "it is") if single == 1 else ("have", "they are")
            notes.append(f"{_count(single, 'user')} {have} a single interaction: {they_are} trained on, never tested")
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
