"""Choosing Exact's settings on a validation part of what is shared: one closed form per candidate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retract import streams
from retract.data import Interactions
from retract.data.splits import split_per_user
from retract.errors import DataError
from retract.evaluation.ranking import evaluate
from retract.systems.base import Progress, Stopwatch, no_progress
from retract.systems.exact.closed_form import solve
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.reading import recommender_of

GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "ease": {"ease_exponent": (0.25, 0.5, 0.75), "ridge": (10, 20, 50, 100, 200)},
    "filter": {"filter_exponent": (0.5, 0.75, 1), "source_exponent": (0.5, 0.7, 1), "target_exponent": (0, 0.2, 0.3)},
    "block": {"ridge": (20, 50, 200), "blend": (1, 5, 20)},
}
"""Candidates by form."""
JUDGES = 5000
"""Users that judge a candidate at most, drawn by the seed."""


@dataclass(frozen=True)
class Candidate:
    """Settings, how well they rank what was held out of the shared data, and the seconds they took."""

    settings: Mapping[str, float]
    recall: float
    ndcg: float
    seconds: float


def tune(
    shared: Interactions,
    config: ExactConfig,
    *,
    grid: Mapping[str, Sequence[float]] | None = None,
    part: float = 0.1,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[Candidate]:
    """Train every candidate on most of what is shared and judge it by the rest.

    Parameters
    ----------
    shared
        What the server holds; a test fold must not be in it.
    config
        The settings that stay.
    grid
        Values by setting; those of `GRIDS` for the form unless given.
    part
        What is held out of every user's interactions to judge by, in (0, 1).

    Returns
    -------
    list of Candidate
        Best NDCG@20 first.

    Raises
    ------
    DataError
        If nobody shares enough to hold any of it out.
    """
    train, judge = split_per_user(shared, part, seed)
    if not len(judge):
        raise DataError("nobody shares enough to hold a part of it out: share more, or hold out a larger part")
    users = judge.active_users()
    order = np.argsort(streams.bits(seed, 0, users, "judges"))
    judge = judge.of_users(users[order[:JUDGES]])
    values = grid if grid is not None else GRIDS[config.form_for(shared.n_items)]
    found = []
    candidates = list(itertools.product(*values.values()))
    for number, chosen in enumerate(candidates):
        progress("tuning", number, len(candidates))
        settings = dict(zip(values, chosen, strict=True))
        tried, watch = ExactConfig.model_validate({**config.model_dump(), **settings}), Stopwatch()
        model = solve(train, tried).model
        means = evaluate(recommender_of(model, tried), train, judge).mean()
        found.append(Candidate(settings, means["recall@20"], means["ndcg@20"], round(watch.seconds, 3)))
    progress("tuning", len(candidates), len(candidates))
    return sorted(found, key=lambda candidate: -candidate.ndcg)
