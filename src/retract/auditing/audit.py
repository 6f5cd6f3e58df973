"""Did it forget? Before, after and the oracle, attacked alike and measured alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from retract import streams
from retract.auditing.attacks import AUC, Seen, Values, attack_type, auc, look, mean_score, run_attack
from retract.auditing.case import PRIMARY, Case, Version
from retract.auditing.figures import Audit, Figures
from retract.auditing.relearning import rounds_to_relearn
from retract.auditing.shadows import Shadows
from retract.auditing.verdict import Difference, Evidence, difference, judged, relative
from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError
from retract.evaluation.ranking import PerUser, evaluate
from retract.evaluation.rating import rating_errors
from retract.federation import Arrays, Engine
from retract.models.recommender import PredictsRatings, Recommender
from retract.stores.devices import MemoryDevices
from retract.stores.local import begun, engine_of, reader_of
from retract.systems.base import Progress, Stopwatch, no_progress

K = 20
ALWAYS = ("score", "rank", "learned")
"""The attacks that every audit runs, the last one where there are shadow models."""


@dataclass(frozen=True)
class Cost:
    """Seconds of wall-clock time, bytes sent both ways, rounds in which devices were asked, and how often one was."""

    seconds: float
    bytes_sent: int
    rounds: int
    updates: int = 0

    @classmethod
    def of(cls, engine: Engine, seconds: float) -> Cost:
        """What passed through an engine since it was made."""
        traffic = engine.traffic
        return cls(seconds, traffic.up + traffic.down, traffic.rounds, traffic.updates)


def train_oracle(case: Case, retained: Sharing, progress: Progress = no_progress) -> tuple[Version, Cost]:
    """The same system, configuration and seed, trained without what was withdrawn.

    Parameters
    ----------
    retained
        Who holds what after the withdrawal.

    Raises
    ------
    DataError
        If too little is left to train on; or the system learns from its devices, and those of the case are elsewhere.
    """
    devices = None if case.before.devices is None else MemoryDevices(retained)
    engine, watch, seed = engine_of(case.system, devices), Stopwatch(), case.before.trained.seed
    try:
        trained = begun(case.system, retained.shared, devices, engine, seed=seed, progress=progress)
    except DataError as error:
        raise DataError(f"no oracle can be trained on what is retained: {error}; audit without the oracle") from None
    return Version(trained, devices), Cost.of(engine, watch.seconds)


def require_oracle(case: Case, after: Version, oracle: Version) -> None:
    """Refuse what is no oracle of this case.

    Raises
    ------
    ConfigError
        If it is of another system, configuration or seed, or was trained on other data than what is retained.
    """
    mine, its = case.before.trained, oracle.trained
    for what, one, other in (("system", mine.system, its.system), ("seed", mine.seed, its.seed)):
        if one != other:
            raise ConfigError(f"the oracle has another {what} than the model: {other} instead of {one}; train it alike")
    own, found = mine.config.model_dump(mode="json"), its.config.model_dump(mode="json")
    if differing := [name for name in own if own[name] != found[name]]:
        told = ", ".join(f"{name} {found[name]} instead of {own[name]}" for name in differing)
        asked = " ".join(f"--set {name}={own[name]}" for name in differing)
        raise ConfigError(f"the oracle has another configuration than the model: {told}; train it with {asked}")
    if not (_alike(its.shared, after.trained.shared) and _alike(oracle.held, after.held)):
        raise ConfigError(
            f"the oracle was trained on other data: {len(oracle.held):,} interactions, "
            f"{len(its.shared):,} of them shared; retained are {len(after.held):,} and "
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
    attacks
        Names of attacks to run beside those of `ALWAYS`, such as one that a package plugs in. One that needs shadow
        models is left out where there are none.

    Raises
    ------
    ConfigError
        If there is no attack of a name.
    """

    def __init__(
        self,
        case: Case,
        oracle: tuple[Version, Cost | None] | None = None,
        shadows: Shadows | None = None,
        *,
        relearn: bool = False,
        attacks: Sequence[str] = (),
    ) -> None:
        self.case, self.shadows, self.relearn = case, shadows, relearn
        self.attacks = [attack_type(name) for name in dict.fromkeys((*ALWAYS, *attacks))]
        self.oracle = None if oracle is None else oracle[0]
        self.oracle_cost = None if oracle is None else oracle[1]
        self._score_before = _mean_score(case, case.before)
        self._before = self._examine(case.before, relearn=False)
        self._oracle = None if self.oracle is None else self._examine(self.oracle, relearn)
        parameters = None if self.oracle is None else self.oracle.trained.model
        self._distance_before = None if parameters is None else distance(case.before.trained.model, parameters)

    def judge(self, after: Version, cost: Cost) -> Audit:
        """The audit of one model.

        Parameters
        ----------
        after
            The model after unlearning, and the devices as they are then.
        cost
            What unlearning took.

        Raises
        ------
        ConfigError
            If the oracle is none of this model.
        """
        if self.oracle is not None:
            require_oracle(self.case, after, self.oracle)
        found = self._examine(after, self.relearn)
        before, oracle, users = self._before, self._oracle, self.case.targets.users
        change = np.abs(before.seen.scores[:, 0] - found.seen.scores[:, 0])
        leak = auc(change[0], change[1], users)
        gaps = [None if oracle is None else difference(one.attack, oracle.attack, users) for one in (found, before)]
        distances = self._distances(found.seen, after)
        spent = self.oracle_cost
        return Audit(
            verdict=judged(self._evidence(found, gaps, distances["parameter_distance"])),
            kind=self.case.kind,
            forgotten=len(self.case.forget),
            users=len(self.case.forget.active_users()),
            attack="score" if self.shadows is None else "learned",
            before=before.figures,
            after=found.figures,
            oracle=None if oracle is None else oracle.figures,
            difference=gaps[0],
            difference_before=gaps[1],
            recall_difference=None if oracle is None else relative(found.tested.recall, oracle.tested.recall),
            **distances,
            difference_auc=leak.value,
            difference_auc_low=leak.low,
            difference_auc_high=leak.high,
            seconds=cost.seconds,
            oracle_seconds=None if spent is None else spent.seconds,
            speedup=None if spent is None else spent.seconds / max(cost.seconds, 1e-9),
            memory_bytes=after.trained.memory.nbytes,
            bytes_sent=cost.bytes_sent,
            oracle_bytes_sent=None if spent is None else spent.bytes_sent,
            client_updates=cost.updates,
            rounds=cost.rounds,
            oracle_rounds=None if spent is None else spent.rounds,
        )

    def _evidence(self, found: _Examined, gaps: Sequence[Difference | None], apart: float | None) -> Evidence:
        """What the verdict on a model goes by; `apart` is the distance of its parameters to the oracle's."""
        initial = self._distance_before
        return Evidence(
            before=self._before.found,
            after=found.found,
            oracle=None if self._oracle is None else self._oracle.found,
            after_gap=gaps[0],
            before_gap=gaps[1],
            users=len(np.unique(self.case.targets.users)),
            parameters=None if initial is None or apart is None else (initial, apart),
        )

    def _distances(self, seen: Seen, after: Version) -> dict[str, Any]:
        """How far before and after are from the oracle; None throughout where there is none."""
        if self._oracle is None or self.oracle is None:
            names = ("ks_before", "ks_after", "ks_recommendations_before", "ks_recommendations_after")
            return dict.fromkeys((*names, "parameter_distance", "parameter_distance_before"))
        before, oracle = self._before.seen, self._oracle.seen
        return {
            "ks_before": _farthest(before, oracle),
            "ks_after": _farthest(seen, oracle),
            "ks_recommendations_before": _ks(before, oracle, PRIMARY),
            "ks_recommendations_after": _ks(seen, oracle, PRIMARY),
            "parameter_distance": distance(after.trained.model, self.oracle.trained.model),
            "parameter_distance_before": self._distance_before,
        }

    def _examine(self, version: Version, relearn: bool) -> _Examined:
        case = self.case
        seen = look(case.views(version), case.targets)
        scores = {kind.name: run_attack(kind, case.targets, seen, self.shadows) for kind in self.attacks}
        found = {name: None if one is None else auc(one[0], one[1], case.targets.users) for name, one in scores.items()}
        best = next(name for name in ("learned", "score") if found[name] is not None)
        rounds = rounds_to_relearn(case, version) if relearn and version.trained.model else None
        model = reader_of(case.system, version.trained, version.devices)
        tested = evaluate(model, version.held, case.test, k=K)
        measured = {
            **_utility(case, tested),
            "rmse": _rmse(model, version.held, case.test),
            "relearn_rounds": rounds,
        }
        figures = _figures(case, version, seen, found, self._score_before, measured)
        attack, told = scores[best], found[best]
        assert attack is not None
        assert told is not None
        return _Examined(seen, figures, attack, told, tested)


