"""Did it forget? The tables of the README: systems and methods through the same withdrawals, three seeds.

One seed of FRU on MovieLens-1M, whose training with its log takes minutes, and of the central systems.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.audit

Rows are kept in --work as they are measured, so an interrupted run goes on; all of them end up in --out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import mean_and_spread, source
from retract.auditing.compare import Plan, compare

SMALL = ("own", "naive", "finetune")
PAPER = ("own", "naive", "finetune", "ascent", "scif", "fru")
LARGE = ("own", "naive")
COLUMNS = {
    "attack AUC before": "attack_auc_before",
    "after": "attack_auc_after",
    "oracle": "attack_auc_oracle",
    "KS": "ks_after",
    "Recall@20": "recall@20_after",
    "oracle's": "recall@20_oracle",
    "seconds": "seconds",
    "oracle's ": "oracle_seconds",
    "kept": "memory_bytes",
}


def plans(seeds: Sequence[int]) -> Iterator[tuple[str, Plan]]:
    """What is compared, by a name for its rows."""
    whole, first = tuple(seeds), tuple(seeds)[:1]
    for name, kind, systems, methods, forget, which in (
        ("ml-1m", "unshare", ("fedshare", "exact"), LARGE, ("users:0.1",), whole),
        ("ml-1m", "erase", ("fedshare",), LARGE, ("users:0.05", "canary:2000"), whole),
        ("ml-100k", "unshare", ("fedshare", "exact"), SMALL, ("users:0.1", "canary:2000"), whole),
        ("ml-100k", "erase", ("fedshare", "exact"), LARGE, ("canary:2000",), whole),
        ("ml-100k", "unshare", ("lightgcn", "receraser"), LARGE, ("users:0.1",), first),
    ):
        for system in systems:
            plan = Plan(str(source(name)), (system,), methods, forget, which, kind=kind)  # type: ignore[arg-type]
            yield f"{name}-{kind}-{system}", plan
    for name, methods, forget, which in (
        ("ml-1m", ("own", "fru"), ("users:0.1",), first),
        ("ml-100k", PAPER, ("canary:2000",), whole),
    ):
        form = {"fedshare": {"form": "paper"}}
        yield f"{name}-unshare-paper", Plan(str(source(name)), ("fedshare",), methods, forget, which, settings=form)
    leak = Plan(str(source("ml-100k")), ("exact",), ("own",), ("users:0.3",), tuple(seeds), batches=(1, 10, 100))
    yield "ml-100k-difference", leak


def main() -> None:
    """Run what is missing, write all rows, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--work", type=Path, default=Path(".bench/audit"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/audit.jsonl"))
    parser.add_argument("--only", default="", help="What the names of plans must hold, such as fedshare.")
    options = parser.parse_args()
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    rows: list[dict[str, Any]] = []
    for name, plan in plans([int(part) for part in options.seeds.split(",")]):
        if options.only in name:
            measured = compare(plan, options.work / name, jobs=options.jobs, progress=_say(name))
        else:
            measured = [row for row in known if row["plan"] == name]
        rows += [{"plan": name, **row} for row in measured]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summarise(rows)


def summarise(rows: Sequence[dict[str, Any]]) -> None:
    """Print mean ± deviation over the seeds as Markdown tables, one for each plan and forget set."""
    for case in dict.fromkeys((row["plan"], row["forget"]) for row in rows):
        print(f"\n{' · '.join(case)}\n\n| method | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
        same = [row for row in rows if (row["plan"], row["forget"]) == case]
        for method in dict.fromkeys(row["method"] for row in same):
            of = [row for row in same if row["method"] == method]
            print(f"| {method} ({len(of)}) | {' | '.join(_spread(of, key) for key in COLUMNS.values())} |")
        for size in (1, 10, 100):
            if f"difference_auc_{size}" in same[0]:
                print(f"\ndifference of versions, batches of {size}: {_spread(same, f'difference_auc_{size}')}")


def _spread(rows: Sequence[dict[str, Any]], key: str) -> str:
    return mean_and_spread([row[key] for row in rows])


def _say(name: str) -> Any:
    return lambda stage, done, total: print(f"{name}: {done} of {total} {stage}", flush=True)


if __name__ == "__main__":
    main()
