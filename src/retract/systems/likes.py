"""What a system learns from a data set: ratings, or what people like."""

from __future__ import annotations

from dataclasses import replace

from retract.data import Dataset
from retract.systems.system import SystemType


def suited_to(kind: SystemType, dataset: Dataset) -> Dataset:
    """The part of a data set that a kind of system learns from, and notes on it.

    A system that learns ratings takes all of them. Every other one learns what people like, and a rating of 0 or below
    is no like.

    Raises
    ------
    DataError
        If nothing is left.
    """
    if not kind.learns_ratings:
        return dataset.likes()
    ratings = dataset.interactions.ratings
    if ratings is None or not len(ratings) or ratings.min() != 0:
        return dataset
    zeros = int((ratings == 0).sum())
    note = f"ratings of 0, the lowest, are learnt as values: {zeros:,}; if 0 means not rated, --at-least-rating 1 or "
    return replace(dataset, notes=(*dataset.notes, f"{note}at_least_rating=1 leaves them out"))
