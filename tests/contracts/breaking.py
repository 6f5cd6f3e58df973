"""Running a suite on an implementation that is known to be broken: a statement that nothing can break says nothing."""

from __future__ import annotations

import pytest


def broken_statements(suite: type) -> set[str]:
    """Names of the suite's statements that its implementation does not pass."""
    found = set()
    for name in dir(suite):
        if name.startswith("test_"):
            try:
                getattr(suite(), name)()
            except (Exception, pytest.fail.Exception):
                found.add(name)
    return found
