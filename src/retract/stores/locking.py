"""Who may change a folder: locks that the kernel drops when their holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retract.errors import FolderError


@contextmanager
def locked(path: Path, *, wait: bool = True, busy: str = "") -> Iterator[None]:
    """Hold the lock file `path`, made where it is missing, alone. Not reentrant.

    Parameters
    ----------
    wait
        Whether to wait for whoever holds it.
    busy
        What to say instead of waiting.

    Raises
    ------
    FolderError
        If somebody else holds it and `wait` is not set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise FolderError(busy) from None
    try:
        yield
    finally:
        os.close(descriptor)
