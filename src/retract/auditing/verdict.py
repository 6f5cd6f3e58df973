"""From what attacks find to a verdict in words: forgotten, not yet, or nobody can tell. No other place makes one.

The rule is one of equivalence, as in bioequivalence: two one-sided tests at 5 % each (Schuirmann, 1987), which is to
ask whether the 90 % interval of a difference lies within a stated margin. What has to be shown is that a difference is
small, so an attack that sees nothing shows nothing, and few users give no verdict rather than a good one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from retract.auditing.attacks import AUC
from retract.report.wording import ranged, signed

Values = NDArray[np.float64]
Word = Literal["forgotten", "not yet", "cannot be told"]
Reason = Literal[
    "same parameters",
    "like the oracle",
    "still there",
    "over-forgot",
    "scores as before",
    "attack sees nothing",
    "not enough data",
    "no oracle",
]

MARGIN = 0.05
"""How far an AUC may lie from the retrained model's and still be like it, unless the caller says otherwise."""
UTILITY = 0.05
"""The part of the oracle's Recall by which a model may differ from it, to either side, and still be as useful."""
LEVEL = 0.05
"""Of each of the two one-sided tests."""
SAME = 1e-6
"""Parameters that differ by less, relative to their norm, are the oracle's but for rounding …"""
CLOSED = 1e-3
"""… if besides no more than this part is left of how far the model before was from the oracle."""
UNMOVED = 1e-3
"""Scores that moved by less, in standard deviations of the user's list, are taken to be as they were."""
MANY = 1_000_000
"""So many users nobody has for an audit: a number beyond it is not told."""


@dataclass(frozen=True)
class Difference:
    """One model's figure less another's on the same users, with the bounds of a 90 % interval by users."""

    value: float
    low: float
    high: float

    def within(self, margin: float) -> bool:
        """Whether the whole interval lies within ± margin."""
        return -margin <= self.low and self.high <= margin

    def beyond(self, margin: float) -> bool:
        """Whether the whole interval lies outside ± margin, on one side."""
        return self.low > margin or self.high < -margin

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{signed(self.value)} (90 % interval {signed(self.low)} to {signed(self.high)})"


@dataclass(frozen=True)
class Evidence:
    """What a verdict goes by.

    Parameters
    ----------
    before, after, oracle
        How well one attack does on each model; the oracle is None where there is none.
    after_gap, before_gap
        That AUC less the oracle's, paired by users; None without an oracle.
    users
        How many users the intervals go by.
    margin
        The largest difference in AUC that counts as none.
    parameters
        The distances of the parameters before and after to the oracle's; None where there are none, or unknown.
    moved
        By how much the scores of the forgotten moved at the median, in standard deviations of the user's list; None
        where that shows nothing.
    """

    before: AUC
    after: AUC
    oracle: AUC | None
    after_gap: Difference | None
    before_gap: Difference | None
    users: int
    margin: float = MARGIN
    parameters: tuple[float, float] | None = None
    moved: float | None = None

    @property
    def same(self) -> bool:
        """Whether the parameters are the oracle's but for rounding."""
        if self.parameters is None:
            return False
        before, after = self.parameters
        return after <= SAME and after <= CLOSED * before


@dataclass(frozen=True)
class Verdict:
    """The word, and why.

    Parameters
    ----------
    word
        What scripts compare with.
    reason
        What it comes of, for scripts and tables.
    text
        Sentences for people; they begin with the word.
    users_needed
        About how many users who forget would settle it, if the difference stays; None where it is settled, or nobody
        can say.
    """

    word: Word
    reason: Reason
    text: str
    users_needed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """By the names that every audit has."""
        told = asdict(self)
        return {
            "verdict": told["word"],
            "because": told["text"],
            "reason": told["reason"],
            "users_needed": told["users_needed"],
        }


def judged(found: Evidence) -> Verdict:
    """The verdict.

    *Not yet*: the interval of after - oracle lies wholly outside ± margin. *Forgotten*: the parameters are those of the
    oracle; or the interval lies wholly within, and the same attack does tell the model before from the oracle: its
    interval neither holds 0 nor lies within ± margin. All else *cannot be told*.
    """
    after, before, margin = found.after_gap, found.before_gap, found.margin
    if found.oracle is None or after is None or before is None:
        return _without_oracle(found)
    both = f"The attack has AUC {_of(found.after)}, {_beside(found.oracle)}."
    if after.beyond(margin):
        return _not_yet(after, both, margin)
    if found.same and found.parameters is not None:
        to = f"to {max(found.parameters[1], 1e-16):.0e}"
        said = f"Forgotten: the parameters are those of a model trained without the data, {to}."
        return Verdict("forgotten", "same parameters", f"{said} {both}")
    if found.users < 2:
        said = "Cannot be told: a single user withdrew, and the AUC of a single user may be anything from 0 to 1"
        return Verdict("cannot be told", "not enough data", f"{said}. {both}")
    if before.within(margin) or before.low <= 0 <= before.high:
        needed = None if before.within(margin) else _needed(found.users, before.half, abs(before.value))
        said = "Cannot be told: this attack finds nothing even before, so finding nothing afterwards shows nothing."
        told = f"Before, it had AUC {_of(found.before)}, {_beside(found.oracle)}; the difference is {before}."
        text = f"{said} {told}{_would_do(found.users, needed)}"
        return Verdict("cannot be told", "attack sees nothing", text, needed)
    if after.within(margin):
        said = "Forgotten: an attack finds what was withdrawn as well as in a model trained without it, and no better."
        text = f"{said} {both} The difference, {after}, lies within ±{margin:g}; before it was {before}."
        return Verdict("forgotten", "like the oracle", text)
    needed = _needed(found.users, after.half, abs(margin - abs(after.value)))
    said = f"Cannot be told: too few users withdrew. {both}"
    told = f"The difference, {after}, lies neither within ±{margin:g} nor outside."
    return Verdict("cannot be told", "not enough data", f"{said} {told}{_would_do(found.users, needed)}", needed)


