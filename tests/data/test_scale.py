"""Ten million rows load and are validated within ten seconds and two gigabytes, in a process of their own."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

N = 10_000_000
LOAD = """
import json, resource, sys, time
from retract.data import load
began = time.perf_counter()
held = load(sys.argv[1]).interactions
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"kept": len(held), "dropped": held.duplicates, "seconds": seconds, "gigabytes": peak / 1e9}))
"""


@pytest.mark.slow
def test_ten_million_rows_load_in_ten_seconds_and_two_gigabytes(tmp_path):
    draw = np.random.default_rng(0)
    columns = {
        "user": draw.integers(0, 200_000, N),
        "item": draw.integers(0, 50_000, N),
        "rating": draw.integers(1, 6, N).astype(np.float32),
        "timestamp": draw.integers(10**9, 2 * 10**9, N),
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "ten.parquet")
    distinct = len(np.unique(columns["user"] * 50_000 + columns["item"]))
    ran = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "ten.parquet"], capture_output=True, text=True, check=True
    )
    found = json.loads(ran.stdout)
    assert (found["kept"], found["dropped"]) == (distinct, N - distinct)
    assert found["gigabytes"] <= 2, found
    assert found["seconds"] <= 10, found
