"""Which charts a page has, from its facts: the demo's figures, and those of each forget set of a comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from retract.auditing.verdict import MARGIN
from retract.report import plots, plots_comparison, wording
from retract.report.entries import Block, Entry
from retract.report.facts import Story

BATCH = re.compile(r"difference_auc_[0-9]+")


def figures_of(story: Story) -> dict[str, Markup]:
    """The demo's figures by name."""
    drawn = {
        "sharing": plots.sharing(story.levels),
        "training": plots.training(story.levels),
        "device": plots.ranks(story.device, "device"),
        "server": plots.ranks(story.server, "server"),
        "costs": plots.costs(story.costs),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}


def charts_of(block: Block, name: str) -> dict[str, Any]:
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
    bands = dict.fromkeys(drawn, (-MARGIN, MARGIN))
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
    show = wording.kept if key == "memory_bytes" else wording.seconds
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
