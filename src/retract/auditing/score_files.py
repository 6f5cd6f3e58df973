"""The audit of score files: a pair of user and item and its score in every row, Parquet or text.

Needed are, of every user who forgets, all forgotten pairs and enough others, best the whole list, in every file. What
was scored in all files is compared; what is missing from one is left out of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np

from retract.auditing.adapters import Ids, Scores
from retract.auditing.external import judge
from retract.auditing.ground import Ground, gather, named, recode, union
from retract.auditing.standing import MODELS, ScoreAudit
from retract.auditing.verdict import MARGIN
from retract.data import Columns, Interactions
from retract.data.columns import USUAL
from retract.data.readers import column_names, read_file, require_polars
from retract.data.tables import encode
from retract.errors import ConfigError, DataError

NAMES = ("score", "prediction", "predicted", "pred")
"""What a column of scores is called, up to case, best first."""


def audit_files(
    before: str | Path,
    after: str | Path,
    forget: object,
    *,
    oracle: str | Path | None = None,
    history: object | None = None,
    test: object | None = None,
    columns: Columns = USUAL,
    score: str | None = None,
    margin: float = MARGIN,
    seed: int = 0,
) -> ScoreAudit:
    """Audit a recommender by files of its scores.

    Parameters
    ----------
    before, after, oracle
        Parquet, CSV or TSV with a user, an item and a score in every row: of the model as it was, as it is, and trained
        without what was withdrawn.
    forget, history, test
        As of `audit_scores`: files, frames, matrices or interactions.
    columns
        The names of the columns of users and items, where they are not the usual ones, in all files.
    score
        The column of scores; "score", "prediction" or their like unless given.
    margin, seed
        As of `audit_scores`.

    Raises
    ------
    DataError
        If a file cannot be read, scores a pair twice or with what is no number, or lacks a forgotten pair.
    ConfigError
        If the margin lies outside (0, 0.5), or the forget set is empty.
    MissingExtraError
        If polars is not installed.
    """
    require_polars("auditing score files")
    paths = {name: Path(one) for name, one in zip(MODELS, (before, after, oracle), strict=True) if one is not None}
    files = {name: read_scores(path, columns, score) for name, path in paths.items()}
    asked = gather(forget, history, test, columns=columns)
    _require_users(asked.forget, files)
    parts = [one for one in (asked.forget, asked.history, asked.test) if one is not None]
    catalog = union([*parts, *files.values()])
    over = {name: recode(one, catalog) for name, one in files.items()}
    wanted = recode(asked.forget, catalog)
    for name, one in over.items():
        _require_pairs(wanted, one, paths[name])
    held, tested = (None if one is None else recode(one, catalog) for one in (asked.history, asked.test))
    common = reduce(lambda one, other: one & other, over.values())
    ground = Ground(wanted, held, tested, catalog.user_ids.tolist(), catalog.item_ids.tolist(), common)
    scorers = {name: Scored(one & common) for name, one in over.items()}
    return judge(scorers, ground, margin=margin, seed=seed)


def read_scores(path: Path, columns: Columns = USUAL, score: str | None = None) -> Interactions:
    """A file's pairs, their scores as ratings.

    Raises
    ------
    DataError
        If it cannot be read, has no scores, or a score is no finite number, or a pair stands in it twice.
    """
    if columns.rating is not None:
        raise ConfigError("a score file has scores, no ratings: name their column with score=, --score-col")
    name = _score_column(path, columns, score)
    try:
        table = read_file(path, replace(columns, rating=name))
    except FileNotFoundError:
        raise DataError(f"no such file: {path}; check the path") from None
    if name is None:
        seen = ", ".join(table.names.values())
        raise DataError(
            f"{path}: no column of scores ({', '.join(NAMES)}) beside {seen}: name it with --score-col, score="
        )
    table = replace(table, frame=table.frame.select("user", "item", "rating"))
    pairs = encode(table)[0]
    if pairs.duplicates:
        import polars as pl

        row = int(np.argmin(table.frame.select(pl.struct("user", "item").is_first_distinct()).to_series().to_numpy()))
        raise table.error(
            "item", row, f"this pair was scored before ({pairs.duplicates:,} such rows): keep one of them"
        )
    return pairs


def _score_column(path: Path, columns: Columns, wanted: str | None) -> str | None:
    """The file's own name of its column of scores; None where it has none, or cannot be read at all.

    Raises
    ------
    DataError
        If it was named and the file has no such column.
    """
    seen = _header(path, columns)
    if wanted is not None and seen and wanted.lower() not in [name.lower() for name in seen]:
        raise DataError(f"{path}: no column {wanted!r}; columns seen: {', '.join(seen)}; correct --score-col, score=")
    likely = [name for usual in NAMES for name in seen if name.lower() == usual]
    return wanted or (likely[0] if likely else None)


def _header(path: Path, columns: Columns) -> list[str]:
    """The names of a file's columns; none where it cannot be read, which its reader says better."""
    from polars.exceptions import PolarsError

    try:
        return column_names(path, columns)
    except (OSError, DataError, PolarsError):
        return []


def _require_users(forget: Interactions, files: Mapping[str, Interactions]) -> None:
    """Refuse a forget set whose users stand in no file."""
    known = np.concatenate([one.catalog.user_ids for one in files.values()])
    names = forget.catalog.user_ids[forget.active_users()]
    strangers = names[~np.isin(names, known)]
    if len(strangers):
        raise DataError(
            f"{len(strangers):,} of the {len(names):,} users who forget are in no score file (the first: "
            f"{strangers[0]}): are ids written alike in all files?"
        )


def _require_pairs(forget: Interactions, scored: Interactions, path: Path) -> None:
    """Refuse a file without all forgotten pairs."""
    missing = forget - scored
    if len(missing):
        raise DataError(
            f"{path} has no score for {len(missing):,} of the {len(forget):,} forgotten pairs ({named(missing)}): "
            "score all of them, with the user's lowest score where the model knows the user or item no longer"
        )


class Scored:
    """Scores out of a file; NaN for what stands not in it.

    Parameters
    ----------
    pairs
        Scored pairs, their scores as ratings.
    """

    def __init__(self, pairs: Interactions) -> None:
        self._pairs = pairs
        self.items: Ids = pairs.catalog.item_ids.tolist()

    def scores(self, users: Ids, items: Ids, history: Interactions) -> Scores:
        """Shape [len(users), len(items)]; all items are asked for, in the order of the catalog."""
        found = np.full((len(users), len(items)), np.nan)
        codes = np.searchsorted(self._pairs.catalog.user_ids, np.array(users, dtype=np.str_))
        indptr, places = self._pairs.places_of(codes)
        assert self._pairs.ratings is not None
        rows = np.repeat(np.arange(len(users)), np.diff(indptr))
        found[rows, self._pairs.items[places]] = self._pairs.ratings[places]
        return found
