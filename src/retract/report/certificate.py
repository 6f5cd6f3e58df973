"""A certificate for people: a few lines of text, and a page that a data protection officer can file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retract.atomic import write_atomically
from retract.report import wording
from retract.report.page import fill, require_page

if TYPE_CHECKING:
    from retract.auditing.certificate import Certificate

HEADLINES = {"forgotten": "Forgotten", "not yet": "Not yet forgotten", "cannot be told": "Cannot be told"}
KINDS = {
    "erase": ("Erasure", "the data is to be gone from the service, the model and the person’s own device"),
    "unshare": ("Withdrawal", "the service and the model are to forget it; the person’s own device keeps it"),
}
PLAIN = {
    "same parameters": "The model is now the same, number for number, as one that was trained without this data.",
    "like the oracle": "Somebody who tries to find the withdrawn data in the model does no better than in a model "
    "that never had it.",
    "still there": "The withdrawn data can still be found in the model, more than in a model that never had it.",
    "over-forgot": "The model now avoids what was withdrawn, more than a model that never had it. That, too, gives "
    "away that it was there.",
    "attack sees nothing": "The test could not find this data even before it was withdrawn. That it does not find it "
    "now shows nothing.",
    "not enough data": "Too few people withdrew data for the test to come to a result.",
    "no oracle": "The test needs a second model to compare with, trained without the data. None was made.",
}
"""What a verdict's reason says to somebody who knows no statistics."""
NOT_PROMISED = (
    "That no trace is left. It shows which procedure ran and what it was measured to do; no signature and no hash can "
    "show that nothing remains.",
    "Anything about other places: backups, logs, exports, older copies of the model, or data that others hold.",
    "That stronger tests would find nothing. The test that was run is one of several that are known.",
    "That the signer is who you think: compare the key’s fingerprint over another way, such as by telephone.",
)
NEVER = (
    "Whether the figures are right. They were measured while the data was still there, so nobody can measure them "
    "again; the signer answers for them."
)
SIZES = {
    "rank_mean": (
        "Place in the list",
        "Where what was withdrawn stands in its owner’s list of suggestions: 0 % is the top, 100 % the bottom. People "
        "may like such items anyway, so it need not be at the bottom.",
    ),
    "recall@20": (
        "Quality of the suggestions",
        "Of what people went on to choose, the part that stood among 20 suggestions (Recall@20). Forgetting should "
        "cost no more than training without the data does.",
    ),
}
"""Figures beside the attack's, by their names in the JSON: what people call them, and what they say."""


@dataclass(frozen=True)
class Shown:
    """A certificate and what was checked of it.

    Parameters
    ----------
    certificate
        Whose signature holds.
    source
        The file's name.
    raw
        The file's text.
    checked, unchecked
        What was checked and holds, and what was not, as sentences.
    """

    certificate: Certificate
    source: str
    raw: str
    checked: Sequence[str]
    unchecked: Sequence[str]


def sentence(phrase: str) -> str:
    """A phrase of verifying as a sentence."""
    return f"{phrase[:1].upper()}{phrase[1:]}."


@dataclass(frozen=True)
class Figure:
    """One figure beside what it should be; text for people, a dash where nothing was measured."""

    name: str
    before: str
    after: str
    reference: str
    says: str


@dataclass(frozen=True)
class Finding:
    """What the audit of one kind of request found.

    Parameters
    ----------
    kind
        "erase" or "unshare".
    word, headline
        The verdict for scripts and for people.
    plain
        The same for who knows no statistics.
    because
        The sentences of the audit, figures in them.
    figures
        Each beside what it should be.
    """

    kind: str
    word: str
    headline: str
    plain: str
    because: str
    figures: Sequence[Figure] = field(default_factory=tuple)


def write_certificates(path: Path, shown: Sequence[Shown]) -> Path:
    """Write the page of some certificates, atomically.

    Parameters
    ----------
    path
        The HTML file; its folder is made where it is missing.

    Raises
    ------
    MissingExtraError
        If the packages that draw pages are not installed; nothing is written then.
    """
    write_atomically(path, to_html(shown).encode())
    return path


