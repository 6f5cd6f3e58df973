"""What an audit says of a model before, after, and of the oracle; and of the way from one to the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retract.auditing.verdict import MARGIN, Difference, Verdict, useful

GAPS = ("difference", "difference_before", "recall_difference")
"""What an audit has with an interval: `attack_auc` and Recall@20 less the oracle's."""


@dataclass(frozen=True)
class Figures:
    """One model.

    Parameters
    ----------
    attack_auc, attack_low, attack_high
        The attack that `Audit.attack` names, and its 95 % interval.
    score_auc, rank_auc
        The plain attacks.
    rank_mean
        Mean place of the forgotten in their users' lists, 0 the top and 1 the bottom.
    recall, ndcg
        At 20, over all tested users; and over those who withdrew and all others, None where nobody is tested.
    mi_bf, mi_ng
        Mean σ(score) of the forgotten before over now; of random pairs over the forgotten (UnlearnRec).
    sharers_gap, active_gap
        NDCG@20 of those who share over those who do not; of the more active half over the less active.
    rmse, forgotten_rmse
        Of the ratings held out, and of those forgotten, where the model predicts ratings: what it was trained on, it
        predicts better than it should.
    relearn_rounds
        Rounds until the model knows the forgotten again as it did, when it is given them back; None where it does not
        within the limit, or the system cannot go on.
    attacks
        AUC of further attacks by name, such as those that packages plug in; None of one that was left out.
    """

    attack_auc: float
    attack_low: float
    attack_high: float
    score_auc: float
    rank_auc: float
    rank_mean: float
    recall: float | None
    ndcg: float | None
    withdrawers_recall: float | None
    withdrawers_ndcg: float | None
    others_recall: float | None
    others_ndcg: float | None
    mi_bf: float
    mi_ng: float
    sharers_gap: float | None
    active_gap: float | None
    rmse: float | None = None
    forgotten_rmse: float | None = None
    relearn_rounds: int | None = None
    attacks: Mapping[str, float | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """By the names that scripts rely on, in six digits."""
        return {_key(name): _rounded(value) for name, value in asdict(self).items()}

    def flat(self) -> dict[str, Any]:
        """The same in one level: an attack as `attack_NAME_auc`."""
        nested = self.to_json()
        attacks = nested.pop("attacks")
        return nested | {f"attack_{name}_auc": value for name, value in attacks.items()}


@dataclass(frozen=True)
class Audit:
    """Before, after, and where it was trained the oracle.

    Parameters
    ----------
    verdict
        In words, and why.
    kind, forgotten, users
        The request; how many interactions, of how many users.
    attack
        The attack behind `attack_auc`: "learned" where there were shadow models, else "score".
    difference, difference_before
        `attack_auc` after, and before, less the oracle's, paired by users; None without an oracle.
    recall_difference
        Recall@20 after less the oracle's, by users and as a part of the latter; None without one, or where nobody is
        tested.
    ks_before, ks_after
        Kolmogorov-Smirnov distance of the forgotten's ranks to those under the oracle: the largest over all views of
        the model that the request puts at stake.
    ks_recommendations_before, ks_recommendations_after
        The same in the recommendations alone.
    parameter_distance, parameter_distance_before
        ‖after - oracle‖ / ‖oracle‖ over all published tables of real numbers; None where they differ in shape.
    difference_auc, difference_auc_low, difference_auc_high
        How well an observer of both versions tells what was withdrawn, from how far scores moved; with its 95 %
        interval.
    seconds, oracle_seconds, speedup
        Wall-clock time of unlearning and of training the oracle on the same machine, and their ratio.
    memory_bytes, bytes_sent, oracle_bytes_sent
        Kept to make unlearning possible; sent both ways by unlearning, and by training the oracle.
    client_updates
        How often a device was asked by unlearning, all rounds together.
    rounds, oracle_rounds
        In which devices were asked, by unlearning and by training the oracle.
    """

    verdict: Verdict
    kind: str
    forgotten: int
    users: int
    attack: str
    before: Figures
    after: Figures
    oracle: Figures | None
    difference: Difference | None
    difference_before: Difference | None
    recall_difference: Difference | None
    ks_before: float | None
    ks_after: float | None
    ks_recommendations_before: float | None
    ks_recommendations_after: float | None
    parameter_distance: float | None
    parameter_distance_before: float | None
    difference_auc: float
    difference_auc_low: float
    difference_auc_high: float
    seconds: float
    oracle_seconds: float | None
    speedup: float | None
    memory_bytes: int
    bytes_sent: int
    oracle_bytes_sent: int | None
    client_updates: int
    rounds: int
    oracle_rounds: int | None

    def to_json(self) -> dict[str, Any]:
        """One JSON object; the three models nested, and the differences."""
        models = {name: None if one is None else one.to_json() for name, one in self._models()}
        plain = {name: _rounded(value) for name, value in asdict(self).items() if name not in ("verdict", *models)}
        judged = {**self.verdict.to_json(), "margin": MARGIN, "usefulness": useful(self.recall_difference)}
        return {**judged, **plain, **models}

    def flat(self) -> dict[str, Any]:
        """The same in one level: `attack_auc_before`, `recall@20_oracle`, `difference_low`, and so on."""
        nested = self.to_json()
        flat = {name: value for name, value in nested.items() if name not in dict(self._models())}
        for name in GAPS:
            gap = flat.pop(name) or dict.fromkeys(("value", "low", "high"))
            flat |= {name if side == "value" else f"{name}_{side}": value for side, value in gap.items()}
        for name, one in self._models():
            if one is not None:
                flat |= {f"{key}_{name}": value for key, value in one.flat().items()}
        return flat

    def _models(self) -> Iterator[tuple[str, Figures | None]]:
        yield from (("before", self.before), ("after", self.after), ("oracle", self.oracle))


def _key(name: str) -> str:
    """`withdrawers_recall` as `withdrawers_recall@20`."""
    return f"{name}@20" if name.endswith(("recall", "ndcg")) else name


def _rounded(value: Any) -> Any:
    """Six significant digits: what is beyond them is noise, and differs between machines."""
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
