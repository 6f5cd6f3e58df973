"""The commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the entry point of `retract`.

    Parameters
    ----------
    arguments
        Those of the command line unless given.

    Returns
    -------
    int
        The exit code: 0 good, 2 bad input, 1 our fault, 130 interrupted.
    """
    try:
        from retract.cli.run import run  # here, so that an interrupt while this loads is handled too

        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was written\n")
        return 130
