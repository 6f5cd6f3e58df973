"""The commands that check what unlearning left: verify, and the keys that certificates are signed with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retract.cli.app import MANIFEST, SYSTEMS, Column, Data, Folder, Json, Seed, app, names_of, settings_of
from retract.cli.output import audit_tables, emit, grid, metric, note, progress_bars, telling_what_is_left
from retract.errors import CertificateError, ConfigError

if TYPE_CHECKING:
    from retract.audit.compare import Plan

CERTIFICATES = "certificates"
AUCS = ("before", "after", "oracle")


class Request(StrEnum):
    """What users can ask for."""

    unshare = "unshare"
    erase = "erase"


keys = typer.Typer(help="Make the key that certificates are signed with.", suggest_commands=False)
app.add_typer(keys, name="keys")


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="The file.", show_default=False)],
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The trained folder it is about; the one it lies in unless given."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="PUBLIC.pem", help="The public key that must have signed it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a certificate offline: its signature, and that it is about what the trained folder holds.

    It shows which procedure ran on which model and data, not that no trace is left.
    """
    if not certificate.is_file():
        raise CertificateError(f"no such certificate: {certificate}; check the path")
    from retract.audit.certificate import verify as check
    from retract.audit.keys import load_public

    public = None if key is None else load_public(key)
    verdict = check(certificate.read_bytes(), str(certificate), public=public, folder=folder or _around(certificate))
    since = f" {verdict.later} later unlearning(s) changed the model since." if verdict.later else ""
    whose = "" if public else " Whose key that is was not checked: --key does."
    text = (
        f"valid: {verdict.requests} request(s), {verdict.interactions:,} interactions unlearned from {verdict.system}, "
        f"issued {verdict.issued} by {verdict.fingerprint}; checked: {', '.join(verdict.checked)}.{since}{whose} "
        "It shows the procedure and the hashes, not that no trace is left."
    )
    emit({"valid": True, **asdict(verdict)}, as_json, text)


@app.command()
def audit(folder: Folder, as_json: Json = False) -> None:
    """Show the audits done so far: each was made while its model was unlearning, by `unlearn --audit`."""
    from retract.audit.witness import audits_of

    found = audits_of(folder)
    tables = [table for one in found for table in (*audit_tables(one), f"certificate: {folder / one['certificate']}")]
    nothing = f"No unlearning of {folder} was audited yet; `retract unlearn {folder} --audit` does."
    emit({"audits": found}, as_json, *(tables or [nothing]))


@keys.command()
def new(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="$RETRACT_KEY or your settings' retract/key.pem unless given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key; PATH is for you alone, and PATH.pub for those who check certificates."""
    from retract.audit.keys import default_key_path, fingerprint, new_key, public_path

    place = path or default_key_path()
    shown = fingerprint(new_key(place).public_key())
    fields = {"key": str(place), "public_key": str(public_path(place)), "fingerprint": shown}
    emit(fields, as_json, f"key: {place}, public key: {public_path(place)}, fingerprint: {shown}")


def _around(certificate: Path) -> Path | None:
    """The trained folder in whose `certificates/` a file lies."""
    room = certificate.resolve().parent
    return room.parent if room.name == CERTIFICATES and (room.parent / MANIFEST).exists() else None


@app.command()
def compare(
    data: Data,
    forget: Annotated[
        list[str],
        typer.Option(
            metavar="SET,…",
            help="random:F, users:F, core:F, edge:F, canary:N, unlikely:N or file:PATH; repeatable, or by commas.",
            show_default=False,
        ),
    ],
    systems: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help=f"{SYSTEMS}; exact and fedshare unless given."),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="own, retrain, naive, finetune, ascent, fru, scif; all that fit."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where rows, tables and the page go.")] = Path("compare"),
    share: Annotated[float, typer.Option(metavar="RATIO", help="The part that every user shares, in (0, 1].")] = 0.5,
    kind: Annotated[Request, typer.Option(help="What the users ask for.")] = Request.unshare,
    seeds: Annotated[int, typer.Option(metavar="N", help="How many seeds, from --seed on.")] = 1,
    batches: Annotated[
        str | None,
        typer.Option(metavar="M,…", help="Also measure what the difference of versions leaks, by users in a batch."),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="SYSTEM.KEY=VALUE", help="A setting of a system; repeatable.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes; one per core unless given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Begin anew where DIR holds another comparison.")] = False,
    seed: Seed = 0,
    user_col: Column = None,
    item_col: Column = None,
    rating_col: Column = None,
    fold_col: Column = None,
    as_json: Json = False,
) -> None:
    """Put systems and methods through the same withdrawals and write the table, for people, papers and scripts."""
    from retract.audit import compare as comparison
    from retract.data import Columns
    from retract.report.comparison import write_comparison
    from retract.systems.baselines import method_names

    named, among = comparison.named([*names_of(systems or ["exact,fedshare"]), *names_of(methods or [])])
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}: at least 1 is needed")
    plan = comparison.Plan(
        data=data,
        systems=named or ("exact", "fedshare"),
        methods=among or tuple(method_names()),
        forget=tuple(dict.fromkeys(names_of(forget))),
        seeds=tuple(range(seed, seed + seeds)),
        kind=kind.value,
        share=share,
        settings=_by_system(setting or []),
        batches=_sizes(batches),
        columns=Columns(user_col, item_col, rating_col, None, fold_col),
    )
    with (
        telling_what_is_left(out, "plan.json", "what was measured stays: run it again to go on"),
        progress_bars() as bars,
    ):
        rows = comparison.compare(plan, out, jobs=jobs, force=force, progress=bars)
    about = comparison.about(plan, _command(plan))
    page = write_comparison(out, rows, about)
    for skipped in about["skipped"]:
        if methods:
            note(f"left out: {skipped['method']} on {skipped['system']}: {skipped['reason']}")
    # An ordinary terminal has no room for a seed that is always the same.
    columns = ["method", "forget", *(["seed"] if seeds > 1 else []), *AUCS, "recall", "seconds"]
    lines = [_line(row) for row in rows]
    table = grid(columns, [[line[column] for column in columns] for line in lines], numeric=columns[2:])
    emit(
        {"rows": rows, "report": str(page)},
        as_json,
        "attack AUC by model, and Recall@20 after:",
        table,
        f"report: {page}",
    )


def _line(row: Mapping[str, Any]) -> dict[str, str]:
    """A row for the terminal, by column."""
    return {
        "method": f"{row['system']}/{row['method']}",
        "forget": row["forget"],
        "seed": str(row["seed"]),
        **{model: f"{row[f'attack_auc_{model}']:.3f}" for model in AUCS},
        "recall": metric(row["recall@20_after"]),
        "seconds": f"{row['seconds']:.3g}",
    }


def _command(plan: Plan) -> str:
    """The command that reproduces a comparison."""
    options: list[tuple[str, object]] = [
        ("data", plan.data),
        ("systems", ",".join(plan.systems)),
        ("methods", ",".join(plan.methods)),
        *(("forget", text) for text in plan.forget),
        ("kind", plan.kind),
        ("share", f"{plan.share:g}"),
        ("seed", plan.seeds[0]),
        ("seeds", len(plan.seeds)),
        *([("batches", ",".join(map(str, plan.batches)))] if plan.batches else []),
        *(("set", f"{name}.{key}={value}") for name, of in (plan.settings or {}).items() for key, value in of.items()),
        *((f"{name}-col", column) for name, column in asdict(plan.columns).items() if column is not None),
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
