"""Tuning Exact's settings on a validation part of what is shared: one closed form per candidate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retract.data import Interactions
from retract.errors import DataError
from retract.evaluation.ranking import evaluate
from retract.systems.base import Progress, Stopwatch, no_progress
from retract.systems.exact.closed_form import solve
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.reading import recommender_of
from retract.systems.exact.settling import HELD_OUT, judges_of, settled

GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "ease": {"ease_exponent": (0.25, 0.5, 0.75), "ridge": (10, 20, 50, 100, 200)},
    "filter": {"filter_prior": (0, 5, 20), "filter_beta": (0.1, 0.2, 0.3, 0.4, 0.5)},
    "spectral": {"degree_prior": (5, 20, 50), "popularity": (0.1, 0.25, 0.4), "blend": (0, 2)},
}
"""Candidates by form."""
JUDGES = 5000
"""Users that judge a candidate at most, drawn by the seed."""


@dataclass(frozen=True)
class Candidate:
    """Settings and form, how well they rank what was held out of the shared data, and the seconds they took."""

    form: str
    settings: Mapping[str, float]
    recall: float
    ndcg: float
    seconds: float


def tune(
    shared: Interactions,
    config: ExactConfig,
    *,
    grid: Mapping[str, Sequence[float]] | None = None,
    part: float = HELD_OUT,
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
    own, judge = judges_of(shared, part, JUDGES, seed)
    if not len(judge):
        raise DataError("nobody shares enough to hold a part of it out: share more, or hold out a larger part")
    config, train, history = settled(shared, config, seed).config, shared - judge, own - judge
    values = grid if grid is not None else GRIDS[config.form]
    found = []
    candidates = list(itertools.product(*values.values()))
    for number, chosen in enumerate(candidates):
        progress("tuning", number, len(candidates))
        settings = dict(zip(values, chosen, strict=True))
        tried, watch = ExactConfig.model_validate({**config.model_dump(), **settings}), Stopwatch()
        model = solve(train, tried).model
        means = evaluate(recommender_of(model, tried), history, judge)
        recall, ndcg = float(means.recall.mean()), float(means.ndcg.mean())
        found.append(Candidate(tried.form, settings, recall, ndcg, round(watch.seconds, 3)))
    progress("tuning", len(candidates), len(candidates))
    return sorted(found, key=lambda candidate: -candidate.ndcg)
