"""What the server must know before the first round: what the clients' interactions are, as sums over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.errors import DataError
from retract.federation import Arrays
from retract.models.subspace import dimension_for
from retract.systems.personalfr.config import Feedback, PersonalFRConfig

SCALES = (0, 10)
"""Where the ends of a scale are looked for that nobody states."""
BESIDE = ("users", "ratings", "squares")
"""What only the server's half of a training reads."""
KINDS: tuple[Feedback, Feedback] = ("explicit", "implicit")

_OTHER_KIND = {
    "implicit": "explicit feedback is asked for and the data has no ratings: name their column (--rating-col), or set "
    "feedback=implicit",
    "explicit": "implicit feedback is asked for and the data has ratings, the lowest of which would count as likes: "
    "leave that column out, or set feedback=explicit",
}


@dataclass(frozen=True)
class Facts:
    """What the census found.

    Parameters
    ----------
    feedback
        What the clients hold.
    mean
        Of all ratings, 0 for implicit feedback; float32, shape [].
    lowest, highest
        Ends of the scale, float32, shape [].
    support
        Users that hold each item, int64, shape [n_items].
    users
        Users that hold anything, int64, shape [].
    ratings
        The sum of each item's ratings, float64, shape [n_items]; zeros for implicit feedback.
    squares
        The sum of all squared ratings, float64, shape [].
    """

    feedback: Feedback
    mean: NDArray[np.float32]
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]
    support: NDArray[np.int64]
    users: NDArray[np.int64]
    ratings: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, sums: Arrays, places: NDArray[np.float32], config: PersonalFRConfig) -> Facts:
        """Read the sums of the census at the places of `scale_places`.

        Raises
        ------
        DataError
            If some interactions have a rating and others none, if the feedback is not of the kind asked for, or if
            ratings lie outside the scale that is stated, or outside all that are looked for where none is.
        """
        count, rated = int(sums["interactions"]), int(sums["rated"])
        support = np.asarray(sums["support"], dtype=np.int64)
        if rated not in (0, count):
            raise DataError(f"{rated:,} of {count:,} interactions have a rating: give all of them one, or none")
        found: Feedback = "explicit" if rated else "implicit"
        if config.feedback not in ("auto", found):
            raise DataError(_OTHER_KIND[found])
        beside = np.asarray(sums["users"]), np.asarray(sums["ratings"]), np.asarray(sums["squares"])
        if found == "implicit":
            return cls(found, _number(0), _number(0), _number(0), support, *beside)
        mean = _number(sums["ratings"].sum() / rated)
        lowest = _end("lowest", config.lowest, places, sums["below"], -1)
        highest = _end("highest", config.highest, places, sums["above"], 0)
        return cls(found, mean, lowest, highest, support, *beside)

    @classmethod
    def restored(cls, tables: Arrays) -> Facts:
        """From what `tables` gave."""
        mean, lowest, highest = (_number(tables[name]) for name in ("mean", "lowest", "highest"))
        support = np.asarray(tables["support"], dtype=np.int64)
        beside = tuple(np.asarray(tables[name]) for name in BESIDE)
        return cls(KINDS[int(tables["feedback"])], mean, lowest, highest, support, *beside)

    @property
    def dimension(self) -> int:
        """The size of embeddings that so much data bears."""
        return dimension_for(self.support, int(self.users))

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays."""
        beside = {name: getattr(self, name) for name in BESIDE}
        return {"feedback": np.asarray(KINDS.index(self.feedback)), **self.published, **beside}

    @property
    def published(self) -> dict[str, NDArray[Any]]:
        """What it takes to read the model."""
        return {"mean": self.mean, "lowest": self.lowest, "highest": self.highest, "support": self.support}


def scale_places(config: PersonalFRConfig) -> NDArray[np.float32]:
    """Where a scale may end, ascending: on a half step within `SCALES`, or where it is stated to."""
    stated = [end for end in (config.lowest, config.highest) if end is not None]
    steps = np.arange(SCALES[0], SCALES[1] + 0.5, 0.5)
    places: NDArray[np.float32] = np.unique(np.concatenate([steps, stated])).astype(np.float32)
    return places


def with_scale_of(config: PersonalFRConfig, tables: Mapping[str, NDArray[Any]]) -> PersonalFRConfig:
    """The settings with the scale of a model stated, where it has one."""
    if config.feedback != "explicit":
        return config
    return config.model_copy(update={end: float(tables[end]) for end in ("lowest", "highest")})


def _end(
    name: str, stated: float | None, places: NDArray[np.float32], outside: NDArray[Any], nearest: int
) -> NDArray[np.float32]:
    """The stated end of the scale, else the nearest place that leaves no rating outside."""
    if stated is None:
        fitting = places[(outside == 0) & (places >= SCALES[0]) & (places <= SCALES[1])]
        if not len(fitting):
            raise DataError(
                f"ratings lie outside {SCALES[0]:g} to {SCALES[1]:g}: state the scale's lowest=… and highest=…"
            )
        return _number(fitting[nearest])
    if left_out := int(outside[places == np.float32(stated)][0]):
        raise DataError(
            f"{left_out:,} ratings lie beyond {stated:g}, the {name} of the scale: train with another {name}=…"
        )
    return _number(stated)


def _number(value: Any) -> NDArray[np.float32]:
    return np.asarray(value, dtype=np.float32)
