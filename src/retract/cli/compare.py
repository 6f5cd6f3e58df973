"""The command that compares systems and methods."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retract.cli.app import app
from retract.cli.options import SYSTEMS, DataOptions, Json, Seed, names_of, options_of, settings_of, with_options
from retract.cli.output import emit, grid, metric, note, progress_bars, telling_what_is_left
from retract.errors import ConfigError
from retract.report import wording

if TYPE_CHECKING:
    from retract.auditing.compare import Plan

AUCS = ("before", "after", "oracle")


class Asked(StrEnum):
    """What users can ask for."""

    unshare = "unshare"
    erase = "erase"


@dataclass(frozen=True)
class Design:
    """What is compared."""

    forget: Annotated[
        list[str],
        typer.Option(
            metavar="SET,…",
            help="random:F, users:F, core:F, edge:F, canary:N, unlikely:N or file:PATH; repeatable, or by commas.",
            show_default=False,
        ),
    ]
    systems: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help=f"{SYSTEMS}; exact and fedshare unless given."),
    ] = None
    methods: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="own, retrain, naive, finetune, ascent, fru, scif, or plugged in; all of ours that fit.",
        ),
    ] = None
    attacks: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Plugged-in attacks to run beside score, rank and learned."),
    ] = None
    share: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="The part that every user shares, in (0, 1]; as a column `shared` says, or else half, unless given.",
            show_default=False,
        ),
    ] = None
    kind: Annotated[Asked, typer.Option(help="What the users ask for.")] = Asked.unshare
    seeds: Annotated[int, typer.Option(metavar="N", help="How many seeds, from --seed on.")] = 1
    seed: Seed = 0
    batches: Annotated[
        str | None,
        typer.Option(metavar="M,…", help="Also measure what the difference of versions leaks, by users in a batch."),
    ] = None
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="SYSTEM.KEY=VALUE", help="A setting of a system; repeatable.")
    ] = None

    def plan(self, source: DataOptions) -> Plan:
        """As the auditing room takes it."""
        from retract.auditing import compare as comparison
        from retract.systems.registry import METHODS

        named, among = comparison.named([*names_of(self.systems or ["exact,fedshare"]), *names_of(self.methods or [])])
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}: at least 1 is needed")
        return comparison.Plan(
            data=source.data,
            systems=named or ("exact", "fedshare"),
            methods=among or tuple(METHODS),
            forget=tuple(dict.fromkeys(names_of(self.forget))),
            seeds=tuple(range(self.seed, self.seed + self.seeds)),
            kind=self.kind.value,
            share=self.share,
            settings=_by_system(self.setting or []),
            batches=_sizes(self.batches),
            attacks=tuple(names_of(self.attacks or [])),
            columns=source.columns,
            at_least_rating=source.at_least_rating,
        )


@app.command()
@with_options
def compare(
    source: DataOptions,
    design: Design,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where rows, tables and the page go.")] = Path("compare"),
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes; one per core unless given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Begin anew where DIR holds another comparison.")] = False,
    as_json: Json = False,
) -> None:
    """Put systems and methods through the same withdrawals and write the table, for people, papers and scripts."""
    from retract.auditing import compare as comparison
    from retract.report.comparison import headline, write_comparison
    from retract.report.entries import read_blocks
    from retract.report.page import require_page

    plan = design.plan(source)
    require_page()  # before the hours that are to be told on it
    stays = "what was measured stays: run it again to go on"
    with telling_what_is_left(out, "plan.json", lambda: stays), progress_bars() as bars:
        rows = comparison.compare(plan, out, jobs=jobs, force=force, progress=bars)
    about = comparison.about(plan, _command(plan))
    page = write_comparison(out, rows, about)
    for text in about["notes"]:
        note(text)
    for skipped in about["skipped"]:
        if design.methods:
            note(f"left out: {skipped['method']} on {skipped['system']}: {skipped['reason']}")
    # An ordinary terminal has no room for a seed that is always the same.
    columns = ["method", "forget", *(["seed"] if design.seeds > 1 else []), "verdict", *AUCS, "recall", "time"]
    lines = [_line(row) for row in rows]
    table = grid(columns, [[line[column] for column in columns] for line in lines], numeric=[*AUCS, "recall", "time"])
    heading = "attack AUC by model with its 95 % interval, and Recall@20 after:"
    told = headline(read_blocks(rows))
    emit({"headline": told, "rows": rows, "report": str(page)}, as_json, told, heading, table, f"report: {page}")


def _line(row: Mapping[str, Any]) -> dict[str, str]:
    """A row for the terminal, by column."""
    return {
        "method": f"{row['system']}/{row['method']}",
        "forget": row["forget"],
        "seed": str(row["seed"]),
        "verdict": str(row["verdict"]),
        **{model: _attack(row, model) for model in AUCS},
        "recall": metric(row["recall@20_after"]),
        "time": wording.seconds(row["seconds"]).replace("\u202f", " "),
    }


def _attack(row: Mapping[str, Any], model: str) -> str:
    """An attack's AUC on a model, its interval on a line of its own."""
    return wording.ranged(*(row[f"attack_{name}_{model}"] for name in ("auc", "low", "high"))).replace(" ", "\n")


def _command(plan: Plan) -> str:
    """The command that reproduces a comparison."""
    options: list[tuple[str, object]] = [
        ("data", plan.data),
        ("systems", ",".join(plan.systems)),
        ("methods", ",".join(plan.methods)),
        *(("forget", text) for text in plan.forget),
        ("kind", plan.kind),
        *([("share", f"{plan.share:g}")] if plan.share is not None else []),
        ("seed", plan.seeds[0]),
        ("seeds", len(plan.seeds)),
        *([("batches", ",".join(map(str, plan.batches)))] if plan.batches else []),
        *(("set", f"{name}.{key}={value}") for name, of in (plan.settings or {}).items() for key, value in of.items()),
        *([("attacks", ",".join(plan.attacks))] if plan.attacks else []),
        *options_of(plan.columns, plan.at_least_rating),
    ]
    return shlex.join(["retract", "compare", *(part for name, value in options for part in (f"--{name}", str(value)))])


def _by_system(given: list[str]) -> dict[str, dict[str, str]]:
    """Settings by system, from SYSTEM.KEY=VALUE texts."""
    found: dict[str, dict[str, str]] = {}
    for key, value in settings_of(given).items():
        system, dot, name = key.partition(".")
        if not (system and dot and name):
            raise ConfigError(f"--set takes SYSTEM.KEY=VALUE here, such as fedshare.rounds=50; it got {key}={value}")
        found.setdefault(system, {})[name] = value
    return found


def _sizes(text: str | None) -> tuple[int, ...]:
    """Batch sizes from text."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--batches takes whole numbers of users, such as 1,10,100; it got {text!r}")
    return tuple(int(part) for part in parts)
