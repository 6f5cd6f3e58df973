"""The figures of the comparison page: completeness against utility, costs, and what differences give away.

A name stands near what it names, where it covers least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from retract.report.plots import INK, SETTINGS, STYLES, draw_bars, new_figure, to_svg

Point = NDArray[np.float64]
"""A place in pixels, shape [2]; or a box from one corner to the other, shape [4]."""
LEAST_GAP = 0.05
"""The plane reaches at least so far from the oracle to each side, that noise does not fill it."""
MARKERS = {"before": "s", "after": "o", "oracle": "D"}
REACHES = (6.0, 12.0, 20.0, 30.0, 42.0, 56.0, 74.0, 96.0, 124.0, 160.0, 210.0, 270.0)
"""How far from a mark its name may stand, in pixels; beyond `NEAR` a line leads there."""
NEAR = 12.0
ANGLES = np.pi * np.array(
    [0, 0.25, -0.25, 1, 0.75, -0.75, 0.5, -0.5, 0.125, -0.125, 0.375, -0.375, 0.875, -0.875, 0.625]
)
LONGEST = 22
"""Letters of a name in a chart."""
STEPS = [1, 2, 5, 10]
"""Of ticks, so that 0 and 1 are among them."""


@dataclass(frozen=True)
class Mark:
    """A method in a chart.

    Parameters
    ----------
    name
        Its label.
    role
        Whose colour it has: "before" where nothing was unlearned, "oracle" where it was trained again, else "after".
    x, y
        Mean and standard deviation over the seeds; the deviation is NaN where it is not known.
    """

    name: str
    role: str
    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """Limits that several charts have in common."""

    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Cost:
    """The bars of one system: its methods' costs by name, and the oracle's as a reference; both as numbers and text."""

    system: str
    bars: Sequence[tuple[str, str, float, str]]
    reference: tuple[float, str] | None = None


@dataclass(frozen=True)
class Line:
    """A method's values along common places, with their standard deviations; NaN where there is none."""

    name: str
    role: str
    values: Sequence[tuple[float, float]]


def frame(marks: Sequence[Mark], bands: Sequence[tuple[float, float]]) -> Frame:
    """Limits that hold all marks with their errors, the oracle at (0, 1) and its bands."""
    across = [*_reach([mark.x for mark in marks]), *(edge for band in bands for edge in band), -LEAST_GAP, LEAST_GAP]
    along = [*_reach([mark.y for mark in marks]), 1 - LEAST_GAP, 1 + LEAST_GAP]
    return Frame(_widened(across), _widened(along))


def plane(marks: Sequence[Mark], band: tuple[float, float], limits: Frame, name: str) -> str:
    """Completeness against utility, both relative to the oracle, which stands at (0, 1)."""
    with mpl.rc_context(SETTINGS):
        figure = new_figure(380, 320)
        axes = figure.subplots()
        axes.set_xlim(limits.x)
        axes.set_ylim(limits.y)
        axes.axvspan(*band, color=INK["oracle"], alpha=0.13, linewidth=0)
        axes.axvline(0, color=INK["oracle"], linestyle=STYLES["oracle"], linewidth=1.2)
        axes.axhline(1, color=INK["oracle"], linestyle=STYLES["oracle"], linewidth=1.2)
        axes.plot(0, 1, marker="D", markersize=9, color=INK["oracle"], fillstyle="none", markeredgewidth=1.6)
        for mark in marks:
            _draw(axes, mark)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.set_xlabel("over-forgot  ←  attack AUC − oracle’s  →  still there")
        axes.set_title("Recall@20 as a part of the oracle’s")
        cross = [[(edge, 1.0) for edge in limits.x], [(0.0, edge) for edge in limits.y]]
        _label(figure, axes, [*marks, Mark("oracle", "oracle", (0.0, math.nan), (1.0, math.nan))], cross)
        return to_svg(figure, name)


