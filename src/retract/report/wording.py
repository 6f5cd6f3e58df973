"""Numbers as people read them."""

from __future__ import annotations

import math

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def percent(part: float, digits: int = 0) -> str:
    """0.25 is 25 %."""
    return "–" if math.isnan(part) else f"{100 * part:.{digits}f}\u202f%"


def metric(value: float) -> str:
    """Four decimals, or a dash where nothing was measured."""
    return "–" if math.isnan(value) else f"{value:.4f}"


def count(number: int) -> str:
    """A whole number with thousands set apart."""
    return f"{number:,}"


def significant(value: float, digits: int = 3) -> str:
    """Rounded to so many figures, never in powers of ten."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def size(number: int) -> str:
    """Bytes in decimal units."""
    step = min(max(0, (len(str(number)) - 1) // 3), len(UNITS) - 1)
    return f"{significant(number / 1000**step)}\u202f{UNITS[step]}" if step else f"{number}\u202fbytes"


def seconds(number: float) -> str:
    """A time span."""
    return f"{significant(number)}\u202fs"
