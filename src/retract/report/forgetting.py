"""The page on an audit of scores: whether a recommender forgot, with what shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from retract.atomic import write_atomically
from retract.report import wording
from retract.report.page import describe_versions, fill, require_page

if TYPE_CHECKING:
    from retract.auditing.standing import ScoreAudit

HEADLINES = {
    "forgotten": "It forgot",
    "not yet": "It has not forgotten yet",
    "cannot be told": "Whether it forgot cannot be told",
}


def write_forgetting(path: Path, audit: ScoreAudit, about: Mapping[str, object] | None = None) -> Path:
    """Write the page of an audit of scores, atomically.

    Parameters
    ----------
    path
        The HTML file; its folder is made where it is missing.
    audit
        From `retract.auditing.external` or `score_files`.
    about
        Where it comes from, as names and values for people: files, data, the date. "command" is shown as a command.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    MissingExtraError
        If the packages that draw pages are not installed; nothing is written then.
    """
    write_atomically(path, to_html(audit, about or {}).encode())
    return path


def to_html(audit: ScoreAudit, about: Mapping[str, object]) -> str:
    """The page."""
    require_page()
    from markupsafe import Markup

    from retract.report.plots_forgetting import places, standing

    heads, rows = audit.table()
    facts = {name: value for name, value in about.items() if name != "command" and value is not None}
    return fill(
        "forgetting.html.j2",
        audit=audit,
        headline=HEADLINES[audit.verdict.word],
        heads=heads,
        ranges=[wording.ranged(one.attack_auc, one.attack_low, one.attack_high) for one in audit.models.values()],
        leak=wording.leak(audit.to_json()),
        rows=rows,
        charts={"standing": Markup(standing(audit, "standing")), "places": Markup(places(audit.ranks, "places"))},
        command=about.get("command"),
        facts={**facts, "Versions": describe_versions()},
        signed=wording.signed,
    )
