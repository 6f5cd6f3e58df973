"""`retract compare`: its rows as a CSV file, a LaTeX table, and a page to look at."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from retract.atomic import write_atomically
from retract.auditing.verdict import MARGIN, UTILITY
from retract.report.entries import ROLES, Block, Entry, Row, closeness, fastest, read_blocks
from retract.report.page import ABOUT, plain, render_comparison, stored
from retract.report.wording import latex, metric, pace, percent, seconds, times

PAGE, ROWS, TABLE = "index.html", "rows.csv", "table.tex"
FIRST = (
    "system",
    "method",
    "forget",
    "seed",
    "kind",
    "data",
    "share",
    "threads",
    "train_seconds",
    "prepare_seconds",
    "attack",
)
"""The columns of `rows.csv` that stand before all others, which follow by name."""
AUC = partial(metric, digits=3)
HEADS = (
    "System",
    "Method",
    "Attack AUC",
    "AUC − oracle",
    "KS",
    "Recall@20",
    "NDCG@20",
    "Time",
    "Against retraining",
    "Kept",
)
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

    Raises
    ------
    MissingExtraError
        If the packages that draw pages are not installed; nothing is written then.
    """
    blocks = read_blocks(rows)
    page = to_html(blocks, about)
    write_atomically(out / ROWS, to_csv(rows).encode())
    write_atomically(out / TABLE, to_latex(blocks, about).encode())
    write_atomically(out / PAGE, page.encode())
    return out / PAGE


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
    before, after = entry.of("attack_auc_before").mean, entry.auc("after")
    return [
        entry.system,
        entry.method + _mark(entry),
        after if math.isnan(before) else f"{entry.auc('before')} → {after}",
        entry.gap,
        entry.of("ks_after").show(AUC),
        *(entry.of(key).show(metric) for key in ("recall@20_after", "ndcg@20_after")),
        *(entry.of(key).show(show, relative=True) for key, show in (("seconds", seconds), ("speedup", times))),
        stored(entry.of("memory_bytes")),
    ]


def _mark(entry: Entry) -> str:
    """The verdict as a letter; references have none, nor has what was not judged."""
    if entry.method in ROLES or not entry.reasons:
        return ""
    return " (a)" if entry.accepted else " (n)" if entry.refused else " (f)" if entry.likened else " (u)"


def _oracle_of(entries: Sequence[Entry]) -> Entry:
    """A system's oracle as if it were a method, once per seed."""
    rows = {row.get("seed"): row for entry in entries for row in entry.rows}.values()
    kinds = ("attack_auc", "attack_low", "attack_high", "recall@20", "ndcg@20")
    names = {f"{key}_after": f"{key}_oracle" for key in kinds}
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
        "speed-up and bytes kept as a part of the mean, or the ends where it is large; from one seed an AUC has its "
        "95 % interval. Attack AUC: membership inference on what was to be forgotten, before → after unlearning; the "
        "target is the oracle’s, not 0.5. AUC − oracle: with the 90 % interval, paired by users. KS: "
        "Kolmogorov–Smirnov distance of the forgotten’s ranks to those under the oracle. By an equivalence test with a "
        f"margin of ±{MARGIN:g} in AUC and ±{percent(UTILITY)} of the oracle’s Recall@20, two one-sided tests at 5 %: "
        "(a) acceptable, like the oracle in both and not clearly slower; (f) like it in the attack alone; (n) not like "
        "it; (u) not enough data to say, or an attack that finds nothing even before."
    )


def headline(blocks: Sequence[Block]) -> str:
    """Who forgets as retraining does, who does not, or that nothing can be said; no winner where none can be told."""
    found = standings(blocks)
    if not found:
        return "Only the two ends were run: retraining and doing nothing" if blocks else "Nothing could be compared"
    accepted = {name: own for name, entries in found.items() if (own := [one for one in entries if one.accepted])}
    if accepted:
        return _named(accepted, blocks)
    every = [entry for entries in found.values() for entry in entries]
    if all(entry.blind for entry in every):
        return "No verdict: the attack cannot tell doing nothing from retraining here"
    if not any(entry.refused or entry.likened for entry in every):
        return "No verdict: there is not enough data to tell whether any method forgets as retraining does"
    return f"No method is shown to be acceptable: {'; '.join(_counts(every))}"


