"""What the machine has to give: memory, as far as the system tells."""

from __future__ import annotations

import os
import re
import resource
from contextlib import suppress
from pathlib import Path

_GROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where a container's limit stands and what it uses, below the root: control groups of version 2, and of version 1."""


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that a process can still take; None where the system does not tell.

    The least of what the machine has free, what the process's container leaves, and what the process's own limit on its
    address space leaves.

    Parameters
    ----------
    root
        Where `proc` and `sys` lie.
    """
    known = [_free(root), *(_of_group(root, limit, used) for limit, used in _GROUPS), _of_process(root)]
    told = [number for number in known if number is not None]
    return max(0, min(told)) if told else None


def _free(root: Path) -> int | None:
    """What the machine has free: on Linux with what its caches would give back; elsewhere all that it has."""
    with suppress(OSError, AttributeError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", (root / "proc/meminfo").read_text(), re.MULTILINE)
        return int(found.group(1)) * 1024  # type: ignore[union-attr]
    with suppress(OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_group(root: Path, limit: str, used: str) -> int | None:
    with suppress(OSError, ValueError):  # "max" is no number
        return int((root / limit).read_text()) - int((root / used).read_text())
    return None


def _of_process(root: Path) -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    with suppress(OSError, ValueError):
        return limit - int((root / "proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return limit
