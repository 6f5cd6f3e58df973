"""`retract compare`: its rows as a CSV file, a LaTeX table, and a page to look at."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from retract.atomic import write_atomically
from retract.report.entries import KEEPS, ROLES, Block, Entry, Row, closeness, last, read_blocks
from retract.report.page import ABOUT, plain, render_comparison, stored
from retract.report.wording import latex, metric, percent, seconds, signed, significant, times

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
    worst = max(entries, key=lambda entry: last(entry.mean("attack_distance")))
    return f"No method is acceptable throughout one forget set; {name} comes nearest: {worst.verdict}"


def standings(blocks: Sequence[Block]) -> dict[str, list[Entry]]:
    """Every method but the references with its entries; most often accepted first, then closest to the oracle."""
    entries: dict[str, list[Entry]] = {}
    for entry in (one for block in blocks for one in block.candidates):
        entries.setdefault(entry.name, []).append(entry)

    def standing(own: list[Entry]) -> tuple[float, ...]:
        return (-sum(entry.accepted for entry in own), *np.mean([closeness(entry) for entry in own], axis=0))

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


def _natural(key: str) -> tuple[tuple[str, int], ...]:
    """Sorts `difference_auc_2` before `difference_auc_10`."""
    return tuple((text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", key))
