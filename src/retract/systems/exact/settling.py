"""What Exact's settings leave open, found on a part of what is shared that is held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data import Interactions
from retract.data.splits import split_per_user
from retract.evaluation.ranking import evaluate
from retract.models.recommender import Mixed, Recommender, Scores
from retract.systems.exact.closed_form import filter_gram, folding_tables
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.reading import FilterRecommender, folding_of
from retract.systems.exact.tables import Tables

BETAS, BLENDS = (0.1, 0.2, 0.3, 0.4, 0.5), (0.0, 0.5, 1.0, 2.0, 4.0)
"""What is tried: the filter's β, and its weight beside the spectral form."""
USUAL_BETA = 0.3
"""Where nothing can be held out."""
AS_GOOD = 0.98
"""Of the best NDCG: where the filter alone reaches it, it is taken, for it forgets in milliseconds."""
HELD_OUT = 0.2
"""What is held out of a judge's interactions."""
JUDGES = 1000
"""Users that judge at most."""


class Remembered:
    """A recommender that is asked the same more than once.

    Parameters
    ----------
    model
        What is asked the first time.
    """

    def __init__(self, model: Recommender) -> None:
        self.model, self.said = model, dict[bytes, Scores]()

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]; the history is to be the same for the same users."""
        key = users.tobytes()
        if key not in self.said:
            self.said[key] = self.model.scores(users, history)
        return self.said[key]


def parts_of(shared: Interactions, part: float, judges: int, seed: int) -> tuple[Interactions, Interactions]:
    """What is trained on, and a part of so many users, half of all at most, by which they judge; drawn by the seed.

    The others' data stay whole: settings depend on how much is known, and what is trained on should be as dense as all.
    """
    held_out = split_per_user(shared, part, seed)[1]
    users = held_out.active_users()
    order = np.argsort(streams.bits(seed, 0, users, "judges"))
    judge = held_out.of_users(np.sort(users[order[: min(judges, (len(users) + 1) // 2)]]))
    return shared - judge, judge


def settled(shared: Interactions, config: ExactConfig, seed: int) -> tuple[ExactConfig, dict[str, object]]:
    """The settings with nothing left open, and what the log is to say of them.

    They are a choice by data that includes what is withdrawn later. Whoever trains the oracle takes them as they are.
    """
    if config.count_private or config.form == "ease":
        why = "form is set to ease" if config.form == "ease" else "private interactions count, for EASE alone"
        return config.model_copy(update={"form": "ease"}), {"why": why}
    form, why = config.form, f"form is set to {config.form}"
    if form == "auto" and (seconds := config.seconds_for(shared)) > config.slow_seconds:
        form, why = (
            "filter",
            f"the spectral form would take about {seconds:.2g} s, and {config.slow_seconds:g} s are slow",
        )
    if form != "auto" and config.filter_beta is not None and (form == "filter" or config.blend is not None):
        return config.model_copy(update={"form": form}), {"why": why}
    found = _found(shared, config, form, seed)
    if form == "auto":
        why = "the filter alone ranks as well" if found["form"] == "filter" else "it ranks best what was held out"
    return config.model_copy(update=found), {"why": why, **found}


def _found(shared: Interactions, config: ExactConfig, form: str, seed: int) -> Mapping[str, Any]:
    """β, then the blend, then the form, each the best by NDCG@20 of what is left open."""
    train, judge = parts_of(shared, HELD_OUT, JUDGES, seed)
    betas = BETAS if config.filter_beta is None else (config.filter_beta,)
    blends = BLENDS if config.blend is None else (config.blend,)
    if not len(judge):
        beta = USUAL_BETA if config.filter_beta is None else config.filter_beta
        return {"form": "spectral" if form == "auto" else form, "filter_beta": beta, "blend": blends[0]}

    def ndcg(model: Recommender) -> float:
        return float(evaluate(model, train, judge).ndcg.mean())

    tables = Tables(filter_gram(train, config), {"degrees": train.item_degrees()})
    filters = {beta: FilterRecommender(tables, config.model_copy(update={"filter_beta": beta})) for beta in betas}
    alone = {beta: ndcg(filters[beta]) for beta in betas}
    beta = max(alone, key=alone.__getitem__)
    if form == "filter":
        return {"form": form, "filter_beta": beta}
    folding = folding_of({**tables.dense, **folding_tables(train, config)}, config)
    both = [Remembered(folding), Remembered(filters[beta])]
    mixed = {blend: ndcg(Mixed(both, [1.0, blend])) for blend in blends}
    blend = max(mixed, key=mixed.__getitem__)
    as_good = form == "auto" and alone[beta] >= AS_GOOD * mixed[blend]
    return {"form": "filter" if as_good else "spectral", "filter_beta": beta, "blend": blend}
