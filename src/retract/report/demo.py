"""`retract demo`: the story as a page to look at, and its figures as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from retract.atomic import write_atomically
from retract.report import findings
from retract.report.facts import Group, Level, Story, Trace, Trio
from retract.report.page import Setting, render

PAGE, FIGURES = "index.html", "figures.json"


def write_demo(out: Path, story: Story, setting: Setting) -> dict[str, Any]:
    """Write a story to a folder.

    Parameters
    ----------
    out
        The folder; made where it is missing. Only `index.html` and `figures.json` in it are written.
    story
        From `retract.auditing.demo.tell`.
    setting
        Where and when it was told; see `Setting.here`.

    Returns
    -------
    dict
        The figures, and the page's path under "report".

    Raises
    ------
    MissingExtraError
        If the packages that draw pages are not installed; nothing is written then.
    """
    page = render(story, setting)
    figures = summary(story) | {"seconds": round(setting.seconds, 2)}
    write_atomically(out / PAGE, page.encode())
    write_atomically(out / FIGURES, (json.dumps(figures, indent=1) + "\n").encode())
    return figures | {"report": str(out / PAGE)}


def summary(story: Story) -> dict[str, Any]:
    """The story's figures, ready for JSON; what was not measured is None."""
    about, costs = story.about, story.costs
    return {
        "data": about.data,
        "seed": about.seed,
        "users": about.users,
        "items": about.items,
        "interactions": about.interactions,
        "sharing": [_level(level) for level in story.levels],
        "share_ratio": story.ratio,
        "withdrawers": story.withdrawers,
        "forgotten": story.withdrawn,
        "rank_device": _trace(story.device),
        "rank_server": _trace(story.server),
        "verdict": story.verdict[0],
        "because": story.verdict[1],
        "groups": [_group(group) for group in story.groups],
        "agreement": {"k": story.agreement.k, "before": story.agreement.before, "after": story.agreement.after},
        "unlearn_seconds": round(costs.unlearning.seconds, 4),
        "oracle_seconds": round(costs.retraining.seconds, 4),
        "speedup": round(costs.retraining.seconds / max(costs.unlearning.seconds, 1e-9), 2),
        "memory_bytes": costs.memory,
        "update_log_bytes": costs.update_log,
        "unlearn_bytes": {"up": costs.unlearning.bytes_up, "down": costs.unlearning.bytes_down},
        "oracle_bytes": {"up": costs.retraining.bytes_up, "down": costs.retraining.bytes_down},
    }


def _level(level: Level) -> dict[str, Any]:
    return {
        "ratio": level.ratio,
        "recall@20": _number(level.accuracy.recall),
        "ndcg@20": _number(level.accuracy.ndcg),
        "seconds": round(level.seconds, 3),
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "users": group.users,
        "recall@20": _trio(group.accuracy.map(lambda accuracy: accuracy.recall)),
        "ndcg@20": _trio(group.accuracy.map(lambda accuracy: accuracy.ndcg)),
    }


def _trace(trace: Trace) -> dict[str, Any]:
    return _trio(trace.means) | {"gap_closed": _number(findings.closed_part(trace))}


def _trio(trio: Trio[float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in trio.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
