"""What the rows of a comparison say of each method: its figures over the seeds, beside its oracle's, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from retract.report.wording import count, metric, pace, plus_minus, ranged, signed

LIKE = {"same parameters", "like the oracle"}
"""Reasons of an audit's verdict by which a model is like its oracle …"""
UNLIKE = {"still there", "over-forgot"}
"""… and by which it is not."""
CLEAR = 1.5
"""How many times as long the next one takes if a method is called the fastest, or retraining if it is slower."""
WIDE = 0.5
"""A deviation that is more of the mean than this says nothing: the ends are told instead."""
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
    ends
        The least and the greatest; NaN where no seed has it.
    """

    mean: float
    deviation: float
    measured: int
    runs: int
    ends: tuple[float, float] = (math.nan, math.nan)

    @classmethod
    def over(cls, values: Iterable[float]) -> Spread:
        """The spread of some values, NaN among them being none."""
        every = np.fromiter(values, dtype=np.float64)
        found = every[~np.isnan(every)]
        mean = float(found.mean()) if len(found) else math.nan
        deviation = float(found.std(ddof=1)) if len(found) > 1 else math.nan
        ends = (float(found.min()), float(found.max())) if len(found) else (math.nan, math.nan)
        return cls(mean, deviation, len(found), len(every), ends)

    def show(self, show: Callable[[float], str], relative: bool = False) -> str:
        """Mean ± deviation, and of how many seeds where some have none.

        A relative deviation that is `WIDE` is left out: the least and the greatest stand instead.
        """
        if relative and self.deviation > WIDE * abs(self.mean):
            text = " to ".join(show(end) for end in self.ends)
        else:
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

    def auc(self, model: str) -> str:
        """The attack's AUC on a model: with its 95 % interval from one seed, with the deviation from several."""
        value = self.of(f"attack_auc_{model}")
        if len(self.rows) > 1:
            return value.show(lambda one: metric(one, 3))
        return ranged(value.mean, *(self.mean(f"attack_{side}_{model}") for side in ("low", "high")))

    @property
    def gap(self) -> str:
        """AUC after less the oracle's, with the 90 % interval; of several seeds with the ends of all intervals."""
        low, high = self.of("difference_low").ends[0], self.of("difference_high").ends[1]
        value = signed(self.mean("difference"))
        return value if math.isnan(low) else f"{value} ({signed(low)} to {signed(high)})"

    @cached_property
    def reasons(self) -> set[str]:
        """What the audits' verdicts come of, over the seeds; nothing where they gave none."""
        return {str(row["reason"]) for row in self.rows if row.get("reason") is not None}

    @cached_property
    def blind(self) -> bool:
        """Whether with some seed the attack takes even the model before for the oracle: it vouches for nobody."""
        return "attack sees nothing" in self.reasons

    @cached_property
    def forgetting(self) -> str:
        """How it stands to the oracle by the audits' verdicts: with every seed alike, or not."""
        if not self.reasons:
            return "not measured"
        if wrong := self.reasons & UNLIKE:
            alike = len(wrong) == 1 and not self.reasons & LIKE
            return f"not like it: {wrong.copy().pop() if alike else 'differs by seed'}"
        if self.reasons <= LIKE:
            return "same as the oracle" if self.reasons == {"same parameters"} else "like the oracle"
        if self.blind:
            return "cannot be told: the attack finds nothing even before"
        return f"not enough data to say{self._needed}"

    @property
    def _needed(self) -> str:
        """How many users would do, where that can be told of every seed that is not settled."""
        open_ = [row.get("users_needed") for row in self.rows if row.get("reason") == "not enough data"]
        known = [number for number in open_ if isinstance(number, int)]
        return f": about {count(max(known))} users would do" if known and len(known) == len(open_) else ""

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """What else speaks against it, or cannot be told."""
        found = {str(row.get("usefulness", "not measured")) for row in self.rows}
        told = {
            "less useful": "loses accuracy",
            "more useful": "more accurate than the oracle, which is no likeness either",
            "not enough data": "not enough data on its accuracy",
            "not measured": "accuracy not measured",
        }
        loses = tuple(said for word, said in told.items() if word in found)
        return (*loses, pace(self.mean("speedup"))) if CLEAR * self.mean("speedup") < 1 else loses

    @property
    def likened(self) -> bool:
        """Whether it forgot like the oracle, by every seed."""
        return bool(self.reasons) and self.reasons <= LIKE

    @property
    def refused(self) -> bool:
        """Whether it did not, by some seed."""
        return bool(self.reasons & UNLIKE)

    @property
    def accepted(self) -> bool:
        """Whether it forgot like the oracle, is as useful, and not clearly slower than retraining."""
        return self.likened and not self.faults

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
        """The methods that are more than references, the acceptable first, then by their distance from the oracle."""
        return tuple(sorted((entry for entry in self.entries if entry.method not in ROLES), key=closeness))

    @property
    def blind(self) -> list[str]:
        """Systems of which the attack cannot tell before from oracle."""
        return [name for name, entries in self.systems.items() if entries[0].blind]

    def marks(self, entry: Entry) -> list[str]:
        """What an entry is the best at: of those acceptable the fastest, where that is clear."""
        return ["fastest acceptable"] if fastest([one for one in self.candidates if one.accepted]) is entry else []


def fastest(entries: Sequence[Entry]) -> Entry | None:
    """The one that takes least time, if the next takes `CLEAR` times as long; None where it cannot be told."""
    found = sorted(entries, key=lambda one: last(one.mean("seconds")))
    clear = len(found) > 1 and found[1].mean("seconds") >= CLEAR * found[0].mean("seconds")
    return found[0] if clear else None


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
    """For sorting: acceptable first, then by the distance from the oracle; what was not measured is last."""
    return (-entry.accepted, *(last(entry.mean(key)) for key in ("attack_distance", "ks_after", "seconds")))


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
        "recall_ratio": value("recall@20_after") / recall,
        "before_ratio": value("recall@20_before") / recall,
    }


def _value(row: Row, key: str) -> float:
    """A row's figure as a number; NaN where there is none."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else math.nan