def _not_yet(after: Difference, both: str, margin: float) -> Verdict:
    more = after.value > 0
    how = (
        "what was to be forgotten still stands out more than in a model trained without it"
        if more
        else "the model shuns what was to be forgotten more than one that never saw it, and that is a trace too"
    )
    text = f"Not yet: {how}. {both} The difference, {after}, lies outside ±{margin:g}."
    return Verdict("not yet", "still there" if more else "over-forgot", text)


def _without_oracle(found: Evidence) -> Verdict:
    """What can be said without a retrained model, which is little."""
    both = f"AUC {_of(found.before)} before, {_of(found.after)} after"
    if found.moved is not None and found.moved < UNMOVED:
        said = "Not yet: the scores of what was to be forgotten are as they were"
        decides = "What is left is decided by a model trained without the data: add --oracle."
        return Verdict("not yet", "scores as before", f"{said}, with {both}. {decides}")
    if found.before.low <= 0.5:
        means = "the attack finds nothing even before, so it cannot show that anything was forgotten"
    elif found.after.low > 0.5:
        means = (
            "they may be remembered, or these users like such items anyway, and a model that never saw them would say "
            "so too"
        )
    else:
        means = (
            "the forgotten no longer stand out, as where a model forgot, where it pushed them down without forgetting, "
            "and where it only became worse"
        )
    said = "Cannot be told without a model trained without the data: add --oracle."
    return Verdict("cannot be told", "no oracle", f"{said} Alone the attack has {both}: {means}.")


def useful(gap: Difference | None) -> str:
    """What an equivalence test says of a model's Recall beside the oracle's, by their `relative` difference."""
    if gap is None:
        return "not measured"
    if gap.within(UTILITY):
        return "as useful"
    if gap.beyond(UTILITY):
        return "less useful" if gap.value < 0 else "more useful"
    return "not enough data"


def difference(one: Values, other: Values, users: NDArray[np.int64]) -> Difference:
    """AUC of `one` less AUC of `other`, both attacks on the same members and others.

    The interval is that of a mean of paired differences over users: a user's part in an AUC is Obuchowski's
    (Biometrics 1997), and what both attacks find alike about a user cancels. Student's quantile, for users are few; and
    never narrower than one user alone can move the mean, 1 / n to either side, for that few of them agree is no
    certainty.

    Parameters
    ----------
    one, other
        Scores of members and of others, shape [2, n] each.
    users
        The user of each pair, shape [n].
    """
    value, parts = _by_user(one, users)
    its_value, its_parts = _by_user(other, users)
    gap, parts = value - its_value, parts - its_parts
    n = len(parts)
    if n < 2:
        return Difference(gap, -1.0, 1.0)
    spread = max(1 / n, float(student.ppf(1 - LEVEL, n - 1) * np.sqrt((parts**2).sum() * n / (n - 1))))
    return Difference(gap, max(-1.0, gap - spread), min(1.0, gap + spread))


def relative(one: Values, other: Values) -> Difference | None:
    """Mean of `one` less that of `other`, by users, as a part of the latter; None where that is 0 or nobody is.

    Parameters
    ----------
    one, other
        A metric of the same users, shape [n] each.
    """
    n, of = len(one), float(other.mean()) if len(other) else 0.0
    if n < 2 or not of:
        return None
    parts = (one - other) / of
    gap = float(parts.mean())
    spread = float(student.ppf(1 - LEVEL, n - 1) * parts.std(ddof=1) / np.sqrt(n))
    return Difference(gap, gap - spread, gap + spread)


def _by_user(scores: Values, users: NDArray[np.int64]) -> tuple[float, Values]:
    """The AUC, ties half, and what each user adds to its deviation, shape [n_users]."""
    members, others = scores
    n = len(members)
    if not n:
        return 0.5, np.zeros(0)
    together = rankdata(np.concatenate([members, others]))
    above = (together[:n] - rankdata(members)) / n
    below = 1 - (together[n:] - rankdata(others)) / n
    value = float(above.mean())
    rows = np.unique(users, return_inverse=True)[1]
    return value, np.bincount(rows, weights=above + below - 2 * value) / n


def _of(one: AUC) -> str:
    return ranged(one.value, one.low, one.high)


def _beside(oracle: AUC) -> str:
    return f"beside {_of(oracle)} in a model trained without the data"


def _needed(users: int, half: float, room: float) -> int | None:
    """Users with whom half the interval fits into the room; its width falls with their root."""
    found = users * (half / room) ** 2 if room > 0 and users > 1 else float("inf")
    return ceil(found) if found <= MANY else None


def _would_do(users: int, needed: int | None) -> str:
    if needed is None:
        return ""
    return f" About {needed:,} users who withdraw would probably do instead of {users:,}, if the difference stays."
