"""What several benchmarks need: where the data lie, and how a figure over seeds is printed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retract import streams
from retract.data import Interactions


def source(name: str) -> Path:
    """The file of a data set, in RETRACT_DATA or in shared/data beside the checkout."""
    folder = os.environ.get("RETRACT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    return Path(folder) / f"{name}.parquet"


def thinned(interactions: Interactions, count: int, seed: int) -> Interactions:
    """A keyed draw of at most so many interactions of each user."""
    order = np.lexsort((streams.bits(seed, 0, interactions.users, "thin", interactions.items), interactions.users))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return interactions.where(place - interactions.indptr[interactions.users] < count)


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over the seeds; the mean alone where nothing varies."""
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 and np.std(values) else ""
    return f"{np.mean(values):.4g}{spread}"
