"""The demo's figures, and how any is drawn: as inline SVG whose colours and fonts are the page's own.

Every colour is drawn as a stand-in and then replaced by a CSS variable, so that one figure serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from retract.report.facts import Costs, Level, Trace
from retract.report.wording import percent, seconds, size

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType  # not in all versions that we support

INK = {
    name: f"#0a0b{code:02x}"
    for code, name in enumerate(
        (
            *("ink", "muted", "grid", "before", "after", "oracle"),
            *("level-0", "level-1", "level-2", "level-3", "level-4", "page"),
        )
    )
}
STYLES = {"before": (0, (5, 1.5)), "after": "solid", "oracle": (0, (1, 1.2))}
LEAST_SPAN = 0.03
"""Differences of accuracy are not drawn larger than if the axis spanned this much."""
LEAST_BAR = 1e-4
"""Where bars end that would be shorter."""
TOP = 1e-4
"""Where the log scale of ranks begins; what stands higher is drawn there."""
SETTINGS: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "retract",
    "font.family": "DejaVu Sans",  # what matplotlib measures with; the page shows its own
    "font.size": 11,
    "text.parse_math": False,  # names are shown as they are
    "axes.formatter.useoffset": False,
    "axes.edgecolor": INK["muted"],
    "axes.labelcolor": INK["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK["ink"],
    "grid.color": INK["grid"],
    "grid.linewidth": 0.8,
    "text.color": INK["ink"],
    "xtick.color": INK["muted"],
    "ytick.color": INK["muted"],
    "xtick.labelcolor": INK["ink"],
    "ytick.labelcolor": INK["ink"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "lines.linewidth": 2.2,
    "legend.frameon": False,
    "figure.constrained_layout.hspace": 0.08,
}


def sharing(levels: Sequence[Level]) -> str:
    """Accuracy against the shared part: two charts of one span, so that their slopes can be compared."""
    ratios = [level.ratio for level in levels]
    series = {
        "NDCG@20": [level.accuracy.ndcg for level in levels],
        "Recall@20": [level.accuracy.recall for level in levels],
    }
    span = 1.7 * max(LEAST_SPAN, *(max(values) - min(values) for values in series.values()))
    with mpl.rc_context(SETTINGS):
        figure = new_figure(380, 330)
        panels = figure.subplots(2, 1, sharex=True)
        for axes, (name, values) in zip(panels, series.items(), strict=True):
            axes.plot(ratios, values, color=INK["after"], marker="o", markersize=5, clip_on=False)
            for ratio, value in zip(ratios, values, strict=True):
                axes.annotate(f"{value:.3f}", (ratio, value), (0, 7), textcoords="offset points", ha="center")
            middle = (max(values) + min(values)) / 2
            axes.set_ylim(middle - span / 2, middle + span / 2)
            axes.set_xlim(-0.07, 1.07)
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.set_title(name)
        panels[1].xaxis.set_major_locator(FixedLocator(ratios))
        panels[1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
        panels[1].set_xlabel("shared by every user")
        return to_svg(figure, "sharing")


def training(levels: Sequence[Level]) -> str:
    """NDCG by round, a line for each shared part."""
    with mpl.rc_context(SETTINGS):
        figure = new_figure(380, 290)
        axes = figure.subplots()
        for number, level in reversed(list(enumerate(levels))):
            rounds, ndcg = [point.round for point in level.curve], [point.ndcg for point in level.curve]
            axes.plot(rounds, ndcg, color=INK[f"level-{number}"], marker="o", markersize=3, label=percent(level.ratio))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("round")
        axes.set_title("NDCG@20")
        axes.legend(loc="lower right", title="shared", alignment="left", borderaxespad=1)
        return to_svg(figure, "training")


def ranks(trace: Trace, name: str) -> str:
    """How many of the forgotten items stand in the top x of their user's list, under the three models."""
    part = np.linspace(0, 1, 201)
    with mpl.rc_context(SETTINGS):
        figure = new_figure(380, 290)
        axes = figure.subplots()
        for model, values in trace.ranks.items():
            places = np.maximum(np.quantile(values, part), TOP)
            axes.plot([*places, 1], [*part, 1], color=INK[model], linestyle=STYLES[model], label=model)
        axes.set_xscale("log")
        axes.set_xlim(TOP, 1)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_locator(FixedLocator([1e-4, 1e-3, 1e-2, 1e-1, 1]))
        axes.xaxis.set_minor_locator(FixedLocator([]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}\u202f%"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
        axes.set_xlabel("top … of the user’s list (log scale)")
        axes.set_title("forgotten ratings that stand in the top …")
        axes.legend(loc="upper left", handlelength=2.6)
        return to_svg(figure, name)


def costs(spent: Costs) -> str:
    """Seconds and bytes on log scales."""
    unlearning, retraining = spent.unlearning, spent.retraining
    with mpl.rc_context(SETTINGS):
        figure = new_figure(380, 340)
        upper, lower = figure.subplots(2, 1, height_ratios=[2, 6.6])
        times = [("unlearning", unlearning.seconds, "after"), ("retraining", retraining.seconds, "oracle")]
        sizes = [
            ("sent up, unlearning", unlearning.bytes_up, "after"),
            ("sent up, retraining", retraining.bytes_up, "oracle"),
            ("sent down, unlearning", unlearning.bytes_down, "after"),
            ("sent down, retraining", retraining.bytes_down, "oracle"),
            ("kept for unlearning", spent.memory, "after"),
            ("log of all updates", spent.update_log, "before"),
        ]
        draw_bars(upper, "seconds (log scale)", times, [seconds(value) for _, value, _ in times])
        draw_bars(lower, "bytes (log scale)", sizes, [size(value) for _, value, _ in sizes])
        return to_svg(figure, "costs")


def draw_bars(
    axes: Axes,
    title: str,
    rows: Sequence[tuple[str, float, str]],
    labels: Sequence[str],
    others: Sequence[float] = (),
) -> None:
    """Horizontal bars on a log scale, each with its figure; grid lines stand ten times apart.

    What is 0 or NaN has no bar. The scale also holds the values in `others`.
    """
    shown = [max(value, LEAST_BAR) for value in (*(value for _, value, _ in rows), *others) if value > 0] or [1.0]
    low, high = np.floor(np.log10(min(shown))) - 0.6, np.log10(max(shown))
    ends = [max(value, LEAST_BAR) if value > 0 else 10**low for _, value, _ in rows]
    axes.set_xscale("log")
    axes.barh(range(len(rows)), ends, height=0.62, color=[INK[colour] for _, _, colour in rows])
    for place, (value, label) in enumerate(zip(ends, labels, strict=True)):
        box = {"facecolor": INK["page"], "edgecolor": "none", "pad": 1}
        axes.annotate(
            label, (value, place), (5, 0), textcoords="offset points", va="center", bbox=box if others else None
        )
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(10**low, 10 ** (high + 0.5 * (high - low)))
    axes.grid(visible=False, axis="y")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.set_major_locator(FixedLocator((10.0 ** np.arange(np.ceil(low), np.floor(high) + 1)).tolist()))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: ""))
    axes.set_title(title)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in points."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def to_svg(figure: Figure, name: str) -> str:
    """The figure's SVG element alone, ids made its own, colours made the page's."""
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    text = f'<svg {view[0]} aria-hidden="true">{body}'
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for variable, colour in INK.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.strip()
