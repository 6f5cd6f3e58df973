"""`retract compare`: its rows as a CSV file, a LaTeX table, and a page to look at."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from retract.report.page import ABOUT, KEEPS, plain, render_comparison, stored
from retract.report.wording import count, latex, metric, percent, plus_minus, seconds, signed, significant, times
from retract.systems.storage import write_atomically

PAGE, ROWS, TABLE = "index.html", "rows.csv", "table.tex"
FIRST = ("system", "method", "forget", "seed", "kind", "data", "share", "threads", "train_seconds", "attack")
"""The columns of `rows.csv` that stand before all others, which follow by name."""
SAME = 1e-4
"""A model whose parameters differ by less from the oracle's, relative to their norm, is the oracle but for rounding."""
ROLES = {"naive": "before", "retrain": "oracle"}
"""Methods that nobody compares for their own sake: they mark the two ends. With whose colour they have."""
AUC = partial(metric, digits=3)
HEADS = ("System", "Method", "Attack AUC", "|AUC − oracle|", "KS", "Recall@20", "NDCG@20", "Time", "Speed-up", "Kept")
"""The columns of `table.tex`."""
TEX = r"""%% Needs \usepackage{booktabs}
\begin{table*}[t]
\centering
\scriptsize
\setlength{\tabcolsep}{3pt}
\caption{%(caption)s}
\label{tab:unlearning}
\begin{tabular}{@{}llrrrrrrrr@{}}
\toprule
%(heads)s \\
%(rows)s
\bottomrule
\end{tabular}
\end{table*}
"""

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
        return tuple(sorted((entry for entry in self.entries if entry.method not in ROLES), key=_closeness))

    @property
    def blind(self) -> list[str]:
        """Systems of which the attack cannot tell before from oracle."""
        return [name for name, entries in self.systems.items() if entries[0].blind]

    def marks(self, entry: Entry) -> list[str]:
        """What an entry is the best at."""
        accepted = [one for one in self.candidates if one.accepted]
        if entry not in accepted:
            return []
        fastest = min(accepted, key=lambda one: _last(one.mean("seconds")))
        return ["closest"] * (entry is accepted[0]) + ["fastest acceptable"] * (entry is fastest)


def write_comparison(out: Path, rows: Sequence[Row], about: Row) -> Path:
    """Write `rows.csv`, `table.tex` and `index.html` into a folder, each of them atomically.

    Parameters
    ----------
    out
        The folder; made where it is missing.
    rows
        One per system, method, forget set and seed: these, and `Audit.flat()`. What was not measured may be None or
        missing.
    about
        Where the rows come from: data, users, items, interactions, split, share, kind, seeds, machine, cores, threads,
        version, command, and skipped: a list of system, method and reason.

    Returns
    -------
    Path
        The page.
    """
    blocks = read_blocks(rows)
    write_atomically(out / ROWS, to_csv(rows).encode())
    write_atomically(out / TABLE, to_latex(blocks, about).encode())
    write_atomically(out / PAGE, to_html(blocks, about).encode())
    return out / PAGE


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


def to_csv(rows: Sequence[Row]) -> str:
    """One line per row and a column for every key of any row; what was not measured is empty."""
    others = {key for row in rows for key in row} - set(FIRST)
    target = io.StringIO()
    writer = csv.DictWriter(target, [*FIRST, *sorted(others, key=_natural)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: None if value != value else value for key, value in row.items()} for row in rows)
    return target.getvalue()


def to_html(blocks: Sequence[Block], about: Row) -> str:
    """The page."""
    return render_comparison(blocks, about, headline(blocks), [finding(block) for block in blocks], standings(blocks))


def to_latex(blocks: Sequence[Block], about: Row) -> str:
    """A table for a paper: in a block for each forget set, the methods of each system and its oracle."""
    lines = [line for block in blocks for line in (r"\midrule", *_latex_block(block))]
    heads = " & ".join(latex(head) for head in HEADS)
    return TEX % {"caption": latex(_caption(about)), "heads": heads, "rows": "\n".join(lines)}


def _latex_block(block: Block) -> list[str]:
    """A line with the forget set, and one for each entry."""
    entries = [entry for own in block.systems.values() for entry in (*own, _oracle_of(own))]
    title = latex(f"{block.title} ({block.size})")
    rows = [" & ".join(latex(cell) for cell in _latex_cells(entry)) for entry in entries]
    return [rf"\multicolumn{{{len(HEADS)}}}{{@{{}}l}}{{\emph{{{title}}}}} \\", *(rf"{row} \\" for row in rows)]


def _latex_cells(entry: Entry) -> list[str]:
    """As `HEADS` has them."""
    before, after = entry.of("attack_auc_before").mean, entry.of("attack_auc_after").show(AUC)
    return [
        entry.system,
        f"{entry.method} (a)" if entry.accepted and entry.method not in ROLES else entry.method,
        after if math.isnan(before) else f"{AUC(before)} → {after}",
        *(entry.of(key).show(AUC) for key in ("attack_distance", "ks_after")),
        *(entry.of(key).show(metric) for key in ("recall@20_after", "ndcg@20_after")),
        *(entry.of(key).show(show, relative=True) for key, show in (("seconds", seconds), ("speedup", times))),
        stored(entry.of("memory_bytes")),
    ]


