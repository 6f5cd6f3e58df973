"""What the rows of a comparison say of each method: its figures over the seeds, beside its oracle's, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from retract.report.wording import count, plus_minus

KEEPS = 0.98
"""The part of the oracle's Recall@20 that an acceptable method keeps."""
SAME = 1e-4
"""A model whose parameters differ by less from the oracle's, relative to their norm, is the oracle but for rounding."""
ROLES = {"naive": "before", "retrain": "oracle"}
"""Methods that nobody compares for their own sake: they mark the two ends. With whose colour they have."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """One figure over the seeds.

    Parameters
    ----------
    mean
        NaN where no seed has it.
    deviation
        Of a sample; NaN below two seeds.
    measured, runs
        How many of how many seeds have it.
    """

    mean: float
    deviation: float
    measured: int
    runs: int

    @classmethod
    def over(cls, values: Iterable[float]) -> Spread:
        """The spread of some values, NaN among them being none."""
        every = np.fromiter(values, dtype=np.float64)
        found = every[~np.isnan(every)]
        mean = float(found.mean()) if len(found) else math.nan
        deviation = float(found.std(ddof=1)) if len(found) > 1 else math.nan
        return cls(mean, deviation, len(found), len(every))

    def show(self, show: Callable[[float], str], relative: bool = False) -> str:
        """Mean ± deviation, and of how many seeds where some have none."""
        text = plus_minus(self.mean, self.deviation, show, relative)
        return text if self.measured in (0, self.runs) else f"{text} ({self.measured} of {self.runs})"


@dataclass(frozen=True, eq=False)
class Entry:
    """A method of a system on one forget set, a row per seed; itself and no other, so that it can be looked up."""

    system: str
    method: str
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.system}/{self.method}"

    @property
    def role(self) -> str:
        """Whose colour it has."""
        return ROLES.get(self.method, "after")

    def of(self, key: str) -> Spread:
        """A figure over the seeds."""
        return Spread.over(_value(row, key) for row in self.rows)

    def mean(self, key: str) -> float:
        """Its mean."""
        return self.of(key).mean

    @cached_property
    def band(self) -> tuple[float, float]:
        """The 95 % interval of the oracle's attack AUC, seen from the oracle."""
        return self.mean("below"), self.mean("above")

    @cached_property
    def same(self) -> bool:
        """Whether with every seed it made the oracle's own parameters."""
        return all(_value(row, "parameter_distance") < SAME for row in self.rows)

    @cached_property
    def blind(self) -> bool:
        """Whether the attack takes even the model before for the oracle, so that it can vouch for nobody."""
        return self.mean("before_distance") <= self.mean("half_width")

    @cached_property
    def forgetting(self) -> str:
        """How it stands to the oracle by the attack."""
        if self.same:
            return "same as the oracle"
        distance, gap, limit = (self.mean(key) for key in ("attack_distance", "attack_gap", "half_width"))
        if math.isnan(distance):
            return "not measured"
        if distance <= limit:
            return "undecided" if self.blind else "like the oracle"
        if abs(gap) <= limit:
            return "differs by seed"
        return "still there" if gap > 0 else "over-forgot"

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """What else speaks against it."""
        loses = ("loses accuracy",) if self.mean("recall_ratio") < KEEPS else ()
        return (*loses, "slower than retraining") if self.mean("speedup") < 1 else loses

    @property
    def accepted(self) -> bool:
        """Whether it stands like the oracle, keeps the accuracy, and is no slower than retraining."""
        return self.forgetting in ("same as the oracle", "like the oracle") and not self.faults

    @property
    def verdict(self) -> str:
        """In words."""
        if self.method in ROLES:
            return "reference"
        return "; ".join((f"acceptable: {self.forgetting}" if self.accepted else self.forgetting, *self.faults))


@dataclass(frozen=True)
class Block:
    """All methods on one forget set."""

    forget: str
    kind: str
    entries: tuple[Entry, ...]

    @property
    def size(self) -> str:
        """How much is forgotten, of how many users; means over the seeds."""
        rows = [row for entry in self.entries for row in entry.rows]
        means = [Spread.over(_value(row, key) for row in rows).mean for key in ("forgotten", "users")]
        forgotten, users = ("–" if math.isnan(mean) else count(round(mean)) for mean in means)
        return f"{forgotten} interactions of {users} users"

    @cached_property
    def systems(self) -> Mapping[str, tuple[Entry, ...]]:
        """The entries by system."""
        names = dict.fromkeys(entry.system for entry in self.entries)
        return {name: tuple(entry for entry in self.entries if entry.system == name) for name in names}

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.forget}, {self.kind}" if self.kind else self.forget

    @cached_property
    def candidates(self) -> tuple[Entry, ...]:
        """The methods that are more than references, those closest to the oracle first."""
        return tuple(sorted((entry for entry in self.entries if entry.method not in ROLES), key=closeness))

    @property
    def blind(self) -> list[str]:
        """Systems of which the attack cannot tell before from oracle."""
        return [name for name, entries in self.systems.items() if entries[0].blind]

    def marks(self, entry: Entry) -> list[str]:
        """What an entry is the best at."""
        accepted = [one for one in self.candidates if one.accepted]
        if entry not in accepted:
            return []
        fastest = min(accepted, key=lambda one: last(one.mean("seconds")))
        return ["closest"] * (entry is accepted[0]) + ["fastest acceptable"] * (entry is fastest)


def read_blocks(rows: Sequence[Row]) -> list[Block]:
    """The rows by request, then by system and method, all in the order in which they first appear."""
    blocks: dict[tuple[str, str], dict[tuple[str, str], list[Row]]] = {}
    for row in rows:
        block = blocks.setdefault((str(row["forget"]), str(row.get("kind", ""))), {})
        block.setdefault((str(row["system"]), str(row["method"])), []).append({**row, **_relative(row)})
    return [
        Block(*request, tuple(Entry(*name, tuple(own)) for name, own in entries.items()))
        for request, entries in blocks.items()
    ]


def closeness(entry: Entry) -> tuple[float, ...]:
    """Distance from the oracle: by the attack, then by the ranks, then in seconds; what was not measured is last."""
    return tuple(last(entry.mean(key)) for key in ("attack_distance", "ks_after", "seconds"))


def last(value: float) -> float:
    """For sorting: what was not measured comes last."""
    return math.inf if math.isnan(value) else value


def _relative(row: Row) -> dict[str, float]:
    """A row's figures relative to its oracle's; NaN where either was not measured."""
    value = partial(_value, row)
    oracle, recall = value("attack_auc_oracle"), value("recall@20_oracle") or math.nan
    gap, before = value("attack_auc_after") - oracle, value("attack_auc_before") - oracle
    return {
        "attack_gap": gap,
        "attack_distance": abs(gap),
        "before_gap": before,
        "before_distance": abs(before),
        "below": value("attack_low_oracle") - oracle,
        "above": value("attack_high_oracle") - oracle,
        "half_width": (value("attack_high_oracle") - value("attack_low_oracle")) / 2,
        "recall_ratio": value("recall@20_after") / recall,
        "before_ratio": value("recall@20_before") / recall,
    }


def _value(row: Row, key: str) -> float:
    """A row's figure as a number; NaN where there is none."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else math.nan
