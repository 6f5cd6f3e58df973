"""Numbers as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

UNITS = ("bytes", "kB", "MB", "GB", "TB")
LATEX = {
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # after a line's end these would be its arguments
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", '"': "''", "\u202f": r"\,", "\u00a0": "~"},
    **{"±": r"$\pm$", "×": r"$\times$", "→": r"$\to$", "\u2212": "$-$", "µ": r"$\mu$", "–": "--", "’": "'"},
}
"""What LaTeX would not show as it is."""
PHRASES = {
    "attack_auc": "attack AUC (0.5: guessing)",
    "rank_mean": "place of the withdrawn in their list (0 top, 1 bottom)",
    "recall@20": "held-out items among the first 20 (Recall@20)",
    "ndcg@20": "the same, higher places count more (NDCG@20)",
    "mi_bf": "scores of the withdrawn, before / now (MI-BF)",
    "mi_ng": "scores, random items / the withdrawn (MI-NG)",
    "rmse": "mean error of predicted ratings (RMSE)",
    "forgotten_rmse": "the same, of the withdrawn ratings",
}
"""What a figure of an audit says, by its name in the JSON."""


def verdict(audit: Mapping[str, Any]) -> tuple[str, str]:
    """Word and sentences of an audit's JSON; one made before audits had a verdict has none, and that is said."""
    nothing = "Cannot be told: this audit was made by a version of retract that gave no verdicts."
    return audit.get("verdict", "cannot be told"), audit.get("because", nothing)


def leak(audit: Mapping[str, Any]) -> str:
    """How well an observer of both versions tells what was withdrawn, by an audit's JSON."""
    value, low = audit["difference_auc"], audit.get("difference_auc_low")
    shown = f"{value:.2f}" if low is None else ranged(value, low, audit["difference_auc_high"])
    return f"tells what was withdrawn with AUC {shown}, where 0.5 is guessing"


def percent(part: float, digits: int = 0) -> str:
    """0.25 is 25 %."""
    return "–" if math.isnan(part) else f"{100 * part:.{digits}f}\u202f%"


def metric(value: float, digits: int = 4) -> str:
    """Four decimals unless told, or a dash where nothing was measured."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def count(number: int) -> str:
    """A whole number with thousands set apart."""
    return f"{number:,}"


def signed(value: float) -> str:
    """Three decimals and always a sign, for differences."""
    return "–" if math.isnan(value) else f"{value:+.3f}".replace("-0.000", "+0.000").replace("-", "\u2212")


def times(ratio: float) -> str:
    """How much faster or slower, in a table: 0.2 is 5× slower."""
    if math.isnan(ratio) or ratio <= 0:
        return "–"
    if 0.9 < ratio < 1.1:
        return "as fast"
    fast = ratio > 1
    much = significant(ratio if fast else 1 / ratio, 2).removesuffix(".0")
    return f"{much}× {'faster' if fast else 'slower'}"


def pace(ratio: float) -> str:
    """How much faster or slower than retraining, by how many times as fast: 0.2 is 5 times slower."""
    if math.isnan(ratio) or ratio <= 0:
        return "not compared with retraining"
    said = times(ratio)
    return "about as fast as retraining" if said == "as fast" else f"{said.replace('× ', ' times ')} than retraining"


def ranged(value: float, low: float, high: float) -> str:
    """A figure with the bounds of its interval: 0.53 (0.49–0.57)."""
    return "–" if math.isnan(value) else f"{value:.2f} ({low:.2f}–{high:.2f})"


def plus_minus(mean: float, deviation: float, show: Callable[[float], str], relative: bool = False) -> str:
    """Mean ± standard deviation, that as a part of the mean where `relative`; the mean alone where there is none."""
    if math.isnan(deviation) or (relative and deviation * mean == 0):
        return show(mean)
    # A deviation has no sign, even where the mean shows one.
    spread = percent(deviation / mean) if relative else show(deviation).removeprefix("+")
    return f"{show(mean)}\u202f±\u202f{spread}"


def significant(value: float, digits: int = 3) -> str:
    """Rounded to so many figures, never in powers of ten."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def size(number: int) -> str:
    """Bytes in decimal units."""
    step = min(max(0, (len(str(number)) - 1) // 3), len(UNITS) - 1)
    return f"{significant(number / 1000**step)}\u202f{UNITS[step]}" if step else f"{number}\u202fbytes"


def kept(number: float) -> str:
    """Bytes that are kept, where none are is a word."""
    if math.isnan(number):
        return "–"
    return size(round(number)) if number else "nothing"


def seconds(number: float) -> str:
    """A time span."""
    return f"{significant(1000 * number)}\u202fms" if 0 < number < 0.1 else f"{significant(number)}\u202fs"


def latex(text: str) -> str:
    """Text as LaTeX shows it, on one line, whatever it holds."""
    line = re.sub(r"[\t\n\r\f\v ]+", " ", text)
    return "".join(LATEX.get(letter, letter if letter.isprintable() else "") for letter in line)
