"""A certificate for people: what it says follows its figures, and no certificate can break the page."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retract.auditing.certificate import Certificate, read, sign
from retract.report.certificate import NOT_PROMISED, Shown, day, sentence, to_html, to_text, write_certificates
from retract.stores.keys import fingerprint
from tests.auditing.statements import KEY, STATEMENT

MODEL = {"attack_auc": 0.8, "attack_low": 0.7, "attack_high": 0.9, "rank_mean": 0.12, "recall@20": 0.25}
AUDIT = {
    "verdict": "not yet",
    "because": "Not yet: it <still> stands out.",
    "reason": "still there",
    "before": MODEL,
    "after": {**MODEL, "attack_auc": 0.6, "attack_low": 0.52, "attack_high": 0.68},
    "oracle": {**MODEL, "attack_auc": 0.53, "rank_mean": 0.34},
    "parameter_distance": 0.02,
    "parameter_distance_before": 0.5,
}


def certificate(**figures: Any) -> Certificate:
    return read(sign(replace(STATEMENT, figures=figures), KEY), "it")


def page(one: Certificate, **changes: Any) -> str:
    shown = {"source": "1.json", "raw": '{"a": "<b>"}', "checked": ["Yes."], "unchecked": ["No."], **changes}
    return to_html([Shown(one, **shown)])


def text_of(content: str) -> str:
    body = content[content.index("<body") :]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body)))


@pytest.mark.parametrize(
    ("changes", "headline", "plain"),
    [
        ({}, "Not yet forgotten", "can still be found in the model, more than in a model that never had it"),
        ({"verdict": "forgotten", "reason": "like the oracle"}, "✓ Forgotten", "no better than in a model that never"),
        ({"verdict": "forgotten", "reason": "same parameters"}, "✓ Forgotten", "the same, number for number"),
        ({"verdict": "cannot be told", "reason": "no oracle", "oracle": None}, "Cannot be told", "None was made"),
    ],
)
def test_the_verdict_stands_in_plain_words_above_the_figures(changes: Any, headline: str, plain: str) -> None:
    text = text_of(page(certificate(erase={**AUDIT, **changes})))
    assert text.index(headline) < text.index(plain) < text.index("Found by an attacker")


def test_every_figure_stands_beside_what_it_should_be() -> None:
    text = text_of(page(certificate(erase=AUDIT))).replace("\u202f", " ")
    assert "80 % (70–90 %) 60 % (52–68 %) near 53 %" in text
    assert "12.0 % 12.0 % near 34.0 %" in text
    assert "0.50 0.020 0" in text
    without = text_of(page(certificate(erase={**AUDIT, "oracle": None}))).replace("\u202f", " ")
    assert "60 % (52–68 %) not known" in without


def test_it_says_what_was_asked_who_signed_and_what_is_not_promised() -> None:
    text = text_of(page(certificate(erase=AUDIT)))
    assert "2 requests to withdraw 4 interactions" in text
    assert "1 July 2026, 10:00 UTC" in text
    assert fingerprint(KEY.public_key()) in text
    assert all(said in text for said in (*NOT_PROMISED, "Yes.", "No."))


def test_the_page_stands_alone_and_everything_in_it_is_text() -> None:
    content = page(certificate(erase=AUDIT), source="<img src=x>")
    assert "<script" not in content
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', content)
    assert "<still>" not in content
    assert "<img" not in content
    assert '{"a": "<b>"}' in html.unescape(content)
    ids = re.findall(r'\bid="([^"]*)"', content)
    assert len(ids) == len(set(ids)) > 0


@pytest.mark.parametrize("figures", [{}, STATEMENT.figures, {"erase": {"after": {}}}], ids=["none", "odd", "bare"])
def test_a_certificate_of_any_figures_is_shown(figures: Any) -> None:
    text = text_of(page(certificate(**figures)))
    assert not re.search(r"\b(nan|None)\b", text)
    assert ("Nothing to forget" in text) == ("erase" not in figures)


def test_many_certificates_make_one_page() -> None:
    one = Shown(certificate(erase=AUDIT), "1.json", "{}", [], [])
    content = to_html([one, one])
    assert "Certificate of forgetting 2 of 2" in content
    ids = re.findall(r'\bid="([^"]*)"', content)
    assert len(ids) == len(set(ids))


def test_a_few_lines_say_the_same() -> None:
    said = to_text(certificate(erase=AUDIT, unshare={**AUDIT, "verdict": "forgotten", "reason": "like the oracle"}))
    assert said[0] == "2 requests to withdraw 4 interactions, applied to exact on 27 July 2026, 10:00 UTC."
    assert said[1].startswith("Not yet forgotten (erasure). The withdrawn data can still be found")
    assert said[2].startswith("Forgotten (withdrawal). Somebody who tries")


def test_a_phrase_of_verifying_becomes_a_sentence() -> None:
    assert sentence("whose key it is: --key says") == "Whose key it is: --key says."


def test_a_time_is_written_as_people_do_and_other_text_is_left() -> None:
    assert day("2026-07-01T10:05:00+00:00") == "1 July 2026, 10:05 UTC"
    assert day("x") == "x"


def test_it_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    path = write_certificates(tmp_path / "deep" / "c.html", [Shown(certificate(erase=AUDIT), "1", "{}", [], [])])
    assert "<html" in path.read_text()
