"""Ctrl-C and kill -9: a whole state is left, and after Ctrl-C one line says which."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from retract.cli import main
from retract.cli.output import telling_what_is_left
from retract.cli.refusals import InterruptedRunError
from tests.cli.commands import Answer, on_disk, retract, start

ENDLESS = 10**6

ROOT = Path(__file__).resolve().parents[2]


def interrupted(stage: str, *arguments: object, once: Path | None = None) -> Answer:
    """Start a command with a terminal for its stderr; press Ctrl-C when the bar of `stage` moves and a file exists."""
    terminal, its_end = pty.openpty()
    with start(*arguments, stderr=its_end) as process:
        os.close(its_end)
        shown = ""
        while stage not in shown:
            shown += os.read(terminal, 4096).decode(errors="replace")
        while once is not None and not once.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    last = b""
    try:
        while part := os.read(terminal, 4096):
            last += part
    except OSError:  # as Linux says that nobody holds the other end
        pass
    os.close(terminal)
    return Answer(process.returncode, out.decode(), last.decode(errors="replace"))


def endless(data: Path, out: Path, *settings: str) -> list[object]:
    pairs = ["dimension=4", "start_rounds=2", *settings]
    chosen = ["--data", data, "--out", out, "--share", 0.5]
    return ["train", "fedshare", *chosen, *(text for pair in pairs for text in ("--set", pair))]


@pytest.mark.parametrize("over", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ctrl_c_while_training_leaves_what_was_there(ratings: Path, folder: Path, over: bool) -> None:
    room, out = folder.parent, folder if over else folder.parent / "new"
    before = on_disk(room)
    answer = interrupted("training", *endless(ratings, out, f"rounds={ENDLESS}"), *(["--force"] if over else []))
    assert (answer.code, answer.out) == (130, "")
    left = f"{out} is as it was" if over else f"{out} was not made"
    assert answer.err.rstrip().endswith(f"interrupted: {left}; nothing was written: run it again")
    assert "Traceback" not in answer.err
    assert on_disk(room) == before


@pytest.mark.slow
def test_ctrl_c_while_training_says_where_it_can_be_resumed_once_its_place_is_kept(
    ratings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = endless(ratings, out, f"rounds={ENDLESS}")
    answer = interrupted("training", *command, "--keep-every", 0, once=out / "server" / "training" / "place.json")
    assert (answer.code, answer.out) == (130, "")
    told = r"interrupted: .*/run: the training is kept as of rounds, step \d+; run it again with --resume to go on$"
    assert re.search(told, answer.err.rstrip()), answer.err
    assert not (out / "server" / "current").exists()
    before = on_disk(out)
    assert re.search(r"holds an interrupted training \(rounds, step \d+\): --resume", retract(*command).refusal())
    for changed in (["--share", 1], ["--seed", 1], ["--set", "dimension=5"]):
        assert retract(*command, "--resume", *changed).refusal()
    assert on_disk(out) == before


@pytest.mark.slow
def test_ctrl_c_while_unlearning_leaves_the_request_pending(ratings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert retract(*endless(ratings, out, "rounds=2", "form=paper", f"unlearn_rounds={ENDLESS}")).code == 0
    assert retract("unshare", out, "--user", "u1").code == 0
    before = on_disk(tmp_path)
    answer = interrupted("unlearning", "unlearn", out, "--json")
    told = json.loads(answer.out)
    assert (answer.code, told["code"], told["error"], told["where"]) == (130, 130, "interrupted", str(out))
    assert answer.err.rstrip().endswith(f"interrupted: {out} is as it was; nothing was written: run it again")
    now = on_disk(tmp_path)
    assert now.keys() == before.keys()
    changed = [name for name in now if now[name] != before[name]]
    assert [Path(name).name for name in changed] == ["ledger.jsonl"]  # it says: claimed, released
    (request,) = retract("status", out, "--json").json["requests"]
    assert request["status"] == "pending"


def test_ctrl_c_after_the_state_was_saved_says_so(tmp_path: Path) -> None:
    def save_and_stop() -> None:
        with telling_what_is_left(tmp_path, "marker"):
            (tmp_path / "marker").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="was already saved and holds the new state"):
        save_and_stop()


def test_ctrl_c_while_the_commands_load_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupting:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "retract.cli.run":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "retract.cli.run")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    assert main(["--version"]) == 130
    assert capsys.readouterr().err == "interrupted: nothing was written\n"
