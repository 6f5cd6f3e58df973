"""The snippets of docs/privacy-of-rounds.md run as they stand, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "privacy-of-rounds.md"


@pytest.mark.slow
def test_the_pages_snippets_run(capsys: pytest.CaptureFixture[str]) -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(snippets) == 3
    known: dict[str, object] = {}
    for snippet in snippets:
        exec(snippet, known)
    assert "epsilon" in capsys.readouterr().out
