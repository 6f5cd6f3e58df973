"""A training that was stopped goes on where it was, and ends as one that never was."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from retract.stores.held import MEMORY, MODEL
from retract.stores.training import Place
from retract.systems.base import Checkpoint
from tests.auditing.statements import files_of
from tests.cli.commands import on_disk, retract, start

ROUNDS = 150
PLACE = Path("server", "training", "place.json")


def command(data: Path, out: Path, *more: object) -> list[object]:
    settings = (f"rounds={ROUNDS}", "dimension=4", "start_rounds=2")
    pairs = (part for pair in settings for part in ("--set", pair))
    return [
        "train",
        "fedshare",
        "--data",
        data,
        "--out",
        out,
        "--json",
        "--share",
        0.5,
        "--keep-every",
        0,
        *pairs,
        *more,
    ]


def killed(after: float, out: Path, *arguments: object) -> None:
    """Start a training and kill it so many seconds after the first keeping of its place that is not there already."""
    before = (out / PLACE).read_bytes() if (out / PLACE).exists() else None
    with start(*arguments) as process:
        while process.poll() is None and (not (out / PLACE).exists() or (out / PLACE).read_bytes() == before):
            time.sleep(0.005)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said.decode()


@pytest.mark.slow
def test_a_training_that_was_killed_twice_ends_with_the_model_of_an_undisturbed_one(
    ratings: Path, tmp_path: Path
) -> None:
    draw, out, whole = random.Random(), tmp_path / "run", tmp_path / "whole"
    assert retract(*command(ratings, whole)).json["resumed_at"] is None
    killed(draw.uniform(0, 0.5), out, *command(ratings, out))
    killed(draw.uniform(0, 0.5), out, *command(ratings, out, "--resume"))
    report = retract(*command(ratings, out, "--resume")).json
    stage, _, step = report["resumed_at"].partition(", step ")
    assert stage == "rounds"
    assert 0 < int(step) < ROUNDS
    assert report["rounds"] == ROUNDS - int(step)  # those of the last process
    one, other = files_of(out), files_of(whole)
    assert {name: one[name] for name in (MODEL, MEMORY)} == {name: other[name] for name in (MODEL, MEMORY)}
    assert not (out / "server" / "training").exists()
    assert not (out / "devices" / "training").exists()


@pytest.mark.slow
def test_what_was_interrupted_is_taken_up_within_one_process(
    ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    few = ("--set", "rounds=6")
    assert retract(*command(ratings, whole, *few)).code == 0
    stop_after(3, monkeypatch)
    answer = retract(*command(ratings, out, *few))
    assert answer.code == 130
    assert answer.err == (
        f"interrupted: {out}: the training is kept as of rounds, step 3; run it again with --resume to go on\n"
    )
    monkeypatch.undo()
    told = retract(*command(ratings, out, *few, "--resume"))
    assert (told.json["resumed_at"], told.json["rounds"]) == ("rounds, step 3", 3)
    assert files_of(out)[MODEL] == files_of(whole)[MODEL]
    asked = retract(*[part for part in command(ratings, tmp_path / "again", *few) if part != "--json"])
    assert "resumed at" not in asked.out


@pytest.mark.slow
def test_force_begins_anew(ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, few = tmp_path / "run", ("--set", "rounds=6")
    stop_after(3, monkeypatch)
    assert retract(*command(ratings, out, *few)).code == 130
    monkeypatch.undo()
    assert "holds an interrupted training (rounds, step 3)" in retract(*command(ratings, out, *few)).refusal()
    report = retract(*command(ratings, out, *few, "--force")).json
    assert (report["resumed_at"], report["rounds"]) == (None, 8)  # two of the start
    assert not (out / "server" / "training").exists()


def test_a_place_that_is_damaged_is_refused_and_can_be_left(
    ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, few = tmp_path / "run", ("--set", "rounds=6")
    stop_after(3, monkeypatch)
    assert retract(*command(ratings, out, *few)).code == 130
    monkeypatch.undo()
    (tables,) = (out / "server" / "training").glob("*.safetensors")
    tables.write_bytes(tables.read_bytes()[:-1] + b"!")
    before = on_disk(out)
    assert "is damaged: --force begins anew" in retract(*command(ratings, out, *few, "--resume")).refusal()
    assert on_disk(out) == before
    assert retract(*command(ratings, out, *few, "--force")).code == 0


@pytest.mark.parametrize("there", [False, True])
def test_where_nothing_was_interrupted_there_is_nothing_to_resume(
    ratings: Path, folder: Path, tmp_path: Path, there: bool
) -> None:
    out = folder if there else tmp_path / "new"
    before = on_disk(tmp_path)
    line = retract(*command(ratings, out, "--resume")).refusal()
    assert line == f"error: {out} holds no interrupted training: leave --resume out"
    assert on_disk(tmp_path) == before


def stop_after(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C when the place of a training is kept after so many rounds."""
    keep = Place.keep

    def kept(place: Place, checkpoint: Callable[[], Checkpoint]) -> None:
        keep(place, checkpoint)
        if (checkpoint().stage, checkpoint().done) == ("rounds", rounds):
            raise KeyboardInterrupt

    monkeypatch.setattr(Place, "keep", kept)
