"""From a command line to an exit code, every error being one line on stderr."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from retract.cli.app import app
from retract.cli.output import InterruptedRunError
from retract.errors import RetractError

COMMANDS = ("training", "serving", "forgetting", "audit", "compare")
"""The modules whose commands these are, in the order of `--help`."""
for _module in COMMANDS:
    import_module(f"retract.cli.{_module}")

GOOD, OUR_FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_ABOUT_A_GIVEN_PATH = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a title must not fail on a narrow terminal encoding
    try:
        code = app(list(arguments), prog_name="retract", standalone_mode=False)
        if code == INTERRUPTED:  # as typer reports a Ctrl-C that no command made more of
            sys.stderr.write("interrupted\n")
    except Exception as error:
        if os.environ.get("RETRACT_DEBUG") == "1":
            traceback.print_exc()
        code, text = _judge(error)
        sys.stderr.write(" ".join(text.split()) + "\n")
    return int(code or GOOD)


def _judge(error: Exception) -> tuple[int, str]:
    """Exit code and line of an error."""
    if isinstance(error, InterruptedRunError):
        return INTERRUPTED, f"interrupted: {error}"
    if isinstance(error, RetractError):
        return BAD_INPUT, f"error: {error}"
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        return BAD_INPUT, f"error: {error.format_message().rstrip('.')}{hint}"
    if isinstance(error, OSError) and error.errno in _ABOUT_A_GIVEN_PATH and error.filename is not None:
        return BAD_INPUT, f"error: {os.fsdecode(error.filename)}: {error.strerror}"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return OUR_FAULT, f"error: {what}. This is our fault; RETRACT_DEBUG=1 shows where it happened"
