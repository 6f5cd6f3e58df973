"""`retract demo`: the whole story on real data, from choosing what to share to the report."""

from __future__ import annotations

import json
import math
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retract.data import load
from retract.report import findings
from retract.report.facts import Group, Level, Story, Trace, Trio
from retract.report.page import Setting, describe_machine, describe_versions, render
from retract.report.story import tell
from retract.systems.base import Progress, Stopwatch, no_progress
from retract.systems.fedshare import FedShareConfig
from retract.systems.storage import write_atomically

PAGE, FIGURES = "index.html", "figures.json"
SMALL = FedShareConfig(
    regularisation=0.4,
    server_regularisation=0.3,
    layers=3,
    spectral_scale=0.02,
    server_steps=100,
    server_rate=0.02,
    server_part=1.0,
)
"""Settings for data as small as MovieLens-small; chosen on a tenth of its train part, held out for that."""


def run_demo(
    out: Path,
    *,
    data: str = "movielens-small",
    seed: int = 0,
    progress: Progress = no_progress,
    config: FedShareConfig = SMALL,
) -> dict[str, Any]:
    """Tell the story and write it to a folder: a page to look at and the figures as JSON.

    Parameters
    ----------
    out
        The folder; made where it is missing. Only `index.html` and `figures.json` in it are written.
    data
        A file, or the name of a data set that retract knows.
    seed
        Key of every draw.
    progress
        Called as (stage, done, total).
    config
        Settings of FedShare; those for small data unless given.

    Returns
    -------
    dict
        The figures, and the page's path under "report".
    """
    watch = Stopwatch()
    progress("loading the data", 0, 1)
    dataset = load(data)
    progress("loading the data", 1, 1)
    story = tell(dataset, seed=seed, config=config, progress=progress)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    progress("writing the report", 0, 1)
    command = shlex.join(["retract", "demo", "--data", data, "--seed", str(seed), "--out", "demo"])
    setting = Setting(command, describe_machine(), describe_versions(), made, watch.seconds)
    figures = summary(story) | {"seconds": round(watch.seconds, 2)}
    write_atomically(out / PAGE, render(story, setting).encode())
    write_atomically(out / FIGURES, (json.dumps(figures, indent=1) + "\n").encode())
    progress("writing the report", 1, 1)
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
