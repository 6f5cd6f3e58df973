"""Did your recommender forget? The audit of anybody's model, by nothing but the scores that it gives.

What can be asked of it stands in `adapters`, what it is asked about in `ground`, and how it is judged in `verdict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import ks_2samp

from retract import streams
from retract.auditing.adapters import Scorer, recognise
from retract.auditing.attacks import AUC, auc
from retract.auditing.ground import Ground, bring_together, gather, named
from retract.auditing.standing import MODELS, K, ScoreAudit, Standing
from retract.auditing.targets import Targets
from retract.auditing.verdict import MARGIN, Evidence, Values, difference, judged
from retract.data import Columns, Interactions
from retract.data.columns import USUAL
from retract.errors import ConfigError, DataError
from retract.evaluation.ranking import batches, evaluate

SHORT = 50
"""Lists of fewer items place the forgotten but coarsely."""
ALIKE = 2.0
"""Scores of two models are on one scale if the spread of their lists differs by a factor less than this."""


def audit_scores(
    before: Any,
    after: Any,
    *,
    forget: object,
    oracle: Any = None,
    history: object | None = None,
    test: object | None = None,
    items: Sequence[Any] | None = None,
    user_ids: Sequence[Any] | None = None,
    item_ids: Sequence[Any] | None = None,
    columns: Columns = USUAL,
    margin: float = MARGIN,
    seed: int = 0,
) -> ScoreAudit:
    """Audit the forgetting of any recommender that gives scores.

    Parameters
    ----------
    before, after, oracle
        The model as it was, as it is, and the same trained without what was withdrawn: functions of (users, items), or
        anything that `adapters.recognise` knows. Without an oracle little can be said.
    forget
        What was withdrawn: a pandas or polars frame, a file, a CSR matrix or interactions, by original ids.
    history
        What users hold after the withdrawal. Without it others cannot be matched by popularity, and are drawn.
    test
        Held-out interactions: neither forgotten nor others, and what Recall@20 and NDCG@20 are measured on.
    items
        Items that models can recommend besides those that the data or the models themselves name.
    user_ids, item_ids
        The ids of the rows of models that know numbers only (implicit); the numbers unless given.
    columns
        The columns' names where they are not the usual ones.
    margin
        The largest difference in AUC that counts as none.
    seed
        Key of the others.

    Raises
    ------
    ConfigError
        If a model cannot be asked, the margin lies outside (0, 0.5), or the forget set is empty.
    DataError
        If data cannot be read, or a model gives no scores of the shape that was asked for.
    """
    given = {name: model for name, model in zip(MODELS, (before, after, oracle), strict=True) if model is not None}
    scorers = {name: recognise(model, user_ids, item_ids) for name, model in given.items()}
    lists = [known for one in scorers.values() if (known := one.items) is not None]
    lists += [] if items is None else [items]
    if not lists and history is None and not hasattr(forget, "indptr"):
        raise ConfigError("the forgotten pairs have nothing to be compared with: give history= or items=")
    return judge(scorers, gather(forget, history, test, lists, columns), margin=margin, seed=seed)


def evaluate_scores(
    model: Any,
    test: object,
    *,
    history: object | None = None,
    k: int = K,
    user_ids: Sequence[Any] | None = None,
    item_ids: Sequence[Any] | None = None,
    columns: Columns = USUAL,
) -> dict[str, float | None]:
    """Recall@k and NDCG@k of any recommender that gives scores, means over the tested users; None where there are none.

    Parameters
    ----------
    model, user_ids, item_ids, columns
        As of `audit_scores`.
    test
        Held-out interactions, in any form that `audit_scores` takes.
    history
        What the users have had: never recommended, and what some models read. It holds none of the test part.
    k
        Length of the lists.

    Raises
    ------
    ConfigError
        If the model cannot be asked, or k is less than 1.
    DataError
        If data cannot be read, the history holds a test pair, or the model's scores have another shape.
    """
    if k < 1:
        raise ConfigError(f"k is {k}: it must be at least 1")
    scorer = recognise(model, user_ids, item_ids)
    lists = [] if scorer.items is None else [scorer.items]
    over, users, items = bring_together({"test": test, "history": history}, lists, columns)
    held = over.get("history", Interactions.empty(over["test"].catalog))
    again = over["test"] & held
    if len(again):
        raise DataError(
            f"history holds {len(again):,} of the {len(over['test']):,} test pairs ({named(again)}): what users have "
            "is not recommended, so it cannot be found; leave the test part out of the history"
        )
    found = evaluate(_Lists("the model", scorer, users, items), held, over["test"], k).mean()
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def judge(scorers: Mapping[str, Scorer], ground: Ground, *, margin: float = MARGIN, seed: int = 0) -> ScoreAudit:
    """Ask all models alike, and say what it shows; arguments and errors as of `audit_scores`."""
    if not 0 < margin < 0.5:
        raise ConfigError(f"margin is {margin}: it must lie between 0 and 0.5")
    if ground.test is not None and ground.history is None:
        raise ConfigError("test= needs history=: what users have must be left out of their recommendations")
    targets = ground.targets(seed)
    read = {name: _read(name, one, ground, targets, seed) for name, one in scorers.items()}
    found = {name: _standing(one, read["before"], targets) for name, one in read.items()}
    if ground.test is not None:
        useful = {name: _utility(name, one, ground) for name, one in scorers.items()}
        found = {name: Standing(**{**asdict(one), **useful[name]}) for name, one in found.items()}
    users = targets.users
    first, then, oracle = read["before"], read["after"], read.get("oracle")
    moved = np.abs(first.scores - then.scores)
    leak = auc(moved[0], moved[1], users)
    gaps = [None if oracle is None else difference(one.scores, oracle.scores, users) for one in (then, first)]
    evidence = Evidence(
        before=found["before"].attack,
        after=found["after"].attack,
        oracle=found["oracle"].attack if "oracle" in found else None,
        after_gap=gaps[0],
        before_gap=gaps[1],
        users=len(np.unique(users)),
        margin=margin,
        moved=float(np.median(moved[0])),
    )
    return ScoreAudit(
        verdict=judged(evidence),
        notes=tuple(_notes(ground, targets, read)),
        forgotten=len(ground.forget),
        attacked=len(users),
        users=evidence.users,
        matched="random" if ground.history is None else "popularity",
        margin=margin,
        before=found["before"],
        after=found["after"],
        oracle=found.get("oracle"),
        after_gap=gaps[0],
        before_gap=gaps[1],
        ks_before=None if oracle is None else _ks(first, oracle),
        ks_after=None if oracle is None else _ks(then, oracle),
        difference_auc=leak.value,
        difference_auc_low=leak.low,
        difference_auc_high=leak.high,
        ranks={name: one.ranks[0] for name, one in read.items()},
    )


@dataclass(frozen=True)
class _Reading:
    """What one model says of the targets.

    Parameters
    ----------
    scores, ranks
        Of members and of others, shape [2, n]: standardised over the user's list, and the part that stands above.
    raw, random
        Scores of members and of random pairs of the same users as the model gives them, shape [n].
    spread
        The median deviation of a list.
    strangers
        Users whom the model does not know.
    unscored
        Forgotten pairs of users whom it does know, of which it gives no score.
    length
        The median length of a list.
    """

    scores: Values
    ranks: Values
    raw: Values
    random: Values
    spread: float
    strangers: int
    unscored: int
    length: float


class _Lists:
    """A model's scores by codes, checked; a `Recommender` for the metrics.

    Parameters
    ----------
    name
        What messages call it.
    scorer
        The model.
    users, items
        What it calls those of the catalog.
    """

    def __init__(self, name: str, scorer: Scorer, users: Sequence[Any], items: Sequence[Any]) -> None:
        self._name, self._scorer, self._users, self._items = name, scorer, users, items

    def raw(self, users: NDArray[np.int64], history: Interactions) -> Values:
        """As the model gives them, float64, shape [len(users), n_items]; NaN for what it does not know.

        Raises
        ------
        DataError
            If they are of another shape, or infinite.
        """
        names = [self._users[user] for user in users]
        found = self._scorer.scores(names, self._items, history)
        wanted = (len(users), len(self._items))
        if found.shape != wanted:
            raise DataError(
                f"{self._name} gave scores of shape {found.shape} where {wanted} was asked for: a row for each user, a "
                "column for each item"
            )
        if np.isposinf(found).any():
            row, column = (int(place[0]) for place in np.nonzero(np.isposinf(found)))
            at = f"user {names[row]} and item {self._items[column]}"
            raise DataError(f"{self._name} gave an infinite score for {at}: scores must be finite, or NaN")
        return found

    def scores(self, users: NDArray[np.int64], history: Interactions) -> NDArray[np.float32]:
        """Shape [len(users), n_items]; what the model does not know stands last."""
        found = self.raw(users, history)
        return np.where(np.isnan(found), -np.inf, found).astype(np.float32)


def _read(name: str, scorer: Scorer, ground: Ground, targets: Targets, seed: int) -> _Reading:
    """Ask one model for the lists of all who forget, and see where the targets stand in them."""
    users, n = np.unique(targets.users), len(targets.users)
    items = np.stack([targets.members.items, targets.others])
    scores, ranks, raw, random = np.zeros((2, n)), np.zeros((2, n)), np.zeros(n), np.zeros(n)
    spreads, lengths, strangers, unscored = [], [], 0, 0
    draw = streams.bits(seed, 0, targets.users, "random pair", targets.members.items)
    for user, row in _rows(name, scorer, ground, targets, users):
        pairs = slice(*np.searchsorted(targets.users, (user, user + 1)))
        given = row[items[0, pairs]]
        if name == "before" and np.isneginf(given).any():
            raise DataError(
                f"before gives -inf to what user {ground.users[user]} was to forget: ask it for scores of all items, "
                "without leaving out what users have"
            )
        row, known = _filled(row, all_scored=ground.scored is None)
        strangers += not known
        unscored += int((~np.isfinite(given)).sum()) if known else 0
        own = np.sort(row[~np.isnan(row)])
        deviation = own.std()
        scores[:, pairs] = (row[items[:, pairs]] - own.mean()) / max(deviation, 1e-12)
        ranks[:, pairs] = _places(own, row[items[:, pairs]])
        raw[pairs], random[pairs] = row[items[0, pairs]], own[(draw[pairs] % np.uint64(len(own))).astype(np.int64)]
        spreads.append(deviation)
        lengths.append(len(own))
    if name == "before" and strangers == len(users):
        first = ground.users[users[0]]
        raise DataError(
            f"before knows none of the {len(users):,} users who forget (the first: {first!r}): are ids written as in "
            "the data it learnt from?"
        )
    found = (float(np.median(spreads)), strangers, unscored, float(np.median(lengths)))
    return _Reading(scores, ranks, raw, random, *found)


def _rows(
    name: str, scorer: Scorer, ground: Ground, targets: Targets, users: NDArray[np.int64]
) -> Iterator[tuple[int, Values]]:
    """Each user and the list, as the model gives it."""
    lists = _Lists(name, scorer, ground.users, ground.items)
    for part in batches(len(users), ground.forget.n_items):
        yield from zip(users[part].tolist(), lists.raw(users[part], targets.known), strict=True)


def _filled(row: Values, *, all_scored: bool) -> tuple[Values, bool]:
    """A list in which what the model does not know stands last, and whether it knows the user at all.

    Where only some pairs were scored, what was not is no part of the list. To a user whom the model does not know, all
    items are alike.
    """
    known = np.isfinite(row)
    if not known.any():
        return np.zeros_like(row), False
    if not all_scored:
        return row, True
    return np.where(known, row, row[known].min()), True


def _places(own: Values, values: Values) -> Values:
    """The part of a sorted list that stands above each value, ties half."""
    above = len(own) - np.searchsorted(own, values, side="right")
    below = np.searchsorted(own, values, side="left")
    return np.asarray(0.5 + (above - below) / (2.0 * max(len(own) - 1, 1)))


def _standing(read: _Reading, before: _Reading, targets: Targets) -> Standing:
    attack: AUC = auc(read.scores[0], read.scores[1], targets.users)
    spreads = sorted((read.spread, before.spread))
    mean = float(expit(read.raw).mean())
    return Standing(
        attack_auc=attack.value,
        attack_low=attack.low,
        attack_high=attack.high,
        rank_auc=auc(-read.ranks[0], -read.ranks[1], targets.users).value,
        rank_mean=float(read.ranks[0].mean()),
        mi_bf=float(expit(before.raw).mean()) / mean if spreads[1] < ALIKE * spreads[0] else None,
        mi_ng=float(expit(read.random).mean()) / mean,
    )


def _utility(name: str, scorer: Scorer, ground: Ground) -> dict[str, float | None]:
    """Recall and NDCG of what was held out."""
    assert ground.test is not None
    found = evaluate(_Lists(name, scorer, ground.users, ground.items), ground.known, ground.test, K).mean()
    return dict(zip(("recall", "ndcg"), found.values(), strict=True))


def _ks(one: _Reading, other: _Reading) -> float:
    """Between the places of the forgotten in two models."""
    with np.errstate(divide="ignore"):  # the p-value of a single pair, which nobody asked for
        return float(ks_2samp(one.ranks[0], other.ranks[0], method="asymp").statistic)


def _notes(ground: Ground, targets: Targets, read: Mapping[str, _Reading]) -> Iterator[str]:
    """What else a reader must know."""
    if ground.history is None:
        yield (
            "Without history= the other pairs could not be matched by popularity: they are random items, of which some "
            "may be what the users hold."
        )
    left = len(ground.forget) - len(targets.users)
    if left:
        yield (
            f"{left:,} of the {len(ground.forget):,} forgotten pairs were not compared: they are what is taken as "
            "known of users who keep nothing, or no other pair is like them."
        )
    for name, one in read.items():
        if one.strangers:
            yield f"{name} does not know {one.strangers:,} of the users; to them all items count as alike."
        if one.unscored:
            yield f"{name} has no score for {one.unscored:,} of the compared pairs; they count as the last of the list."
    length = min(one.length for one in read.values())
    if length < SHORT:
        yield f"The lists are short, {length:.0f} items at the median: ranks are coarse."