def to_html(shown: Sequence[Shown]) -> str:
    """The page: one file, without a script, that loads nothing."""
    require_page()
    from retract.stores.keys import fingerprint

    return fill(
        "certificate.html.j2",
        shown=[{"one": one, "findings": list(findings(one.certificate))} for one in shown],
        kinds=KINDS,
        not_promised=NOT_PROMISED,
        made=day(datetime.now(UTC).isoformat()),
        day=day,
        asked=asked,
        fingerprint=fingerprint,
    )


def to_text(certificate: Certificate) -> list[str]:
    """The same in a few lines, for a terminal."""
    said = [f"{asked(certificate)}, applied to {certificate.system} on {day(certificate.issued)}."]
    return said + [f"{one.headline}{_of(one.kind)}. {one.plain or one.because}" for one in findings(certificate)]


def findings(certificate: Certificate) -> Iterator[Finding]:
    """What its audits found, one for each kind of request; of what no model had learnt there is no audit."""
    audits = {kind: audit for kind, audit in certificate.figures.items() if _is_audit(audit)}
    for kind, audit in audits.items():
        word, because = wording.verdict(audit)
        plain = PLAIN.get(str(audit.get("reason")), "")
        yield Finding(kind, word, HEADLINES.get(word, str(word)), plain, because, tuple(_figures(audit)))
    if not audits:
        plain = "The model had learnt nothing of what was withdrawn, so it stayed as it was and nothing was measured."
        yield Finding("", "forgotten", "Nothing to forget", plain, "")


def asked(certificate: Certificate) -> str:
    """How many requests named how much."""
    requests, count = len(certificate.requests), sum(one.count for one in certificate.requests)
    return f"{_many(requests, 'request')} to withdraw {_many(count, 'interaction')}"


def day(text: str) -> str:
    """A time as people write it, 27 July 2026, 10:00 UTC; what is none is shown as it is."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{at.day} {at:%B %Y, %H:%M}{' UTC' if at.tzinfo is not None and not at.utcoffset() else ''}"


def _figures(audit: Mapping[str, Any]) -> Iterator[Figure]:
    """The figures that a reader can do something with, each beside the oracle's."""
    before, after, oracle = (audit.get(name) or {} for name in ("before", "after", "oracle"))
    says = (
        "Somebody is shown a withdrawn item and another one and says which was withdrawn, going by the model; so often "
        "that is right, and 50 % is guessing. In brackets: where the true figure may lie, so few people being counted."
    )
    reference = wording.percent(_number(oracle.get("attack_auc")))
    yield Figure("Found by an attacker", _attack(before), _attack(after), reference, says)
    for key, (name, means) in ((key, told) for key, told in SIZES.items() if after.get(key) is not None):
        shown = [wording.percent(_number(one.get(key)), 1) for one in (before, after, oracle)]
        yield Figure(name, shown[0], shown[1], shown[2], means)
    now = _number(audit.get("parameter_distance"))
    if not math.isnan(now):
        first = _small(_number(audit.get("parameter_distance_before")))
        text = "How far the numbers that make up the model are from those of the model trained without the data."
        yield Figure("Distance to a model trained without", first, _small(now), "0", text)


def _attack(model: Mapping[str, Any]) -> str:
    value, low, high = (_number(model.get(f"attack_{name}")) for name in ("auc", "low", "high"))
    if math.isnan(value):
        return "–"
    return f"{wording.percent(value)} ({100 * low:.0f}–{wording.percent(high)})"


def _small(distance: float) -> str:
    if math.isnan(distance):
        return "–"
    return "0, but for rounding" if distance <= 1e-9 else wording.significant(distance, 2)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _is_audit(found: Any) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get("after"), Mapping)


def _of(kind: str) -> str:
    return f" ({KINDS[kind][0].lower()})" if kind in KINDS else ""


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
