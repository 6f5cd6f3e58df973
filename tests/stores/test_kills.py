"""A kill at any step of what changes files leaves what was or what is new, and whoever comes next finishes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def sweep(scenario: str, tmp_path: Path) -> dict[str, Any]:
    """Sweep one scenario of `kill_at_every_step.py`, in memory where there is a place for that."""
    script = Path(__file__).with_name("kill_at_every_step.py")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as room:
        done = subprocess.run(
            [sys.executable, script, room, scenario],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "steps", "read"),
    [
        ("apply", 80, ["exact 0 pending", "exact 3 pending"]),
        ("ask", 15, ["exact 3 pending", "exact 4 pending"]),
        ("train anew", 60, ["exact 0 pending", "exact 3 pending"]),
        ("save another", 60, ["exact 1 pending", "exact 3 pending"]),
        ("change the key", 8, ["exact 3 pending"]),
    ],
)
def test_a_kill_before_any_step_of_a_change_and_of_its_repair_leaves_the_old_or_the_new(
    tmp_path: Path, scenario: str, steps: int, read: list[str]
) -> None:
    found = sweep(scenario, tmp_path)
    assert found["states"] == ["new", "old"]
    assert found["last"] == "new"
    assert found["read"] == read  # also before the repair, and without a lock
    assert found["steps"] > steps  # the sweep saw links, replacements, syncs and removals


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["keep a round", "erase on devices", "keep a place"])
def test_a_kill_before_any_step_on_devices_or_in_a_training_leaves_the_old_or_the_new(
    tmp_path: Path, scenario: str
) -> None:
    found = sweep(scenario, tmp_path)
    assert found["states"] == ["new", "old"]
    assert found["last"] == "new"
    assert found["steps"] > 10
