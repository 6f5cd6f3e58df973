"""The command as scripts and people run it, on small data with little to do."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retract.cli import main
from tests.stores.folders import TINY, on_disk

__all__ = ["SETTINGS", "Answer", "in_process_of_its_own", "on_disk", "retract", "start", "write_ratings"]

SETTINGS = ["--share=0.5", "--test=0.2", *(f"--set={name}={value}" for name, value in TINY.items())]
"""Of a small FedShare, half shared and a fifth held out; an option that follows goes before one of these."""


class Answer(NamedTuple):
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    def refusal(self) -> str:
        """The one line of a bad input; where JSON was asked for, the object on stdout says the same."""
        assert self.code == 2, self
        if self.out:
            told = json.loads(self.out)
            assert list(told) == ["error", "what", "where", "hint", "code"]
            assert self.err.endswith(f"error: {told['what']}\n")
            assert told["code"] == 2
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        return self.err.strip()


def retract(*arguments: object) -> Answer:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


def start(*arguments: object, **streams: Any) -> subprocess.Popen[bytes]:
    """Start a command as a process of its own, which Ctrl-C reaches even where the tests run in the background."""
    command = [sys.executable, "-c", "import sys; from retract.cli import main; sys.exit(main())"]
    return subprocess.Popen(
        [*command, *(str(argument) for argument in arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


def in_process_of_its_own(*arguments: object) -> Answer:
    """Run a command as scripts do."""
    with start(*arguments) as process:
        out, err = process.communicate(timeout=60)
    return Answer(process.returncode, out.decode(), err.decode())


def write_ratings(path: Path, n_users: int = 12, n_items: int = 15) -> Path:
    """A file of users u0, u1, ... with five ratings each."""
    draw = np.random.default_rng(0)
    picked = [(user, item) for user in range(n_users) for item in draw.choice(n_items, 5, replace=False)]
    rows = [f"u{user},i{item},{draw.integers(1, 6)}" for user, item in picked]
    path.write_text("\n".join(["user,item,rating", *rows]) + "\n")
    return path
