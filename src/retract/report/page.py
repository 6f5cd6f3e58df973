"""One self-contained HTML page: no script, nothing fetched from elsewhere."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import retract
from retract.report import findings, plots, plots_comparison, wording
from retract.report.entries import KEEPS, Block, Entry, Spread
from retract.report.facts import Story

Show = Callable[[Spread], str]
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
BATCH = re.compile(r"difference_auc_[0-9]+")


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


def describe_machine() -> str:
    """The processor, the cores this process may use, and the system."""
    return f"{_processor()}, {_cores()} cores, {platform.system()}"


def describe_versions() -> str:
    """Versions of retract, Python and the packages that compute."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"retract {retract.__version__}, Python {platform.python_version()}, {packages}"


def render(story: Story, setting: Setting) -> str:
    """The demo's HTML."""
    return fill(
        "demo.html.j2",
        story=story,
        setting=setting,
        figures=_figures(story),
        findings=findings,
        changed=changed_settings(story),
    )


def fill(name: str, **context: object) -> str:
    """A template's HTML; text is escaped, and what it asks for must be there."""
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


def stored(spread: Spread) -> str:
    """Bytes, and their deviation as a part of them."""
    return spread.show(_size, relative=True)


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
    told = {key: key.replace("_", " ").capitalize() for key in about if key not in ("command", "skipped")}
    told = {**ABOUT, **{key: head for key, head in told.items() if key not in ABOUT}}
    return fill(
        "comparison.html.j2",
        headline=headline,
        standings=standings,
        about={"command": None, "skipped": [], **about},
        facts={name: plain(about[key]) for key, name in told.items() if about.get(key) is not None},
        blocks=[
            {"block": block, "finding": said, **_charts(block, f"set-{place}")}
            for place, (block, said) in enumerate(zip(blocks, findings, strict=True))
        ],
        tables=_tables(),
        keeps=KEEPS,
    )


def _charts(block: Block, name: str) -> dict[str, Any]:
    """The charts of one forget set, as names with SVG; those of which nothing was measured are left out."""
    return {
        "planes": _planes(block, name),
        "seconds": _bars(block, "seconds", "seconds (log scale)", f"{name}-seconds"),
        "bytes": _bars(block, "memory_bytes", "bytes kept (log scale)", f"{name}-bytes"),
        "leaks": _leaks(block, name),
    }


def _planes(block: Block, name: str) -> dict[str, Markup]:
    marks = {system: _marks(entries) for system, entries in block.systems.items()}
    drawn = {system: found for system, found in marks.items() if found}
    bands = {system: block.systems[system][0].band for system in drawn}
    if not drawn:
        return {}
    limits = plots_comparison.frame([mark for found in drawn.values() for mark in found], list(bands.values()))
    return {
        system: Markup(plots_comparison.plane(found, bands[system], limits, f"{name}-plane-{place}"))
        for place, (system, found) in enumerate(drawn.items())
    }


def _marks(entries: Sequence[Entry]) -> list[plots_comparison.Mark]:
    """The methods of a system in the plane, and where doing nothing lies even if that was not run."""
    places = [(entry.method, entry.role, entry.of("attack_gap"), entry.of("recall_ratio")) for entry in entries]
    if all(entry.role != "before" for entry in entries):
        first = entries[0]
        places.append(("before", "before", first.of("before_gap"), first.of("before_ratio")))
    return [
        plots_comparison.Mark(name, role, (x.mean, x.deviation), (y.mean, y.deviation))
        for name, role, x, y in places
        if x.measured and y.measured
    ]


def _bars(block: Block, key: str, title: str, name: str) -> Markup | None:
    """A figure of every method as a bar; beside seconds, the oracle's."""
    show = _size if key == "memory_bytes" else wording.seconds
    costs = []
    for system, entries in block.systems.items():
        bars = [
            (one.method, one.role, one.of(key).mean, show(one.of(key).mean)) for one in entries if one.of(key).measured
        ]
        oracle = entries[0].of("oracle_seconds").mean
        reference = (oracle, f"oracle {wording.seconds(oracle)}") if key == "seconds" and oracle > 0 else None
        costs.append(plots_comparison.Cost(system, bars, reference))
    measured = [cost for cost in costs if cost.bars]
    return Markup(plots_comparison.spending(measured, title, name)) if measured else None


