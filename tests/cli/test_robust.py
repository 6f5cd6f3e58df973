"""What scripts can rely on: errors as one object, whole states on a full disk, settings, progress, completion."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retract.cli import main, output
from retract.cli.refusals import lacking, refusal
from tests.cli.commands import in_process_of_its_own, on_disk, retract, write_ratings

STEPS = ("mkdir", "link", "replace", "fsync", "open")
"""Calls by which a command makes something on the disk; one that fails stands for every write before it."""


@pytest.mark.parametrize(
    ("arguments", "error", "where", "hint"),
    [
        (["recommend", "{folder}", "--user", "u99"], "unknown_id", "{folder}", "--suggest names"),
        (["status", "{folder}/none"], "folder", "{folder}/none", "`retract train` makes one"),
        (["recommend", "{folder}", "--user", "u1", "-k", "x"], "usage", "-k", "retract recommend --help"),
        (
            ["train", "exact", "--data", "{folder}/none.csv", "--out", "x"],
            "data",
            "{folder}/none.csv",
            "check the path",
        ),
        (["trian"], "usage", None, "retract --help"),
    ],
)
def test_an_error_is_one_object_that_says_what_where_and_what_to_do(
    made: Path, arguments: list[str], error: str, where: str | None, hint: str | None
) -> None:
    answer = retract(*(text.format(folder=made) for text in arguments), "--json")
    told = json.loads(answer.out)
    assert (answer.code, told["code"], told["error"]) == (2, 2, error)
    assert answer.err == f"error: {told['what']}\n"
    assert told["where"] == (where and where.format(folder=made))
    assert (told["hint"] or "").startswith(hint or "")
    assert bool(told["hint"]) == bool(hint)


def test_what_is_our_fault_is_told_to_scripts_as_such() -> None:
    told = refusal(ZeroDivisionError("division by zero"), ["status", "--json"])
    assert (told.error, told.code, told.where) == ("internal", 1, None)


@pytest.mark.parametrize(
    ("error", "text", "name"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device", "disk_full"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), "a/b: Read-only file system", "not_permitted"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "there is not enough memory", "out_of_memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes. Error code 12"),
            "there is not enough memory: 4000 bytes was asked for",
            "out_of_memory",
        ),
    ],
)
def test_what_the_machine_lacks_is_named(error: BaseException, text: str, name: str) -> None:
    assert lacking(error) == (text, name)


def test_numpys_own_error_of_memory_names_the_size_asked_for() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty((2**24, 2**24))
    found = lacking(caught.value)
    assert found is not None
    assert "2.00 PiB for an array with shape (16777216, 16777216) was asked for" in found[0]
    assert lacking(ValueError("x")) is None


def told_of(folder: Path) -> dict[str, Any]:
    """What a folder's status tells; a claim that could not be given back counts as pending, here as there."""
    found = retract("status", folder, "--json").json
    requests = [
        {**one, "status": "pending" if one["status"] == "in_progress" else one["status"]} for one in found["requests"]
    ]
    return {**found, "requests": requests}


def failing_from(monkeypatch: pytest.MonkeyPatch, step: int, below: Path) -> Callable[[], int]:
    """A disk that is full from a step on, below a folder; how many steps there were."""
    count = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal count
            target = arguments[0]
            place = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)  # type: ignore[arg-type]
            makes = original is not os_open or bool(int(str(arguments[1])) & os.O_CREAT)
            if makes and str(place).startswith(str(below)):
                count += 1
                if count >= step:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
            return original(*arguments, **options)

        return call

    os_open = os.open
    for name in STEPS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: count