@dataclass(frozen=True)
class _Examined:
    """One model, attacked and measured.

    Parameters
    ----------
    seen, figures
        What it gives away, and what is told of it.
    attack, found
        The scores of the attack that the verdict goes by, shape [2, n], and how well it does.
    tested
        Accuracy of every tested user.
    """

    seen: Seen
    figures: Figures
    attack: Values
    found: AUC
    tested: PerUser


def distance(tables: Arrays, oracle: Arrays) -> float | None:
    """‖tables - oracle‖ / ‖oracle‖ over all tables of real numbers as one vector; None where names or shapes differ.

    Tables of whole numbers, such as codes and degrees, are left out: a difference of codes is no distance.
    """
    mine, its = _real(tables), _real(oracle)
    if {name: table.shape for name, table in mine.items()} != {name: table.shape for name, table in its.items()}:
        return None
    apart = sum(float(np.square(table - its[name]).sum()) for name, table in mine.items())
    size = sum(float(np.square(table).sum()) for table in its.values())
    return float(np.sqrt(apart / size)) if size else 0.0


def _real(tables: Arrays) -> dict[str, NDArray[np.float64]]:
    """The tables of real numbers, in double precision."""
    return {
        name: np.asarray(table, dtype=np.float64)
        for name, table in tables.items()
        if np.issubdtype(np.asarray(table).dtype, np.floating)
    }


