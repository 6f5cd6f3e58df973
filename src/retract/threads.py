"""How many threads a process computes with. It is told by the environment, which every library of numbers reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """The threads that this process was given: OMP_NUM_THREADS, or else its cores."""
    first = os.environ.get(VARIABLES[0], "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else cores()


@contextmanager
def given_to_children(count: int) -> Iterator[None]:
    """Processes that are started meanwhile compute with so many threads; this one goes on with its own."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def take(count: int) -> None:
    """Compute with so many threads where torch is loaded already, which reads the environment only once."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


@cache
def two_threads() -> ThreadPoolExecutor:
    """Two that wait for work, for what is bound by memory: to make them anew takes as long as such work itself."""
    return ThreadPoolExecutor(2)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=two_threads.cache_clear)  # a fork has none of them
