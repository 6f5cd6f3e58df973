"""How long something takes, measured until that is known: one run of milliseconds says little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from retract.systems.base import Stopwatch

LONG = 1.0
"""What takes so many seconds is not repeated."""
PATIENCE = 5.0
"""Seconds that repeating may take in all."""
STEADY = 0.1
"""The standard error of the mean, as a part of it, that is small enough."""
FEWEST = 5
"""Runs that a spread is told from, at least."""


@dataclass(frozen=True)
class Timing:
    """Mean seconds, its standard error as a part of it (None of a single run), and of how many runs."""

    seconds: float
    error: float | None = None
    runs: int = 1

    @property
    def relative_error(self) -> float | None:
        """In three digits, for JSON."""
        return None if self.error is None else float(f"{self.error:.3g}")


def steady(first: float, again: Callable[[], float], patience: float = PATIENCE) -> Timing:
    """How long a run takes, from a first one and, where that is short, from more.

    Where it is repeated, the first run was the warm-up and does not count.

    Parameters
    ----------
    first
        Seconds of a run that is done.
    again
        Does the same again and returns its seconds.
    patience
        After so many seconds the mean stands as it is.
    """
    if first >= LONG:
        return Timing(first)
    runs, watch = list[float](), Stopwatch()
    while len(runs) < FEWEST or (_error(runs) > STEADY and watch.seconds < patience):
        runs.append(again())
    return Timing(float(np.mean(runs)), _error(runs), len(runs))


def _error(runs: list[float]) -> float:
    """The standard error of the mean, as a part of it."""
    mean = float(np.mean(runs))
    return float(np.std(runs, ddof=1)) / sqrt(len(runs)) / mean if mean else 0.0