def _leaks(block: Block, name: str) -> dict[str, Markup]:
    """AUC of the difference by batch size, a chart for each system of which it was measured."""
    keys = {key for entry in block.entries for row in entry.rows for key in row if BATCH.fullmatch(key)}
    sizes = sorted(int(key.rsplit("_", 1)[1]) for key in keys)
    columns = [*(f"difference_auc_{number}" for number in sizes), "difference_auc"]
    lines = {
        system: [line for one in entries if not math.isnan((line := _line(one, columns)).values[0][0])]
        for system, entries in block.systems.items()
    }
    drawn = {system: found for system, found in lines.items() if sizes and found}
    if not drawn:
        return {}
    limits = plots_comparison.leak_limits([line for found in drawn.values() for line in found])
    places = [*(wording.count(number) for number in sizes), "all"]
    return {
        system: Markup(plots_comparison.leaking(found, places, limits, f"{name}-leak-{place}"))
        for place, (system, found) in enumerate(drawn.items())
    }


def _line(entry: Entry, keys: Sequence[str]) -> plots_comparison.Line:
    spreads = [entry.of(key) for key in keys]
    return plots_comparison.Line(entry.method, entry.role, [(spread.mean, spread.deviation) for spread in spreads])


def _show(show: Callable[[float], str], relative: bool = False) -> Show:
    """Mean ± deviation of a figure that is shown so."""
    return lambda spread: spread.show(show, relative)


def _models(key: str, show: Show) -> list[tuple[str, str, Show]]:
    """A column for each model."""
    return [(model, f"{key}_{model}", show) for model in ("before", "after", "oracle")]


def _tables() -> dict[str, Table]:
    """All tables of a forget set by name."""
    auc, accuracy, gap = _show(partial(wording.metric, digits=3)), _show(wording.metric), _show(wording.signed)
    time, ratio = _show(wording.seconds, relative=True), _show(wording.times, relative=True)
    main: Groups = [
        ("Attack AUC", [*_models("attack_auc", auc), ("after − oracle", "attack_gap", gap)]),
        ("KS distance to the oracle", [("before", "ks_before", auc), ("after", "ks_after", auc)]),
        ("Recall@20", _models("recall@20", accuracy)),
        ("NDCG@20", _models("ndcg@20", accuracy)),
        ("RMSE", _models("rmse", accuracy)),
        ("RMSE of the forgotten", _models("forgotten_rmse", accuracy)),
        ("Time", [("unlearning", "seconds", time), ("retraining", "oracle_seconds", time)]),
        ("Speed-up", [("retraining / unlearning", "speedup", ratio)]),
        ("Storage", [("bytes kept", "memory_bytes", stored)]),
    ]
    more: Groups = [
        ("AUC of the score alone", _models("score_auc", auc)),
        ("AUC of the rank alone", _models("rank_auc", auc)),
        ("Mean rank of the forgotten", _models("rank_mean", auc)),
        ("KS in the recommendations", [(one, f"ks_recommendations_{one}", auc) for one in ("before", "after")]),
        ("MI-BF", _models("mi_bf", auc)),
        ("MI-NG", _models("mi_ng", auc)),
        ("Rounds to relearn", _models("relearn_rounds", _show(partial(wording.metric, digits=1)))),
        ("Parameters", [("distance to the oracle", "parameter_distance", accuracy)]),
        ("Leakage", [("AUC of the difference", "difference_auc", auc)]),
        ("Withdrawers’ Recall@20", _models("withdrawers_recall@20", accuracy)),
        ("Withdrawers’ NDCG@20", _models("withdrawers_ndcg@20", accuracy)),
        ("Others’ Recall@20", _models("others_recall@20", accuracy)),
        ("Others’ NDCG@20", _models("others_ndcg@20", accuracy)),
        ("Spent before any request", [("training", "train_seconds", time), ("preparing", "prepare_seconds", time)]),
        ("Sent", [("unlearning", "bytes_sent", stored), ("retraining", "oracle_bytes_sent", stored)]),
    ]
    fair: Groups = [
        ("Sharers over others", _models("sharers_gap", gap)),
        ("More active half over less active", _models("active_gap", gap)),
    ]
    return {
        "main": Table(
            "Main figures, mean ± standard deviation over the seeds, of time and bytes as a part of the mean", main
        ),
        "more": Table(
            "All other figures, mean ± standard deviation over the seeds, of time and bytes as a part of the mean", more
        ),
        "fair": Table("Gaps in NDCG@20, mean ± standard deviation over the seeds", fair),
    }


def _size(number: float) -> str:
    if math.isnan(number):
        return "–"
    return wording.size(round(number)) if number else "nothing"


def _figures(story: Story) -> dict[str, Markup]:
    drawn = {
        "sharing": plots.sharing(story.levels),
        "training": plots.training(story.levels),
        "device": plots.ranks(story.device, "device"),
        "server": plots.ranks(story.server, "server"),
        "costs": plots.costs(story.costs),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
