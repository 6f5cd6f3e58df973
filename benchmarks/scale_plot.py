"""Draws the growth curves of `benchmarks.scale` from its rows.

.venv/bin/python -m benchmarks.scale_plot
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

Row = Mapping[str, Any]
PANELS: Sequence[tuple[str, str, Mapping[str, tuple[str, float]], Sequence[tuple[float, float, str]]]] = (
    ("Training", "seconds", {"train_seconds": ("training", 1)}, ((33e6, 600, "asked of 33 M"),)),
    ("Peak memory", "GB", {"peak_mb": ("training", 1e-3)}, ((33e6, 12, "asked of 33 M"), (256e6, 20, "of 256 M"))),
    (
        "A user withdraws, until no list knows of it",
        "milliseconds",
        {"withdraw_p50_ms": ("median", 1), "withdraw_p99_ms": ("99 %", 1)},
        ((33e6, 10, "99 % asked of 33 M"), (256e6, 50, "of 256 M")),
    ),
    (
        "A list of 20, 1,000 a second asked for",
        "milliseconds, 90 %",
        {"list_p90_ms": ("alone", 1), "list_p90_ms_beside_withdrawals": ("while 100 users a second withdraw", 1)},
        ((33e6, 7, "asked of 33 M"),),
    ),
)
"""Title, unit, columns with their labels and scales, and what was asked for: interactions, value, words."""


def drawn(rows: Sequence[Row], out: Path) -> None:
    """One picture of four panels."""
    figure, places = plt.subplots(2, 2, figsize=(9.5, 6.6), sharex=True)
    for axes, (title, unit, columns, asked) in zip(places.flat, PANELS, strict=True):
        _panel(axes, rows, columns, asked)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylabel(unit)
    for axes in places[-1]:
        axes.set_xlabel("interactions")
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def _panel(
    axes: Axes,
    rows: Sequence[Row],
    columns: Mapping[str, tuple[str, float]],
    asked: Sequence[tuple[float, float, str]],
) -> None:
    for (name, (label, by)), color in zip(columns.items(), ("#1f5fa8", "#c8641b"), strict=False):
        known = [row for row in rows if name in row]
        sizes, values = [row["interactions"] for row in known], [by * row[name] for row in known]
        axes.plot(sizes, values, marker="o", markersize=4, color=color, label=label)
    for size, value, words in asked:
        axes.plot([size], [value], marker="v", color="#777777", linestyle="none")
        axes.annotate(
            f"at most {value:g}, {words}", (size, value), (-4, 5), textcoords="offset points", ha="right", size=8
        )
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set(major_formatter=FuncFormatter(lambda x, _: f"{x / 1e6:g} M"))
    axes.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=FuncFormatter(lambda y, _: f"{y:g}"))
    axes.minorticks_off()
    axes.grid(visible=True, which="major", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    if len(columns) > 1:
        axes.legend(frameon=False, fontsize=8, loc="upper left")


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("benchmarks/results/scale.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/scale.svg"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    local = [row for row in rows if row.get("engine", "local") == "local" and row["threads"] == 2]
    drawn(sorted(local, key=lambda row: row["interactions"]), options.out)


if __name__ == "__main__":
    main()
