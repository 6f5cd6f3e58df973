"""From a command line to an exit code, every error being one line on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from retract.cli.app import app
from retract.cli.refusals import GOOD, INTERRUPTED, refusal

COMMANDS = ("training", "settings", "serving", "forgetting", "audit", "compare", "federate", "federate_node")
"""The modules whose commands these are, in the order of `--help`."""
for _module in COMMANDS:
    import_module(f"retract.cli.{_module}")


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a title must not fail on a narrow terminal encoding
    try:
        code = app(list(arguments), prog_name="retract", standalone_mode=False)
        if code == INTERRUPTED:  # as typer reports a Ctrl-C that no command made more of
            return _refuse(KeyboardInterrupt(), arguments)
    except Exception as error:
        if os.environ.get("RETRACT_DEBUG") == "1":
            traceback.print_exc()
        return _refuse(error, arguments)
    return int(code or GOOD)


def _refuse(error: BaseException, arguments: Sequence[str]) -> int:
    """Tell people an error on stderr, and scripts on stdout where they asked for JSON; the exit code."""
    told = refusal(error, arguments)
    sys.stderr.write(told.line + "\n")
    if "--json" in arguments:
        with suppress(OSError):  # where nothing can be printed, the exit code says it
            sys.stdout.write(json.dumps(told.to_json()) + "\n")
            sys.stdout.flush()
    return told.code