def _figures(
    case: Case,
    version: Version,
    seen: Seen,
    attacks: dict[str, AUC | None],
    score_before: float,
    measured: dict[str, Any],
) -> Figures:
    plain, rank = attacks["score"], attacks["rank"]
    assert plain is not None
    assert rank is not None
    best = attacks["learned"] or plain
    score = max(_mean_score(case, version), 1e-12)
    return Figures(
        attack_auc=best.value,
        attack_low=best.low,
        attack_high=best.high,
        score_auc=plain.value,
        rank_auc=rank.value,
        rank_mean=float(seen.ranks[0, 0].mean()) if len(case.targets.users) else 0.5,
        mi_bf=score_before / score,
        mi_ng=_random_score(case, version) / score,
        forgotten_rmse=_rmse(version.primary(case.system, case.kind), case.targets.known, case.targets.members),
        attacks={name: None if one is None else one.value for name, one in attacks.items() if name not in ALWAYS},
        **measured,
    )


def _utility(case: Case, found: PerUser) -> dict[str, Any]:
    """Accuracy of everyone, of those who withdrew and of all others, and its gaps."""
    withdrew, sharing = case.forget.active_users(), case.before.sharing
    rest = np.setdiff1d(found.users, withdrew)
    return {
        "recall": _mean(found, "recall"),
        "ndcg": _mean(found, "ndcg"),
        "withdrawers_recall": _mean(found, "recall", withdrew),
        "withdrawers_ndcg": _mean(found, "ndcg", withdrew),
        "others_recall": _mean(found, "recall", rest),
        "others_ndcg": _mean(found, "ndcg", rest),
        "sharers_gap": _gap(found, sharing.shared.active_users()),
        "active_gap": _gap(found, _more_active(sharing.everything)),
    }


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
