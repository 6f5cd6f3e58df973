"""A kill, Ctrl-C, a full disk, two processes at once, a folder that may only be read: the old state or the new one.

What is struck is a step that changes files, and the process that is struck says which, so every fault has hit one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def found_in(system: str, scenario: str, part: int = 0) -> list[dict[str, str]]:
    """What a scenario of `lives.py` found, in memory where there is a place for that."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as room:
        Path(room).chmod(0o755)  # one scenario works as somebody else
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("lives.py"), room, system, scenario, str(part)],
            capture_output=True,
            text=True,
            timeout=500,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def assert_old_or_new(found: list[dict[str, str]]) -> None:
    """What was left is a whole state; both occur; and the same command again makes it as if nothing had happened."""
    assert [one for one in found if one["left"] not in ("old", "new") or one["again"] != "new"] == []
    assert {one["left"] for one in found} == {"old", "new"}


@pytest.mark.parametrize("part", [0, 1])
def test_a_kill_in_mid_write_at_two_hundred_random_moments_leaves_the_old_or_the_new(part: int) -> None:
    found = found_in("exact", "kills", part)
    assert len(found) == 100
    assert all((one["code"], one["err"]) == ("-9", "") and one["struck"] for one in found)
    hit = {one["struck"].split(" /")[0].split(" ")[0] for one in found}
    assert hit >= {"create", "write", "half", "fsync", "replace", "unlink", "mkdir"}
    assert {one["command"] for one in found} == {"train", "unshare", "erase", "unlearn", "extend"}
    assert_old_or_new(found)


def test_stops_of_a_federated_life_leave_the_old_or_the_new_and_ctrl_c_says_so_in_one_line() -> None:
    found = found_in("fedshare", "stops")
    assert_old_or_new(found)
    for one in found:
        assert one["struck"]
        if one["kind"] == "kill":
            assert (one["code"], one["err"]) == ("-9", "")
        else:
            assert one["code"] == "130", one
            assert one["err"].count("\n") == 1
            assert one["err"].startswith("interrupted")
            assert ("was already saved" in one["err"]) == (one["left"] == "new"), one


@pytest.mark.parametrize("part", [0, 1])
def test_a_disk_that_is_full_from_any_step_on_is_one_line_that_says_what_is_left(part: int) -> None:
    found = found_in("exact", "full", part)
    assert len(found) > 100
    assert_old_or_new(found)
    for one in found:
        assert one["code"] == "2", one
        *notes, line = one["err"].splitlines()
        assert all(note.startswith("note: ") for note in notes), one
        assert "/tried/" in line, one  # the path, or that of the key
        assert "No space left on device" in line, one
        assert "our fault" not in line
        assert ("was already saved" in line) == (one["left"] == "new"), one


@pytest.mark.parametrize("part", [0, 1])
def test_two_processes_at_once_leave_what_they_leave_in_turn(part: int) -> None:
    found = found_in("exact", "together", part)
    assert len(found) >= 25
    assert [one for one in found if one["wrong"] != "[]" or one["left"] != "as in turn"] == []


def test_who_may_only_read_a_folder_can_use_it_and_changes_nothing() -> None:
    for one in found_in("exact", "read only"):
        if one["command"] in ("status", "recommend", "audit"):
            assert (one["code"], one["err"]) == ("0", ""), one
            assert one["out"]
        else:
            assert (one["code"], one["out"]) == ("2", ""), one
            assert one["err"].count("\n") == 1
            assert "Permission denied" in one["err"] or "not a folder that you can write to" in one["err"]
