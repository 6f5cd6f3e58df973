"""What several benchmarks need: where the data lie, and how a figure over seeds is printed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def source(name: str) -> Path:
    """The file of a data set, in RETRACT_DATA or in shared/data beside the checkout."""
    folder = os.environ.get("RETRACT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    return Path(folder) / f"{name}.parquet"


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over the seeds; the mean alone where nothing varies."""
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 and np.std(values) else ""
    return f"{np.mean(values):.4g}{spread}"
