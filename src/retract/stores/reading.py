"""Recommending from a model: one opened once, from memory; a new version of its folder is noticed without a lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from retract.errors import DataError
from retract.models.recommender import KnowsNothing, PredictsRatings, fallback_of, recommend
from retract.stores.folder import TrainedFolder
from retract.stores.held import Held


@dataclass(frozen=True)
class Recommended:
    """One line of a list of recommendations, original ids; with the rating to be expected, where a model says it."""

    item: str
    title: str
    score: float
    rating: float | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """Score and rating, as far as there are any."""
        return (self.score,) if self.rating is None else (self.score, self.rating)

    @property
    def fields(self) -> dict[str, object]:
        """What there is, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Recommendations:
    """A list for one user, best first.

    Parameters
    ----------
    user, items
        Original id, empty for somebody whom only a history describes; the list.
    fallback
        What it goes by where the model does not know the user.
    empty
        Whether the model knows nothing at all.
    """

    user: str
    items: tuple[Recommended, ...]
    fallback: str | None
    empty: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell beside the list."""
        if self.empty:
            return ("the model knows nothing, for nothing is left that it could learn from: the list is empty",)
        if self.fallback is not None:
            return (
                f"user {self.user} shares nothing, so the model does not know them: the list goes by {self.fallback}",
            )
        return () if self.items else ("nothing is left to recommend: the user has had every item",)


class Opened:
    """A model in memory, ready to recommend.

    Parameters
    ----------
    held
        Both halves, or the server's.
    """

    def __init__(self, held: Held) -> None:
        self.held, self.model, self.history = held, held.recommender(), held.interactions

    def lists(self, users: Sequence[str], k: int | None = None) -> list[Recommendations]:
        """The best items that each user has not had yet; fewer where fewer are left.

        Parameters
        ----------
        k
            How many: 10, or all of a smaller catalog, unless given.

        Raises
        ------
        UnknownIdError
            If there is no such user; the message names the nearest known ids.
        ConfigError
            If k lies outside [1, number of items].
        DataError
            If a user holds no interaction.
        """
        catalog = self.held.catalog
        codes = np.array([catalog.user(user) for user in users], dtype=np.int64)
        for user, degree in zip(users, self.history.user_degrees()[codes], strict=True):
            if not degree:
                where = "" if self.held.devices is not None else " that the server holds"
                raise DataError(f"user {user!r} holds no interaction{where}: there is nothing to recommend from")
        k = min(10, catalog.n_items) if k is None else k
        best = recommend(self.model, codes, self.history, k, hidden=self.held.test)
        ratings: list[list[float | None]] = [[None] * k] * len(codes)
        if isinstance(self.model, PredictsRatings):
            ratings = np.take_along_axis(self.model.ratings(codes, self.history), best.items, axis=1).tolist()
        rows = zip(best.items.tolist(), best.scores.tolist(), ratings, strict=True)
        return [
            Recommendations(
                str(user), self._named(*row), fallback_of(self.model, code), isinstance(self.model, KnowsNothing)
            )
            for user, code, row in zip(users, codes.tolist(), rows, strict=True)
        ]

    def _named(
        self, items: Sequence[int], scores: Sequence[float], ratings: Sequence[float | None]
    ) -> tuple[Recommended, ...]:
        catalog = self.held.catalog
        return tuple(
            Recommended(str(catalog.item_ids[item]), catalog.title(item), score, rating)
            for item, score, rating in zip(items, scores, ratings, strict=True)
            if np.isfinite(score)
        )


class Served:
    """A trained folder that is opened once and looked at again only when it serves another version.

    Parameters
    ----------
    path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.folder = TrainedFolder(path)
        self._opened: Opened | None = None

    def opened(self) -> Opened:
        """The model that the folder serves by now; errors as of `TrainedFolder.load`."""
        if self._opened is None or self._opened.held.version != self.folder.versions.number():
            self._opened = Opened(self.folder.load())
        return self._opened


def recommend_folder(path: Path, user: str, k: int | None = None) -> Recommendations:
    """The best items for a user of a trained folder; errors as of `Opened.lists` and `TrainedFolder.load`."""
    return Served(path).opened().lists([user], k)[0]