def _named(accepted: Mapping[str, Sequence[Entry]], blocks: Sequence[Block]) -> str:
    """The headline where some are acceptable: one is named with its cost, of several only who is clearly faster."""
    names = list(accepted)
    if len(names) == 1:
        (entries,) = accepted.values()
        return f"{names[0]} forgets as retraining does {_where(entries, blocks)}, {_speed(entries)}"
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    quickest = [fastest([entry for entry in block.candidates if entry.accepted]) for block in blocks]
    ahead = {None if one is None else one.name for one in quickest}
    told = ahead.pop() if len(ahead) == 1 else None
    best = f"{told} takes least time" if told else "which of them is best this comparison cannot tell"
    return f"{listed} forget as retraining does; {best}"


def _counts(entries: Sequence[Entry]) -> list[str]:
    """How many of the entries stand how."""
    kinds = (
        ("not like retraining", sum(entry.refused for entry in entries)),
        ("like it in the attack but not in all else", sum(entry.likened for entry in entries)),
        ("cannot be told", sum(not entry.refused and not entry.likened for entry in entries)),
    )
    return [f"{number} {said}" for said, number in kinds if number]


def standings(blocks: Sequence[Block]) -> dict[str, list[Entry]]:
    """Every method but the references with its entries; most often acceptable first, then by distance."""
    entries: dict[str, list[Entry]] = {}
    for entry in (one for block in blocks for one in block.candidates):
        entries.setdefault(entry.name, []).append(entry)

    def standing(own: list[Entry]) -> tuple[float, ...]:
        return tuple(np.sum([closeness(entry) for entry in own], axis=0))

    return dict(sorted(entries.items(), key=lambda named: standing(named[1])))


def finding(block: Block) -> list[str]:
    """What one forget set says, in sentences; the most important first."""
    groups = (
        ("Acceptable", [one for one in block.candidates if one.accepted], _account),
        ("Like the oracle in the attack, but", [one for one in block.candidates if one.likened and one.faults], _but),
        ("Not like the oracle", [one for one in block.candidates if one.refused], _but),
        ("Not to be told", [one for one in block.candidates if not (one.refused or one.likened)], _but),
    )
    said = [f"{head}: {'; '.join(tell(one) for one in own)}." for head, own, tell in groups if own]
    if block.blind:
        said.append(
            f"For {' and '.join(block.blind)} the attack cannot tell even the model before from the oracle, so it "
            "cannot show that a method forgot either."
        )
    return said


def _account(entry: Entry) -> str:
    """Distance, accuracy and cost of one method."""
    gap = "the oracle’s own parameters" if entry.reasons == {"same parameters"} else f"attack AUC {entry.gap} off"
    kept, spent = percent(entry.mean("recall_ratio"), 1), seconds(entry.mean("seconds"))
    return f"{entry.name}, with {gap} and {kept} of the oracle’s Recall@20, in {spent}, {_speed([entry])}"


def _but(entry: Entry) -> str:
    """A method and what speaks against it, or why nothing can be said."""
    said = "; ".join((*([] if entry.likened else [entry.forgetting.removeprefix("not like it: ")]), *entry.faults))
    return f"{entry.name} ({said})"


def _where(accepted: Sequence[Entry], blocks: Sequence[Block]) -> str:
    if len(blocks) == 1:
        return f"on {blocks[0].forget}"
    everywhere = len(accepted) == len(blocks)
    return f"on all {len(blocks)} forget sets" if everywhere else f"on {len(accepted)} of {len(blocks)} forget sets"


def _speed(entries: Sequence[Entry]) -> str:
    ratios = [ratio for entry in entries if not math.isnan(ratio := entry.mean("speedup"))]
    if not ratios:
        return "not compared with retraining in time"
    return " to ".join(dict.fromkeys(pace(ratio) for ratio in (min(ratios), max(ratios))))


def _natural(key: str) -> tuple[tuple[str, int], ...]:
    """Sorts `difference_auc_2` before `difference_auc_10`."""
    return tuple((text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", key))