def _oracle_of(entries: Sequence[Entry]) -> Entry:
    """A system's oracle as if it were a method, once per seed."""
    rows = {row.get("seed"): row for entry in entries for row in entry.rows}.values()
    names = {f"{key}_after": f"{key}_oracle" for key in ("attack_auc", "recall@20", "ndcg@20")}
    names["seconds"] = "oracle_seconds"
    found = tuple({name: row.get(key) for name, key in names.items()} for row in rows)
    return Entry(entries[0].system, "oracle", found)


def _caption(about: Row) -> str:
    """What the table's reader has to know."""
    facts = "; ".join(
        f"{name.lower()}: {plain(value)}" for key, name in ABOUT.items() if (value := about.get(key)) is not None
    )
    return (
        f"Unlearning compared with retraining ({facts}). Mean ± standard deviation over the seeds, that of time, "
        "speed-up and bytes kept as a part of the mean. Attack AUC: membership inference on what was to be forgotten, "
        "before → after unlearning; the target is the oracle’s, not 0.5. KS: Kolmogorov–Smirnov distance of the "
        "forgotten’s ranks to those under the oracle. (a): acceptable, that is like the oracle within half its 95 % "
        f"interval, with at least {percent(KEEPS)} of its Recall@20, and no slower."
    )


def headline(blocks: Sequence[Block]) -> str:
    """Who comes closest to the oracle, and at which cost; or that nobody does, or that nothing can be said."""
    found = standings(blocks)
    if not found:
        return "Only the two ends were run: retraining and doing nothing" if blocks else "Nothing could be compared"
    name, entries = next(iter(found.items()))
    accepted = [entry for entry in entries if entry.accepted]
    if accepted:
        return f"{name} comes closest to retraining: acceptable {_where(accepted, blocks)}, {_speed(accepted)} as fast"
    if all(entry.forgetting in ("undecided", "not measured") for own in found.values() for entry in own):
        return "No verdict: the attack cannot tell doing nothing from retraining here"
    worst = max(entries, key=lambda entry: _last(entry.mean("attack_distance")))
    return f"No method is acceptable throughout one forget set; {name} comes nearest: {worst.verdict}"


def standings(blocks: Sequence[Block]) -> dict[str, list[Entry]]:
    """Every method but the references with its entries; most often accepted first, then closest to the oracle."""
    entries: dict[str, list[Entry]] = {}
    for entry in (one for block in blocks for one in block.candidates):
        entries.setdefault(entry.name, []).append(entry)

    def standing(own: list[Entry]) -> tuple[float, ...]:
        return (-sum(entry.accepted for entry in own), *np.mean([_closeness(entry) for entry in own], axis=0))

    return dict(sorted(entries.items(), key=lambda named: standing(named[1])))


def finding(block: Block) -> list[str]:
    """What one forget set says, in sentences; the most important first."""
    accepted = [entry for entry in block.candidates if entry.accepted]
    said = []
    if accepted:
        said.append(f"Closest to its oracle is {_account(accepted[0])}.")
        said += [f"Also acceptable: {'; '.join(_account(entry) for entry in accepted[1:])}."] if accepted[1:] else []
    elif block.candidates:
        nearest = block.candidates[0]
        said.append(f"No method is acceptable here. Nearest is {_account(nearest)}: {nearest.verdict}.")
    if block.blind:
        said.append(
            f"For {' and '.join(block.blind)} the attack cannot tell even the model before from the oracle, so it "
            "cannot show that a method forgot either."
        )
    return said


def _account(entry: Entry) -> str:
    """Distance, accuracy and cost of one method."""
    gap = "the oracle’s own parameters" if entry.same else f"attack AUC {signed(entry.mean('attack_gap'))} off"
    kept, spent = percent(entry.mean("recall_ratio"), 1), seconds(entry.mean("seconds"))
    return f"{entry.name}, with {gap} and {kept} of the oracle’s Recall@20, in {spent}, {_speed([entry])} as fast"


def _where(accepted: Sequence[Entry], blocks: Sequence[Block]) -> str:
    if len(blocks) == 1:
        return f"on {blocks[0].forget}"
    everywhere = len(accepted) == len(blocks)
    return f"on all {len(blocks)} forget sets" if everywhere else f"on {len(accepted)} of {len(blocks)} forget sets"


def _speed(entries: Sequence[Entry]) -> str:
    ratios = [ratio for entry in entries if not math.isnan(ratio := entry.mean("speedup"))]
    if not ratios:
        return "an unknown number of times"
    ends = dict.fromkeys(significant(ratio, 2) for ratio in (min(ratios), max(ratios)))
    return f"{' to '.join(ends)} times"


def _closeness(entry: Entry) -> tuple[float, ...]:
    """Distance from the oracle: by the attack, then by the ranks, then in seconds; what was not measured is last."""
    return tuple(_last(entry.mean(key)) for key in ("attack_distance", "ks_after", "seconds"))


def _last(value: float) -> float:
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


def _natural(key: str) -> tuple[tuple[str, int], ...]:
    """Sorts `difference_auc_2` before `difference_auc_10`."""
    return tuple((text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", key))