@pytest.mark.slow
@pytest.mark.parametrize("command", ["unshare", "erase", "unlearn", "audit", "extend", "ship", "train"])
def test_a_disk_that_is_full_from_any_step_on_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    data, original = write_ratings(tmp_path / "ratings.csv"), tmp_path / "original"
    more = tmp_path / "more.csv"
    more.write_text("user,item,rating\nnew,i1,3\nnew,i2,4\n")
    monkeypatch.setenv("RETRACT_KEY", str(tmp_path / "key.pem"))
    assert retract("keys", "new", tmp_path / "key.pem").code == 0
    for name in (original, tmp_path / "tried"):
        assert retract("train", "exact", "--data", data, "--share", "1", "--out", name).code == 0
    out = tmp_path / "tried"
    arguments = {
        "unshare": ["unshare", out, "--user", "u1"],
        "erase": ["erase", out, "--user", "u2"],
        "unlearn": ["unlearn", out],
        "audit": ["unlearn", out, "--audit"],
        "extend": ["extend", out, "--data", more, "--share", "1"],
        "ship": ["ship", out, "--out", out / "shipped.bin"],
        "train": ["train", "exact", "--data", data, "--share", "1", "--out", out, "--force"],
    }[command]
    if arguments[0] == "unlearn":
        for kind, user in (("unshare", "u3"), ("erase", "u4")):
            assert retract(kind, out, "--user", user).code == 0
    codes = []
    for step in range(1, 200):
        before = told_of(out)
        with monkeypatch.context() as patched:
            failing_from(patched, step, out)
            answer = retract(*arguments, "--json")
        after = told_of(out)
        codes.append(answer.code)
        if answer.code == 0:
            break
        told = json.loads(answer.out)
        assert (answer.code, told["error"]) == (2, "disk_full"), answer
        assert str(out) in told["where"]
        if "holds the new state" in told["what"]:
            assert after["version"] == before["version"] + 1
            break
        assert "is as it was" in told["what"] or "nothing was changed" in told["what"], told
        assert after == before
    assert codes[0] == 2
    assert len(codes) > 2


@pytest.mark.slow
def test_a_result_that_cannot_be_printed_does_not_say_that_nothing_was_done(made: Path) -> None:
    command = [sys.executable, "-c", "import sys; from retract.cli import main; sys.exit(main())", "status", str(made)]
    for options in ([], ["--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([*command, *options], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        told = "error: the result cannot be printed (No space left on device), but the command did its work\n"
        assert (done.returncode, done.stderr) == (2, told)


@pytest.mark.slow
def test_ease_on_too_many_items_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    rows = [f"u{user},i{item}" for user in range(600) for item in range(user * 100, user * 100 + 100)]
    data = tmp_path / "wide.csv"
    data.write_text("user,item\n" + "\n".join(rows) + "\n")
    train = ["train", "exact", "--data", data, "--out", tmp_path / "run", "--set", "form=ease"]
    told = in_process_of_its_own(*train, "--json")
    if told.code == 0:
        pytest.skip("this machine has 86 GB free")
    assert json.loads(told.out)["error"] == "config"
    assert "EASE of 60,000 items takes 86.4 GB" in told.err
    assert "take form=spectral or form=filter" in told.err
    assert not (tmp_path / "run").exists()


def test_settings_are_listed_with_meaning_values_unit_and_default() -> None:
    found = retract("settings", "exact", "--json").json["settings"]
    (slow,) = (one for one in found if one["name"] == "slow_seconds")
    assert (slow["default"], slow["unit"], slow["values"]) == (60.0, "s", "a number above 0")
    assert all(one["meaning"] for one in found)
    shown = retract("settings", "exact").out
    assert all(one["name"] in shown for one in found)


def test_a_line_of_progress_is_told_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LINE_EVERY", 0.01)
    told = io.StringIO()
    with redirect_stderr(told), output.progress_bars() as report:
        report("training", 3, 1000)
        time.sleep(0.1)
    lines = told.getvalue().splitlines()
    assert "training, 3 of 1,000, 0 s so far" in lines


def test_status_tells_settings_metrics_and_certificates_to_scripts(folder: Path) -> None:
    told = retract("status", folder, "--json").json
    assert told["settings"]["rounds"] >= 1
    assert set(told) >= {"metrics", "certificates", "seed"}
    assert told["certificates"] == []
    before = on_disk(folder)
    assert retract("status", folder).code == 0
    assert on_disk(folder) == before


def test_a_shell_is_told_how_to_complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_RETRACT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "retract tr")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        main([])
    assert "train" in capsys.readouterr().out
    monkeypatch.delenv("_RETRACT_COMPLETE")
    assert "--install-completion" in retract("--help").out
