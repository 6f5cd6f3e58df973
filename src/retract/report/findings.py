"""What the figures say, in sentences that follow the figures: good or bad."""

from __future__ import annotations

import math
from itertools import pairwise

from retract.report.facts import Costs, Group, Level, Story, Trace
from retract.report.wording import metric, pace, percent, seconds, significant, size

SMALL_GAP = 0.005
"""A gap in mean percentile rank below which it makes no sense to say how much of it was closed."""
ALIKE = 0.002
"""Differences in accuracy below this are not called a rise or a fall."""


def sharing(levels: tuple[Level, ...]) -> str:
    """Whether sharing more made the recommendations better."""
    ndcg = [level.accuracy.ndcg for level in levels]
    first, last = ndcg[0], ndcg[-1]
    ends = f"NDCG@20 is {metric(first)} when nobody shares and {metric(last)} when everybody shares everything"
    falls = [
        f"from {percent(one.ratio)} to {percent(two.ratio)}"
        for one, two in pairwise(levels)
        if two.accuracy.ndcg < one.accuracy.ndcg - ALIKE
    ]
    steps = f"It falls {_listed(falls)}." if falls else f"At no step does it fall by more than {ALIKE}."
    if abs(last - first) < ALIKE or first == 0:
        return f"{ends}: hardly any difference in this run. {steps}"
    return f"{ends}, {significant(last / first)} times as much. {steps}"


def closing(trace: Trace) -> str:
    """How far unlearning went from the model before towards the oracle."""
    before, after, oracle = trace.means
    gap = oracle - before
    if abs(gap) < SMALL_GAP:
        return (
            f"Before and oracle differ by only {percent(abs(gap), 2)} of the list in mean position, less than "
            f"{percent(SMALL_GAP, 1)}: the gap is too small to speak of closing it."
        )
    closed = (after - before) / gap
    span = f"The gap in mean position between before and oracle is {percent(abs(gap), 2)} of the list"
    if closed < 0:
        return f"{span}. Unlearning moved the wrong way: it grew by {percent(-closed)}."
    if closed <= 1:
        return f"{span}; unlearning closed {percent(closed)} of it."
    return (
        f"{span}. Unlearning overshot: it went {percent(closed - 1)} further. "
        "What stands elsewhere than the oracle puts it is a trace of its own, in either direction."
    )


def keeping(groups: tuple[Group, ...]) -> str:
    """Whether the recommendations stayed as good as the oracle's."""
    parts = [
        f"{significant(group.accuracy.after.recall / group.accuracy.oracle.recall)} of the oracle’s for "
        f"{group.name[0].lower()}{group.name[1:]}"
        for group in groups
        if group.accuracy.oracle.recall > 0  # also leaves out groups without a tested user
    ]
    if not parts:
        return "The oracle’s Recall@20 is 0 for every group, so there is nothing to compare with."
    return f"After unlearning, Recall@20 is {_listed(parts)}."


def agreeing(story: Story) -> str:
    """Whether unlearning brought the lists nearer to the oracle's."""
    found = story.agreement
    before, after = significant(found.before, 2), significant(found.after, 2)
    if abs(found.after - found.before) < 0.05:
        verdict = "so unlearning brought the lists no nearer to the oracle’s"
    elif found.after > found.before:
        verdict = "so unlearning brought the lists nearer to the oracle’s"
    else:
        verdict = "so by this measure unlearning led the lists away from the oracle’s"
    return (
        f"Over all {story.withdrawers} withdrawers, {before} of the oracle’s {found.k} entries were already in the "
        f"list before and {after} are in the list after unlearning, {verdict}."
    )


def timing(costs: Costs) -> str:
    """Time against the oracle's."""
    ratio = costs.retraining.seconds / max(costs.unlearning.seconds, 1e-9)
    both = f"Unlearning took {seconds(costs.unlearning.seconds)}, retraining {seconds(costs.retraining.seconds)}"
    return f"{both}: unlearning was {pace(ratio)}."


def storing(costs: Costs) -> str:
    """Memory against a log of updates."""
    return (
        f"To be able to unlearn, the server keeps {size(costs.memory)}. Methods that replay history keep a log of all "
        f"client updates instead; for the same training it would take {size(costs.update_log)}. What is kept here is "
        f"{percent(costs.memory / max(costs.update_log, 1), 2)} of that."
    )


def closed_part(trace: Trace) -> float:
    """The part of the gap that was closed; NaN where the gap is too small to say."""
    before, after, oracle = trace.means
    return (after - before) / (oracle - before) if abs(oracle - before) >= SMALL_GAP else math.nan


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
