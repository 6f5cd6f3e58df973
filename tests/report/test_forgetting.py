from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from retract.auditing.external import audit_scores
from retract.report.forgetting import to_html, write_forgetting
from tests.auditing.test_external import BEFORE, EVERYTHING, FORGET, LEFT, ORACLE, RETRAINED


def text_of(page: str) -> str:
    class Text(HTMLParser):
        found = ""

        def handle_data(self, data: str) -> None:
            self.found += data

    reader = Text()
    reader.feed(re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))
    return " ".join(reader.found.split())


@pytest.mark.slow
def test_the_page_says_the_verdict_with_the_figures_that_it_goes_by(tmp_path: Path) -> None:
    audit = audit_scores(BEFORE, RETRAINED, oracle=ORACLE, forget=FORGET, history=LEFT)
    path = write_forgetting(
        tmp_path / "new" / "page.html", audit, {"command": "retract audit --before <b>", "Data": "d"}
    )
    page = path.read_text(encoding="utf-8")
    text = text_of(page)
    assert "It forgot" in text
    assert audit.verdict.text in text
    for _, *cells in audit.table()[1]:
        assert all(cell in text for cell in cells)
    assert "retract audit --before <b>" in text
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_without_an_oracle_the_page_shows_none_and_says_what_decides() -> None:
    audit = audit_scores(BEFORE, RETRAINED, forget=FORGET, items=EVERYTHING.catalog.item_ids)
    text = text_of(to_html(audit, {}))
    assert "Whether it forgot cannot be told" in text
    assert "a random item" in text
    assert audit.notes[0] in text
    assert "KS distance to the oracle" not in text


def test_names_are_shown_as_they_are() -> None:
    audit = audit_scores(BEFORE, BEFORE, oracle=ORACLE, forget=FORGET, history=LEFT)
    page = to_html(audit, {"Data": "<img src=x>", "Nothing": None})
    assert "It has not forgotten" in page
    assert "&lt;img src=x&gt;" in page
    assert "Nothing" not in page


def test_without_the_packages_that_draw_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retract.errors import MissingExtraError

    audit = audit_scores(BEFORE, BEFORE, forget=FORGET, history=LEFT)
    monkeypatch.setattr("retract.systems.checks.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"retract\[report\]"):
        write_forgetting(tmp_path / "page.html", audit)
    assert not list(tmp_path.iterdir())
