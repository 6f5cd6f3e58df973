from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retract import plugins


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a package that has entry points: `install("retract.attacks", second="module:NAME")`."""

    def put(group: str, **entries: str) -> None:
        room = tmp_path / "installed"
        about = room / "other-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
        lines = [f"[{group}]", *(f"{name} = {path}" for name, path in entries.items())]
        (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(room))
        plugins._of_others.cache_clear()

    yield put
    monkeypatch.undo()
    plugins._of_others.cache_clear()
