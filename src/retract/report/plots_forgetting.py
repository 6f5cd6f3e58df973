"""The figures of an audit of scores: how well an attack does on each model, and where the forgotten stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from retract.report.plots import INK, SETTINGS, STYLES, new_figure, to_svg
from retract.report.wording import percent

if TYPE_CHECKING:
    from retract.auditing.standing import ScoreAudit

LEAST = 0.05
"""The axis reaches at least so far beyond guessing to either side."""


def standing(audit: ScoreAudit, name: str) -> str:
    """The attack's AUC on each model with its interval; grey what counts as like the oracle, dotted guessing."""
    models = audit.models
    with mpl.rc_context(SETTINGS):
        figure = new_figure(380, 60 + 42 * len(models))
        axes = figure.subplots()
        edges = [0.5 - LEAST, 0.5 + LEAST]
        if audit.oracle is not None:
            middle = audit.oracle.attack_auc
            band = (middle - audit.margin, middle + audit.margin)
            axes.axvspan(*band, color=INK["oracle"], alpha=0.13, linewidth=0)
            edges += band
        axes.axvline(0.5, color=INK["muted"], linestyle=STYLES["oracle"], linewidth=1.2)
        for row, (model, one) in enumerate(models.items()):
            reach = [[one.attack_auc - one.attack_low], [one.attack_high - one.attack_auc]]
            style: dict[str, Any] = {"color": INK[model], "marker": "o", "markersize": 6, "capsize": 3}
            axes.errorbar([one.attack_auc], [row], xerr=reach, elinewidth=1.6, **style)
            axes.annotate(
                f"{one.attack_auc:.3f}", (one.attack_auc, row), (0, 8), textcoords="offset points", ha="center"
            )
            edges += [one.attack_low, one.attack_high]
        room = 0.06 * (max(edges) - min(edges))
        axes.set_xlim(min(edges) - room, max(edges) + room)
        axes.set_ylim(len(models) - 0.5, -0.75)
        axes.set_yticks(range(len(models)), list(models))
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_title("attack AUC")
        return to_svg(figure, name)


def places(ranks: Mapping[str, NDArray[np.float64]], name: str) -> str:
    """How many of the forgotten stand in the top x of their user's list, in each model."""
    part = np.linspace(0, 1, 201)
    with mpl.rc_context(SETTINGS):
        figure = new_figure(380, 290)
        axes = figure.subplots()
        for model, values in ranks.items():
            stands = [0, *np.quantile(values, part), 1]
            axes.plot(stands, [0, *part, 1], color=INK[model], linestyle=STYLES[model], label=model)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
        axes.set_xlabel("top … of the user’s list")
        axes.set_title("forgotten pairs that stand in the top …")
        axes.legend(loc="lower right", handlelength=2.6)
        return to_svg(figure, name)
