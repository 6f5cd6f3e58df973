"""From two attacks on the same pairs to a verdict in words: like the retrained model, not like it, or nobody can tell.

The rule is one of equivalence, as in bioequivalence (Schuirmann, 1987): what has to be shown is that a difference is
small, so an attack that sees nothing shows nothing, and few users give no verdict rather than a good one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

Values = NDArray[np.float64]
Word = Literal["forgotten", "not forgotten", "cannot be told"]

MARGIN = 0.05
"""How far an AUC may lie from the retrained model's and still be like it, unless the caller says otherwise."""
UNMOVED = 1e-3
"""Scores that moved by less, in standard deviations of the user's list, are taken to be as they were."""
MANY = 1_000_000
"""So many users nobody has for an audit: a number beyond it is not told."""


@dataclass(frozen=True)
class Difference:
    """One attack's AUC less another's on the same pairs, with the bounds of a 95 % interval by users."""

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
        low, high = signed(self.low), signed(self.high)
        return f"{signed(self.value)} (95 % interval {low} to {high})"


@dataclass(frozen=True)
class Verdict:
    """The word, and why.

    Parameters
    ----------
    word
        What scripts compare with.
    text
        Sentences for people; they begin with the word.
    users_needed
        About how many users who forget would settle it, if the difference stays; None where it is settled, or nobody
        can say.
    """

    word: Word
    text: str
    users_needed: int | None = None


def difference(one: Values, other: Values, users: NDArray[np.int64]) -> Difference:
    """AUC of `one` less AUC of `other`, both attacks on the same members and others.

    The interval is that of a mean of paired differences over users: a user's part in an AUC is Obuchowski's
    (Biometrics 1997), and what both attacks find alike about a user cancels. Student's quantile, for users are few.

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
    spread = float(student.ppf(0.975, n - 1) * np.sqrt((parts**2).sum() * n / (n - 1)))
    return Difference(gap, max(-1.0, gap - spread), min(1.0, gap + spread))


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


def with_oracle(after: Difference, before: Difference, users: int, margin: float) -> Verdict:
    """The verdict by the retrained model.

    *Not forgotten*: the interval of after - oracle lies wholly outside ± margin. *Forgotten*: it lies wholly within,
    and the same attack does tell the model before from the oracle: its interval neither holds 0 nor lies within
    ± margin. All else *cannot be told*.

    Parameters
    ----------
    after, before
        The AUC on the model after less that on the oracle, and the same of the model before.
    users
        How many users the intervals go by.
    margin
        The largest difference that counts as none.
    """
    if after.beyond(margin):
        how = (
            "what was to be forgotten still stands out more than in the retrained model"
            if after.value > 0
            else "the model shuns what was to be forgotten more than one that never saw it, and that is a trace too"
        )
        return Verdict("not forgotten", f"Not forgotten: {how}. {_reads(after)}, lies outside ±{margin:g}.")
    if before.within(margin) or before.low <= 0 <= before.high:
        blind = f"The difference in AUC before - retrained is {before}."
        needed = None if before.within(margin) else _needed(users, before.half, abs(before.value))
        said = "Cannot be told: the attack cannot tell even the model before from the retrained one, so it cannot show "
        return Verdict("cannot be told", f"{said}that this one forgot. {blind}{_would_do(users, needed)}", needed)
    if after.within(margin):
        said = "Forgotten: like the retrained model."
        return Verdict("forgotten", f"{said} {_reads(after)}, lies within ±{margin:g}; before it was {before}.")
    needed = _needed(users, after.half, abs(margin - abs(after.value)))
    said = f"Cannot be told: {_reads(after, first=False)}, lies neither within ±{margin:g} nor outside."
    return Verdict("cannot be told", f"{said}{_would_do(users, needed)}", needed)


def without_oracle(before: tuple[float, float], after: tuple[float, float], moved: float) -> Verdict:
    """What can be said without a retrained model, which is little.

    Parameters
    ----------
    before, after
        The bounds of the AUC's interval on either model.
    moved
        By how much the scores of the forgotten moved at the median, in standard deviations of the user's list.
    """
    decides = "An oracle, the same model trained without what was to be forgotten, decides."
    if moved < UNMOVED:
        said = "Not forgotten: the scores of what was to be forgotten are as they were."
        return Verdict("not forgotten", f"{said} {decides}")
    seen, left = before[0] > 0.5, after[0] > 0.5
    if not seen:
        said = (
            "the attack cannot tell the forgotten from others even before, so it cannot show that they were forgotten"
        )
    elif left:
        said = (
            "the forgotten still stand out after. They may be remembered; or these users like such items anyway, and a "
            "model that never saw them would say so too"
        )
    else:
        said = (
            "the forgotten no longer stand out. So it looks where a model forgot, where it pushed them down without "
            "forgetting, and where it only became worse"
        )
    return Verdict("cannot be told", f"Cannot be told: {said}. {decides}")


def signed(value: float) -> str:
    """Three decimals and always a sign."""
    return f"{value:+.3f}".replace("-0.000", "+0.000")


def _reads(gap: Difference, first: bool = True) -> str:
    return f"{'The' if first else 'the'} difference in AUC after - retrained, {gap}"


def _needed(users: int, half: float, room: float) -> int | None:
    """Users with whom half the interval fits into the room; its width falls with their root."""
    found = users * (half / room) ** 2 if room > 0 and users > 1 else float("inf")
    return ceil(found) if found <= MANY else None


def _would_do(users: int, needed: int | None) -> str:
    if needed is None:
        return ""
    return f" About {needed:,} users who forget would do instead of {users:,}, if the difference stays as it is."
