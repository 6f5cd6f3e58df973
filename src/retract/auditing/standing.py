"""What an audit of scores says of each model, of the differences between them, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

from retract.auditing.attacks import AUC
from retract.auditing.verdict import Difference, Values, Verdict
from retract.report.wording import PHRASES, ranged

K = 20
MODELS = ("before", "after", "oracle")


@dataclass(frozen=True)
class Standing:
    """How the forgotten stand in one model.

    Parameters
    ----------
    attack_auc, attack_low, attack_high
        How well the score, standardised over the user's list, tells forgotten pairs from others, with the 95 % interval
        by users.
    rank_auc
        The same by the place in the list.
    rank_mean
        Mean place of the forgotten in their users' lists, 0 the top and 1 the bottom.
    mi_bf
        Mean σ(score) of the forgotten in the model before over this one; None where the scales differ.
    mi_ng
        Mean σ(score) of random pairs of the same users over the forgotten's.
    recall, ndcg
        At 20, over all tested users; None where nothing was held out.
    """

    attack_auc: float
    attack_low: float
    attack_high: float
    rank_auc: float
    rank_mean: float
    mi_bf: float | None
    mi_ng: float
    recall: float | None = None
    ndcg: float | None = None

    @property
    def attack(self) -> AUC:
        """How well the attack does, with its interval."""
        return AUC(self.attack_auc, self.attack_low, self.attack_high)

    def to_json(self) -> dict[str, Any]:
        """By the names that an audit has everywhere, in six digits."""
        renamed = {"recall": f"recall@{K}", "ndcg": f"ndcg@{K}"}
        return {renamed.get(name, name): _rounded(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class ScoreAudit:
    """What an audit of scores found.

    Parameters
    ----------
    verdict
        In words.
    notes
        What else a reader must know: what was left out, what could not be done.
    forgotten, attacked, users
        Forgotten pairs, those of them that were compared, and of how many users these are.
    matched
        What the other pairs are like: "popularity" or "random".
    margin
        The largest difference in AUC that counts as none.
    before, after, oracle
        The models; the oracle is None where none was given.
    after_gap, before_gap
        AUC less the oracle's, paired by users; None without an oracle.
    ks_before, ks_after
        Kolmogorov-Smirnov distance of the forgotten's ranks to those under the oracle.
    difference_auc, difference_auc_low, difference_auc_high
        How well an observer of both versions tells what was withdrawn, from how far scores moved; with its 95 %
        interval.
    ranks
        Of the forgotten in each model, for charts; shape [attacked].
    """

    verdict: Verdict
    notes: tuple[str, ...]
    forgotten: int
    attacked: int
    users: int
    matched: str
    margin: float
    before: Standing
    after: Standing
    oracle: Standing | None
    after_gap: Difference | None
    before_gap: Difference | None
    ks_before: float | None
    ks_after: float | None
    difference_auc: float
    difference_auc_low: float
    difference_auc_high: float
    ranks: Mapping[str, Values]

    @property
    def models(self) -> dict[str, Standing]:
        """The models that there are, by name."""
        return {name: one for name in MODELS if (one := getattr(self, name)) is not None}

    def to_json(self) -> dict[str, Any]:
        """One JSON object; the three models nested."""
        counted = ("forgotten", "attacked", "users", "matched", "margin")
        plain = (*counted, "ks_before", "ks_after", "difference_auc", "difference_auc_low", "difference_auc_high")
        gaps = {"difference": self.after_gap, "difference_before": self.before_gap}
        return {
            **self.verdict.to_json(),
            "notes": list(self.notes),
            **{name: _rounded(getattr(self, name)) for name in plain},
            **{
                name: None if gap is None else {side: _rounded(value) for side, value in asdict(gap).items()}
                for name, gap in gaps.items()
            },
            **{name: None if (one := getattr(self, name)) is None else one.to_json() for name in MODELS},
        }

    def __str__(self) -> str:
        """The verdict, the notes and the table, for people."""
        heads, rows = self.table()
        width = max(len(row[0]) for row in rows)
        lines = [f"{row[0]:<{width}}" + "".join(f"{cell:>18}" for cell in row[1:]) for row in [heads, *rows]]
        return "\n".join([self.verdict.text, *self.notes, "", *lines])

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The head of a table for people, and its rows; what was not measured is a dash or no row."""
        told = {name: one.to_json() for name, one in self.models.items()}
        rows = [
            [phrase, *(_shown(one[key]) for one in told.values())]
            for key, phrase in PHRASES.items()
            if any(one.get(key) is not None for one in told.values())
        ]
        attacks = [ranged(*astuple(one.attack)) for one in self.models.values()]
        rows[0] = [f"{PHRASES['attack_auc']}, 95 % interval", *attacks]
        if self.ks_after is not None:
            label = "KS distance of their places to the oracle’s (0 alike, 1 apart)"
            rows.append([label, _shown(self.ks_before), _shown(self.ks_after), _shown(0.0)])
        return ["", *self.models], rows


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _rounded(value: Any) -> Any:
    """Six significant digits: what is beyond them is noise, and differs between machines."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
