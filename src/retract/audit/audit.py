"""Did it forget? Before, after and the oracle, attacked alike and measured alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from torch import Tensor

from retract import streams
from retract.audit.attacks import AUC, Seen, auc, look, mean_score
from retract.audit.case import PRIMARY, Case, Version
from retract.audit.figures import Audit, Figures
from retract.audit.relearning import rounds_to_relearn
from retract.audit.shadows import Shadows
from retract.data import Interactions
from retract.errors import ConfigError, DataError
from retract.evaluation.ranking import PerUser, evaluate
from retract.evaluation.rating import rating_errors
from retract.federation import Clients, LocalEngine
from retract.models.recommender import PredictsRatings, Recommender
from retract.systems.base import Progress, Stopwatch, no_progress

K = 20


@dataclass(frozen=True)
class Cost:
    """Seconds of wall-clock time, and bytes sent both ways."""

    seconds: float
    bytes_sent: int


def train_oracle(case: Case, after: Clients, progress: Progress = no_progress) -> tuple[Version, Cost]:
    """The same system, configuration and seed, trained without what was withdrawn.

    Raises
    ------
    DataError
        If too little is left to train on.
    """
    clients = Clients(after.sharing)
    engine, watch = LocalEngine(clients), Stopwatch()
    try:
        trained = case.system.train(clients.sharing.shared, engine, seed=case.before.trained.seed, progress=progress)
    except DataError as error:
        raise DataError(f"no oracle can be trained on what is retained: {error}; audit without the oracle") from None
    return Version(trained, clients), Cost(watch.seconds, sent(engine))


def require_oracle(case: Case, after: Version, oracle: Version) -> None:
    """Refuse what is no oracle of this case.

    Raises
    ------
    ConfigError
        If it is of another system, configuration or seed, or was trained on other data than what is retained.
    """
    mine, its = case.before.trained, oracle.trained
    for what, one, other in (
        ("system", mine.system, its.system),
        ("configuration", mine.config, its.config),
        ("seed", mine.seed, its.seed),
    ):
        if one != other:
            raise ConfigError(f"the oracle has another {what} than the model: {other} instead of {one}; train it alike")
    if not (
        _alike(its.shared, after.trained.shared) and _alike(oracle.clients.interactions, after.clients.interactions)
    ):
        raise ConfigError(
            f"the oracle was trained on other data: {len(oracle.clients.interactions):,} interactions, "
            f"{len(its.shared):,} of them shared; retained are {len(after.clients.interactions):,} and "
            f"{len(after.trained.shared):,}, and they must be the same ones"
        )


def _alike(one: Interactions, other: Interactions) -> bool:
    """Whether they hold the same pairs over the same catalog, but for the ids of users who are erased in either."""
    if one.n_users != other.n_users:
        return False
    gone = np.flatnonzero((one.catalog.user_ids == "") | (other.catalog.user_ids == ""))
    one, other = (replace(each, catalog=each.catalog.without_users(gone)) for each in (one, other))
    return one == other


class Auditor:
    """Judges models that come of one withdrawal; what they are compared with is attacked and measured once.

    Parameters
    ----------
    case
        The withdrawal.
    oracle
        From `train_oracle`, or the like of it; what it took is None where nobody knows.
    shadows
        For the learned attack; without them `attack_auc` is that of the plain score.
    relearn
        Whether to measure how fast the forgotten is learnt again.
    """

    def __init__(
        self,
        case: Case,
        oracle: tuple[Version, Cost | None] | None = None,
        shadows: Shadows | None = None,
        *,
        relearn: bool = False,
    ) -> None:
        self.case, self.shadows, self.relearn = case, shadows, relearn
        self.oracle = None if oracle is None else oracle[0]
        self.oracle_cost = None if oracle is None else oracle[1]
        self._score_before = _mean_score(case, case.before)
        self._before = self._examine(case.before, relearn=False)
        self._oracle = None if self.oracle is None else self._examine(self.oracle, relearn)

    def judge(self, after: Version, cost: Cost) -> Audit:
        """The audit of one model.

        Parameters
        ----------
        after
            The model after unlearning, and the clients as they are then.
        cost
            What unlearning took.

        Raises
        ------
        ConfigError
            If the oracle is none of this model.
        """
        if self.oracle is not None:
            require_oracle(self.case, after, self.oracle)
        seen, figures = self._examine(after, self.relearn)
        change = np.abs(self._before[0].scores[:, 0] - seen.scores[:, 0])
        oracle, spent = self._oracle, self.oracle_cost
        return Audit(
            kind=self.case.kind,
            forgotten=len(self.case.forget),
            users=len(self.case.forget.active_users()),
            attack="score" if self.shadows is None else "learned",
            before=self._before[1],
            after=figures,
            oracle=None if oracle is None else oracle[1],
            ks_before=None if oracle is None else _farthest(self._before[0], oracle[0]),
            ks_after=None if oracle is None else _farthest(seen, oracle[0]),
            ks_recommendations_before=None if oracle is None else _ks(self._before[0], oracle[0], PRIMARY),
            ks_recommendations_after=None if oracle is None else _ks(seen, oracle[0], PRIMARY),
            parameter_distance=None
            if self.oracle is None
            else distance(after.trained.model, self.oracle.trained.model),
            difference_auc=_attack(self.case, change).value,
            seconds=cost.seconds,
            oracle_seconds=None if spent is None else spent.seconds,
            speedup=None if spent is None else spent.seconds / max(cost.seconds, 1e-9),
            memory_bytes=after.trained.memory.nbytes,
            bytes_sent=cost.bytes_sent,
            oracle_bytes_sent=None if spent is None else spent.bytes_sent,
        )

    def _examine(self, version: Version, relearn: bool) -> tuple[Seen, Figures]:
        seen = look(version.views(self.case.system, self.case.kind), self.case.targets)
        rounds = rounds_to_relearn(self.case, version) if relearn else None
        return seen, _figures(self.case, version, seen, self.shadows, self._score_before, rounds)


def sent(engine: LocalEngine) -> int:
    """Bytes both ways since the engine was made."""
    return int(engine.traffic.up.sum() + engine.traffic.down.sum())


def distance(tables: Mapping[str, Tensor], oracle: Mapping[str, Tensor]) -> float | None:
    """‖tables - oracle‖ / ‖oracle‖ over all of them as one vector; None where names or shapes differ."""
    if {name: table.shape for name, table in tables.items()} != {name: table.shape for name, table in oracle.items()}:
        return None
    apart = sum(float((table.double() - oracle[name].double()).square().sum()) for name, table in tables.items())
    size = sum(float(table.double().square().sum()) for table in oracle.values())
    return float(np.sqrt(apart / size)) if size else 0.0


def _figures(
    case: Case,
    version: Version,
    seen: Seen,
    shadows: Shadows | None,
    score_before: float,
    relearn_rounds: int | None,
) -> Figures:
    plain, rank = _attack(case, seen.scores[:, 0]), _attack(case, -seen.ranks[:, 0])
    best = plain if shadows is None else _attack(case, shadows.scores(seen, case.targets))
    score = max(_mean_score(case, version), 1e-12)
    model, held = case.system.recommender(version.trained, version.clients), version.clients.interactions
    found = evaluate(model, held, case.test, k=K)
    withdrew = case.forget.active_users()
    rest = np.setdiff1d(found.users, withdrew)
    sharing = case.before.clients.sharing
    return Figures(
        attack_auc=best.value,
        attack_low=best.low,
        attack_high=best.high,
        score_auc=plain.value,
        rank_auc=rank.value,
        rank_mean=float(seen.ranks[0, 0].mean()) if len(case.targets.users) else 0.5,
        recall=_mean(found, "recall"),
        ndcg=_mean(found, "ndcg"),
        withdrawers_recall=_mean(found, "recall", withdrew),
        withdrawers_ndcg=_mean(found, "ndcg", withdrew),
        others_recall=_mean(found, "recall", rest),
        others_ndcg=_mean(found, "ndcg", rest),
        mi_bf=score_before / score,
        mi_ng=_random_score(case, version) / score,
        sharers_gap=_gap(found, sharing.shared.active_users()),
        active_gap=_gap(found, _more_active(sharing.everything)),
        rmse=_rmse(model, held, case.test),
        forgotten_rmse=_rmse(version.primary(case.system, case.kind), case.targets.known, case.targets.members),
        relearn_rounds=relearn_rounds,
    )


def _attack(case: Case, scores: NDArray[np.float64]) -> AUC:
    return auc(scores[0], scores[1], case.targets.users)


def _mean_score(case: Case, version: Version) -> float:
    targets = case.targets
    return mean_score(version.primary(case.system, case.kind), targets.users, targets.members.items, targets.known)


def _random_score(case: Case, version: Version) -> float:
    targets = case.targets
    items = streams.below(case.test.n_items, case.seed, 0, targets.users, "random pair", targets.members.items)
    return mean_score(version.primary(case.system, case.kind), targets.users, items, targets.known)


def _mean(found: PerUser, metric: str, users: NDArray[np.int64] | None = None) -> float | None:
    values = found.mean(users)[f"{metric}@{found.k}"]
    return None if np.isnan(values) else values


def _rmse(model: Recommender, history: Interactions, of: Interactions) -> float | None:
    """Of predicted ratings; None where the model predicts none, or none were given."""
    if not isinstance(model, PredictsRatings) or of.ratings is None or not len(of):
        return None
    return rating_errors(model, history, of).rmse


def _gap(found: PerUser, group: NDArray[np.int64]) -> float | None:
    """NDCG of a group over that of all others; None where either is empty."""
    inside, outside = _mean(found, "ndcg", group), _mean(found, "ndcg", np.setdiff1d(found.users, group))
    return None if inside is None or outside is None else inside - outside


def _more_active(held: Interactions) -> NDArray[np.int64]:
    """Users with more interactions than the median one."""
    degrees, users = held.user_degrees(), held.active_users()
    chosen: NDArray[np.int64] = users[degrees[users] > np.median(degrees[users])]
    return chosen


def _farthest(one: Seen, other: Seen) -> float:
    """The largest distance over all views of both: who hides in one of them has not forgotten."""
    return max(_ks(one, other, name) for name in one.names if name in other.names)


def _ks(one: Seen, other: Seen, name: str) -> float:
    """Between the places of the forgotten in one view of two models."""
    first, second = (seen.ranks[0, seen.names.index(name)] for seen in (one, other))
    with np.errstate(divide="ignore"):  # the p-value of a single pair, which nobody asked for
        return float(ks_2samp(first, second, method="asymp").statistic) if len(first) else 0.0