def spending(costs: Sequence[Cost], title: str, name: str) -> str:
    """Bars on a log scale, a block for each system, with the oracle's cost as a line across its block."""
    rows: list[tuple[str, float, str]] = []
    labels: list[str] = []
    lines: list[tuple[float, float, float, str]] = []
    for cost in costs:
        if cost.reference is not None:
            lines.append((*cost.reference[:1], len(rows) - 0.4, len(rows) + len(cost.bars) + 0.4, cost.reference[1]))
        rows += [
            (_short(cost.system), math.nan, "after"),
            *((_short(bar), value, role) for bar, role, value, _ in cost.bars),
        ]
        labels += ["", *(text for *_, text in cost.bars)]
    with mpl.rc_context(SETTINGS):
        figure = new_figure(380, 50 + 20 * len(rows))
        axes = figure.subplots()
        draw_bars(axes, title, rows, labels, [value for value, *_ in lines])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        _cross(axes, lines)
        for tick, (_, value, _), label in zip(axes.get_yticklabels(), rows, labels, strict=True):
            if math.isnan(value) and not label:
                tick.set_fontweight("bold")
        return to_svg(figure, name)


def leaking(lines: Sequence[Line], places: Sequence[str], limits: tuple[float, float], name: str) -> str:
    """An attack's AUC by the size of the batches; each line is labelled where it ends."""
    with mpl.rc_context(SETTINGS):
        figure = new_figure(380, 300)
        axes = figure.subplots()
        steps = np.arange(len(places))
        axes.set_ylim(limits)
        axes.set_xlim(-0.2, (len(places) - 1 or 1) * 1.42)
        axes.axhline(0.5, color=INK["oracle"], linestyle=STYLES["oracle"], linewidth=1.2)
        for line, marker in zip(lines, cycle("os^DvPX"), strict=False):
            middle, error = np.array(line.values).T
            axes.errorbar(
                steps,
                middle,
                np.nan_to_num(error),
                color=INK[line.role],
                linestyle=STYLES[line.role],
                marker=marker,
                markersize=5,
                linewidth=1.6,
                elinewidth=1,
                capsize=2,
            )
        axes.xaxis.set_major_locator(FixedLocator(steps.tolist()))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda _, place: places[place or 0]))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.set_xlabel("users whose withdrawals are applied together")
        axes.set_title("AUC of telling what was withdrawn")
        paths = [[(step, value) for step, (value, _) in zip(steps, line.values, strict=True)] for line in lines]
        _label(figure, axes, [_end(line) for line in lines], [*paths, [(steps[0], 0.5), (axes.get_xlim()[1], 0.5)]])
        return to_svg(figure, name)


def leak_limits(lines: Sequence[Line]) -> tuple[float, float]:
    """Limits that hold all lines with their errors, and 0.5, which is guessing."""
    return _widened([*_reach([value for line in lines for value in line.values]), 0.5 - LEAST_GAP, 0.5 + LEAST_GAP])


def _end(line: Line) -> Mark:
    """The last value of a line that there is."""
    last = max(place for place, (value, _) in enumerate(line.values) if not math.isnan(value))
    return Mark(line.name, line.role, (last, math.nan), line.values[last])


def _reach(values: Sequence[tuple[float, float]]) -> list[float]:
    """Means less and plus deviations."""
    return [m + sign * (0 if math.isnan(d) else d) for m, d in values if not math.isnan(m) for sign in (-1, 1)]


