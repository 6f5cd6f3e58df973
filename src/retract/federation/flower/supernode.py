"""Flower's SuperNode, as a process that ends with its starter.

python -m retract.federation.flower.supernode PARENT_PID [Flower's options]
"""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> None:
    """Run the SuperNode until it is ended, or its parent has."""
    from flwr.supercore.app_utils import start_parent_process_monitor
    from flwr.supernode.cli import flower_supernode

    start_parent_process_monitor(int(arguments[0]))
    sys.argv = ["flower-supernode", *arguments[1:]]
    flower_supernode()


if __name__ == "__main__":
    main(sys.argv[1:])
