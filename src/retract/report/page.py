"""One self-contained HTML page: no script, nothing fetched from elsewhere."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retract.report import findings, wording
from retract.report.entries import Block, Entry, Spread
from retract.report.facts import Story
from retract.systems.checks import require_extra
from retract.threads import cores
from retract.version import __version__

Show = Callable[[Entry, str], str]
Groups = Sequence[tuple[str, Sequence[tuple[str, str, Show]]]]

PACKAGES = ("torch", "numpy", "scipy")
ABOUT = {
    "data": "Data",
    "users": "Users",
    "items": "Items",
    "interactions": "Interactions",
    "split": "Split",
    "share": "Shared",
    "kind": "Request",
    "seeds": "Seeds",
    "machine": "Machine",
    "cores": "Cores",
    "threads": "Threads",
}
"""What is told of a comparison, in this order; what else is known of it follows on the page."""
ATTACK = re.compile(r"attack_(.+)_auc_(?:before|after|oracle)")
"""The columns of attacks that were run by name."""


@dataclass(frozen=True)
class Setting:
    """Where and when a page was made.

    Parameters
    ----------
    command
        What makes the page again.
    machine, versions
        For people to read.
    made
        The day and time (UTC).
    seconds
        How long the whole story took.
    """

    command: str
    machine: str
    versions: str
    made: str
    seconds: float

    @classmethod
    def here(cls, command: str, seconds: float) -> Setting:
        """On the machine at hand, now."""
        made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return cls(command, describe_machine(), describe_versions(), made, seconds)


def describe_machine() -> str:
    """The processor, the cores this process may use, and the system."""
    return f"{_processor()}, {cores()} cores, {platform.system()}"


def describe_versions() -> str:
    """Versions of retract, Python and those of the packages that compute which are installed."""
    found = [f"retract {__version__}", f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def require_page() -> None:
    """Refuse to begin what ends in a page where the packages that draw it are missing.

    Raises
    ------
    MissingExtraError
        If they are.
    """
    for package in ("matplotlib", "jinja2"):
        require_extra("a page", "report", package)


def render(story: Story, setting: Setting) -> str:
    """The demo's HTML."""
    require_page()
    from retract.report.charts import figures_of

    return fill(
        "demo.html.j2",
        story=story,
        setting=setting,
        figures=figures_of(story),
        findings=findings,
        changed=changed_settings(story),
    )


def fill(name: str, **context: object) -> str:
    """A template's HTML; text is escaped, and what it asks for must be there."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("retract.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=wording.percent,
        metric=wording.metric,
        count=wording.count,
        significant=wording.significant,
        size=wording.size,
        seconds=wording.seconds,
    )
    return environment.get_template(name).render(context)


def changed_settings(story: Story) -> Mapping[str, object]:
    """The settings that differ from their defaults."""
    config = story.about.config
    defaults = type(config)()
    return {name: value for name, value in config if value != getattr(defaults, name)}


@dataclass(frozen=True)
class Table:
    """Columns in groups, a row for each entry.

    Parameters
    ----------
    caption
        What it shows.
    groups
        Head and columns of each group, a column being its head, its figure's key, and how that is shown.
    """

    caption: str
    groups: Groups

    def measured(self, entries: Sequence[Entry]) -> Table:
        """Without the columns that are empty for all entries."""
        groups = [
            (head, [column for column in columns if any(entry.of(column[1]).measured for entry in entries)])
            for head, columns in self.groups
        ]
        return Table(self.caption, [(head, columns) for head, columns in groups if columns])


def _attack(entry: Entry, key: str) -> str:
    """The attack's AUC on the model that a column is about."""
    return entry.auc(key.removeprefix("attack_auc_"))


def stored(spread: Spread) -> str:
    """Bytes, and their deviation as a part of them."""
    return spread.show(wording.kept, relative=True)


def plain(value: object) -> str:
    """A setting as text."""
    if isinstance(value, list | tuple):
        return ", ".join(plain(one) for one in value)
    return wording.count(value) if isinstance(value, int) else str(value)


def render_comparison(
    blocks: Sequence[Block],
    about: Mapping[str, Any],
    headline: str,
    findings: Sequence[Sequence[str]],
    standings: Mapping[str, Sequence[Entry]],
) -> str:
    """The HTML of `retract compare`: what each forget set says, in words, charts and tables."""
    require_page()
    from retract.auditing.verdict import MARGIN, UTILITY
    from retract.report.charts import charts_of

    told = {key: key.replace("_", " ").capitalize() for key in about if key not in ("command", "skipped")}
    told = {**ABOUT, **{key: head for key, head in told.items() if key not in ABOUT}}
    return fill(
        "comparison.html.j2",
        headline=headline,
        standings=standings,
        about={"command": None, "skipped": [], **about},
        facts={name: plain(about[key]) for key, name in told.items() if about.get(key) is not None},
        blocks=[
            {"block": block, "finding": said, **charts_of(block, f"set-{place}")}
            for place, (block, said) in enumerate(zip(blocks, findings, strict=True))
        ],
        tables=_tables(_attacks(blocks)),
        margin=MARGIN,
        utility=UTILITY,
    )


