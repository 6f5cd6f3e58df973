"""What Exact's settings leave open, found on a part of what is shared that is held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data import Interactions
from retract.data.splits import counts_held_out, split_per_user
from retract.evaluation.ranking import evaluate
from retract.models.recommender import Mixed, Recommender, Scores
from retract.systems.exact.closed_form import filter_tables, folding_tables
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.reading import FilterRecommender, folding_of
from retract.systems.exact.tables import Tables
from retract.systems.exact.unlearning import resolve

BETAS, POPULARITIES, BLENDS = (0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.25, 0.4), (0.0, 0.5, 1.0, 2.0, 4.0)
"""What is tried: the filter's β, the popularity of the spectral form, and the filter's weight beside it."""
USUAL: Mapping[str, float] = {"filter_beta": 0.3, "popularity": 0.25, "blend": 0.0}
"""Where nothing can be held out."""
AS_GOOD = 0.98
"""Of the best NDCG: where the filter alone reaches it, it is taken, for it forgets in milliseconds."""
HELD_OUT = 0.2
"""What is held out of a judge's interactions."""
JUDGES = 1000
"""Users that judge at most."""
MANY = 8
"""Where judges have more than one in so many interactions, to withdraw their part costs more than to train again."""


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


class Settled(NamedTuple):
    """Settings that leave nothing open, what the log is to say of them, and the filter's tables if these were made."""

    config: ExactConfig
    how: Mapping[str, object]
    filter: Tables | None = None


def judges_of(shared: Interactions, part: float, judges: int, seed: int) -> tuple[Interactions, Interactions]:
    """What so many users share, half of all users at most, and the part of it by which they judge.

    The users are drawn by the seed, and their part is what they did last, or where there are no times a draw. The
    others' data stay whole: settings depend on how much is known, and what is trained on should be as dense as all.
    """
    users = np.flatnonzero(counts_held_out(shared.user_degrees(), part))
    order = np.argsort(streams.bits(seed, 0, users, "judges"))
    own = shared.of_users(users[order[: min(judges, (len(users) + 1) // 2)]])
    return own, split_per_user(own, part, seed, latest=shared.timestamps is not None)[1]


def settled(shared: Interactions, config: ExactConfig, seed: int) -> Settled:
    """The settings with nothing left open.

    They are a choice by data that includes what is withdrawn later. Whoever trains the oracle takes them as they are.
    """
    if config.count_private or config.form == "ease":
        why = "form is set to ease" if config.form == "ease" else "private interactions count, for EASE alone"
        return Settled(config.model_copy(update={"form": "ease"}), {"why": why})
    config = config.model_copy(update={"neighbours": config.neighbours_for(shared)})
    form, why = config.form, f"form is set to {config.form}"
    if form == "auto" and (seconds := config.seconds_for(shared)) > config.slow_seconds:
        form, why = (
            "filter",
            f"the spectral form would take about {seconds:.2g} s, and {config.slow_seconds:g} s are slow",
        )
    needed = ("filter_beta",) if form == "filter" else tuple(USUAL)
    if form != "auto" and all(getattr(config, name) is not None for name in needed):
        return Settled(config.model_copy(update={"form": form}), {"why": why})
    found, tables = _found(shared, config, form, seed)
    if form == "auto":
        why = "the filter alone ranks as well" if found["form"] == "filter" else "it ranks best what was held out"
    return Settled(config.model_copy(update=found), {"why": why, **found}, tables)


def _found(shared: Interactions, config: ExactConfig, form: str, seed: int) -> tuple[Mapping[str, Any], Tables | None]:
    """β, the popularity, the blend of the two, and the form, each by the best NDCG@20 of what is left open.

    Where judges are few, the filter is trained once: what is held out is withdrawn from that of all that is shared.
    """
    own, judge = judges_of(shared, HELD_OUT, JUDGES, seed)
    if not len(judge):
        usual = {name: value for name, value in USUAL.items() if getattr(config, name) is None}
        return {"form": "spectral" if form == "auto" else form, **usual}, None
    history, held = own - judge, cache(lambda: shared - judge)

    def best(name: str, values: Iterable[float], made: Callable[[ExactConfig], Recommender]) -> tuple[float, float]:
        """The value of a setting that ranks best, and its NDCG; of one that is given there is no other."""
        given = getattr(config, name)
        found = {}
        for value in values if given is None else (given,):
            tried = made(config.model_copy(update={name: value}))
            found[value] = float(evaluate(tried, history, judge).ndcg.mean())
        value = max(found, key=found.__getitem__)
        return value, found[value]

    if MANY * len(own) > len(shared):
        whole, tables = None, filter_tables(held(), config, {"degrees": held().item_degrees()})
    else:
        whole = filter_tables(shared, config, {"degrees": shared.item_degrees()})
        tables = Tables.of(resolve(whole, own, history, held, config).model)
    beta, alone = best("filter_beta", BETAS, lambda tried: FilterRecommender(tables, tried))
    if form == "filter":
        return {"form": form, "filter_beta": beta}, whole
    model = {**tables.dense, **folding_tables(held(), config)}
    popularity, _ = best("popularity", POPULARITIES, lambda tried: folding_of(model, tried))
    chosen = {"filter_beta": beta, "popularity": popularity}
    config = config.model_copy(update=chosen)
    both = [Remembered(folding_of(model, config)), Remembered(FilterRecommender(tables, config))]
    blend, mixed = best("blend", BLENDS, lambda tried: Mixed(both, [1.0, tried.blend or 0.0]))
    as_good = form == "auto" and alone >= AS_GOOD * mixed
    return {"form": "filter" if as_good else "spectral", **chosen, "blend": blend}, whole