def _widened(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return low - 0.1 * (high - low), high + 0.1 * (high - low)


def _draw(axes: Axes, mark: Mark) -> None:
    """A point with its errors."""
    axes.errorbar(
        mark.x[0], mark.y[0], xerr=np.nan_to_num(mark.x[1]), yerr=np.nan_to_num(mark.y[1]), color=INK[mark.role],
        marker=MARKERS[mark.role], markersize=6, elinewidth=1.1, capsize=2.5, linestyle="none",
    )  # fmt: skip


def _cross(axes: Axes, lines: Sequence[tuple[float, float, float, str]]) -> None:
    """Reference lines from row to row, each labelled in its first row, on the side that has room."""
    low, high = np.log10(axes.get_xlim())
    for value, first, last, label in lines:
        axes.vlines(value, first, last, color=INK["oracle"], linestyle=STYLES["oracle"], linewidth=1.6, zorder=0.9)
        left = np.log10(value) > (low + high) / 2
        offset, side = (-5, "right") if left else (5, "left")
        at = (value, first + 0.4)
        axes.annotate(label, at, (offset, 0), textcoords="offset points", ha=side, va="center")


def _label(figure: Figure, axes: Axes, marks: Sequence[Mark], paths: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Name every mark near it, inside the axes, where the name covers least of the others and of the paths.

    A line leads to a name further off.
    """
    figure.draw_without_rendering()  # the layout must stand before anything is measured
    edges = axes.get_window_extent()
    points = [axes.transData.transform((mark.x[0], mark.y[0])) for mark in marks]
    drawn = [*paths, *(arm for mark in marks for arm in _arms(mark))]
    taken = [_box(point, 14, 14) for point in points] + [box for path in drawn for box in _along(axes, path)]
    for mark, point in zip(marks, points, strict=True):
        size = _measure(axes, mark.name)
        centre, reach = _free_place(point, size, edges, np.array(taken))
        taken += [_box(centre, *size), *(_box(at, 2, 2) for at in np.linspace(point, centre, 12))]
        _name(axes, _short(mark.name), (mark.x[0], mark.y[0]), (centre - point) * 72 / figure.dpi, reach > NEAR)


def _free_place(point: Point, size: tuple[float, float], edges: Bbox, taken: Point) -> tuple[Point, float]:
    """The nearest place for a box beside a point that meets no other box, or else the one that meets fewest."""
    found, least = point, math.inf
    gone = 0.0
    for reach in REACHES:
        for angle in ANGLES:
            way = np.array([np.cos(angle), np.sin(angle)])
            centre = point + way * (reach + np.array(size) / 2)
            box = _box(centre, *size)
            if box[0] < edges.x0 or box[1] < edges.y0 or box[2] > edges.x1 or box[3] > edges.y1:
                continue
            met = float(((taken[:, :2] < box[2:]) & (taken[:, 2:] > box[:2])).all(axis=1).sum())
            if met < least:
                found, least, gone = centre, met, reach
        if least == 0:
            break
    return found, gone


def _name(axes: Axes, name: str, at: tuple[float, float], offset: Point, led: bool) -> None:
    """A name at some points from where it belongs, led there by a line if it stands far off."""
    line = {"arrowstyle": "-", "color": INK["muted"], "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
    axes.annotate(
        name,
        at,
        (float(offset[0]), float(offset[1])),
        textcoords="offset points",
        ha="center",
        va="center",
        arrowprops=line if led else None,
    )


def _measure(axes: Axes, name: str) -> tuple[float, float]:
    """Width and height of a name in pixels, with a little room."""
    text = axes.text(0, 0, _short(name))
    size = text.get_window_extent()
    text.remove()
    return size.width + 6, size.height + 2


def _arms(mark: Mark) -> list[list[tuple[float, float]]]:
    """The error bars."""
    (x, dx), (y, dy) = mark.x, mark.y
    return [
        *([[(x - dx, y), (x + dx, y)]] if dx > 0 else []),
        *([[(x, y - dy), (x, y + dy)]] if dy > 0 else []),
    ]


def _along(axes: Axes, path: Sequence[tuple[float, float]]) -> list[Point]:
    """Small boxes along a path."""
    corners = axes.transData.transform([corner for corner in path if not math.isnan(corner[1])])
    steps = [np.linspace(one, two, 60) for one, two in pairwise(corners)]
    return [_box(at, 3, 3) for step in steps for at in step]


def _box(centre: Point, width: float, height: float) -> Point:
    half = np.array([width, height]) / 2
    return np.concatenate([centre - half, centre + half])


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