def _show(show: Callable[[float], str], relative: bool = False) -> Show:
    """Mean ± deviation of a figure that is shown so."""
    return lambda entry, key: entry.of(key).show(show, relative)


def _models(key: str, show: Show) -> list[tuple[str, str, Show]]:
    """A column for each model."""
    return [(model, f"{key}_{model}", show) for model in ("before", "after", "oracle")]


def _attacks(blocks: Sequence[Block]) -> list[str]:
    """Names of the attacks that were run beside the usual ones, in the order in which they first appear."""
    keys = (key for block in blocks for entry in block.entries for row in entry.rows for key in row)
    return list(dict.fromkeys(found[1] for key in keys if (found := ATTACK.fullmatch(key))))


def _tables(attacks: Sequence[str]) -> dict[str, Table]:
    """All tables of a forget set by name; `attacks` are those that were run beside the usual ones."""
    auc, accuracy, gap = _show(partial(wording.metric, digits=3)), _show(wording.metric), _show(wording.signed)
    time, ratio = _show(wording.seconds, relative=True), _show(wording.times, relative=True)
    kept, rounds = _show(wording.kept, relative=True), _show(partial(wording.metric, digits=1))
    main: Groups = [
        ("Attack AUC", [*_models("attack_auc", _attack), ("after − oracle", "difference", lambda entry, _: entry.gap)]),
        ("Recall@20", [(model, f"recall@20_{model}", accuracy) for model in ("after", "oracle")]),
        ("Time", [("unlearning", "seconds", time), ("against retraining", "speedup", ratio)]),
        ("Storage", [("kept", "memory_bytes", kept)]),
    ]
    more: Groups = [
        ("KS distance to the oracle", [("before", "ks_before", auc), ("after", "ks_after", auc)]),
        ("Recall@20", [("before", "recall@20_before", accuracy)]),
        ("NDCG@20", _models("ndcg@20", accuracy)),
        ("RMSE", _models("rmse", accuracy)),
        ("RMSE of the forgotten", _models("forgotten_rmse", accuracy)),
        ("Retraining", [("time", "oracle_seconds", time)]),
        ("AUC of the score alone", _models("score_auc", auc)),
        ("AUC of the rank alone", _models("rank_auc", auc)),
        *((f"AUC of attack {name}", _models(f"attack_{name}_auc", auc)) for name in attacks),
        ("Mean rank of the forgotten", _models("rank_mean", auc)),
        ("KS in the recommendations", [(one, f"ks_recommendations_{one}", auc) for one in ("before", "after")]),
        ("MI-BF", _models("mi_bf", auc)),
        ("MI-NG", _models("mi_ng", auc)),
        ("Rounds to relearn", _models("relearn_rounds", rounds)),
        ("Parameters", [("distance to the oracle", "parameter_distance", accuracy)]),
        ("Leakage", [("AUC of the difference", "difference_auc", auc)]),
        ("Withdrawers’ Recall@20", _models("withdrawers_recall@20", accuracy)),
        ("Withdrawers’ NDCG@20", _models("withdrawers_ndcg@20", accuracy)),
        ("Others’ Recall@20", _models("others_recall@20", accuracy)),
        ("Others’ NDCG@20", _models("others_ndcg@20", accuracy)),
        ("Spent before any request", [("training", "train_seconds", time), ("preparing", "prepare_seconds", time)]),
        ("Sent, simulated", [("unlearning", "bytes_sent", kept), ("retraining", "oracle_bytes_sent", kept)]),
        ("Rounds", [("unlearning", "rounds", rounds), ("retraining", "oracle_rounds", rounds)]),
    ]
    fair: Groups = [
        ("Sharers over others", _models("sharers_gap", gap)),
        ("More active half over less active", _models("active_gap", gap)),
    ]
    return {
        "main": Table(
            "Main figures, mean ± standard deviation over the seeds, of time and bytes as a part of the mean; from one "
            "seed an AUC has its 95 % interval; after − oracle has its 90 % interval, by which the verdict goes",
            main,
        ),
        "more": Table(
            "All other figures, mean ± standard deviation over the seeds, of time and bytes as a part of the mean", more
        ),
        "fair": Table("Gaps in NDCG@20, mean ± standard deviation over the seeds", fair),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
