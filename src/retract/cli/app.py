"""The commands and their options. What needs torch is imported where it is used, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from rich.console import RenderableType

from retract import __version__
from retract.cli.output import (
    Report,
    audit_tables,
    emit,
    facts,
    grid,
    metric,
    note,
    progress_bars,
    size,
    telling_what_is_left,
)
from retract.errors import ConfigError, FolderError

if TYPE_CHECKING:
    from retract.audit.witness import Auditing
    from retract.systems.base import Kind

MANIFEST = "manifest.json"
SYSTEMS = "exact, fedshare, lightgcn, personalfr, receraser or unlearnrec"

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A trained folder.", show_default=False)]
Data = Annotated[
    str,
    typer.Option(metavar="FILE", help="CSV, TSV, Parquet, .inter, .dat or .data file, or movielens-small."),
]
User = Annotated[str, typer.Option(metavar="ID", help="The user's original id.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Key of all random draws.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
Items = Annotated[
    list[str] | None,
    typer.Option(metavar="ID,…", help="These items; repeat it or separate by commas.", show_default=False),
]
Fraction = Annotated[float | None, typer.Option(metavar="F", help="A random part, in (0, 1].", show_default=False)]
Everything = Annotated[bool, typer.Option("--all", help="Everything; so without --items and --fraction too.")]
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Its name in the header, where it is not a usual one.",
        show_default=False,
        rich_help_panel="Columns of the data",
    ),
]

app = typer.Typer(
    name="retract",
    help="A recommender you can take your data back from.",
    add_completion=False,
    suggest_commands=False,  # click suggests already
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """A recommender you can take your data back from.

    Users choose what the server may hold; whatever was shared can be withdrawn later, and the model changes with it.
    """
    if version:
        typer.echo(f"retract {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = Path("demo"),
    data: Data = "movielens-small",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Tell the whole story on real data, with a report to look at."""
    if out.exists() and not out.is_dir():
        raise FolderError(f"{out} is a file: give a folder for the report")
    from retract.report.demo import run_demo

    with telling_what_is_left(out, "figures.json"), progress_bars() as progress:
        summary = run_demo(out, data=data, seed=seed, progress=progress)
    emit(summary, as_json, f"report: {summary['report']}")


@app.command()
def train(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help=f"{SYSTEMS}.", show_default=False)],
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The trained folder to write.", show_default=False)],
    share: Annotated[float, typer.Option(metavar="RATIO", help="The part that every user shares, in [0, 1].")] = 0.5,
    test: Annotated[
        float, typer.Option(metavar="RATIO", help="The part held out to test on, where the data names none, in (0, 1).")
    ] = 0.2,
    clients: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of personalfr: deal the users among N clients. Else each is one."),
    ] = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the trained folder that DIR is.")] = False,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the system; repeatable.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of unlearnrec, the graph recommender: lightgcn, sgl or simgcl. As --set backbone=NAME.",
            show_default=False,
        ),
    ] = None,
    user_col: Column = None,
    item_col: Column = None,
    rating_col: Column = None,
    timestamp_col: Column = None,
    fold_col: Column = None,
    as_json: Json = False,
) -> None:
    """Train SYSTEM (exact, fedshare, lightgcn, personalfr, receraser or unlearnrec) on a data set; write a folder."""
    from retract.data import Columns, load
    from retract.systems import lifecycle
    from retract.systems.registry import make_system

    chosen = make_system(system, _with_backbone(settings_of(setting or []), backbone))
    dataset = load(data, columns=Columns(user_col, item_col, rating_col, timestamp_col, fold_col))
    with telling_what_is_left(out, MANIFEST), progress_bars() as progress:
        report = lifecycle.train_folder(
            chosen,
            dataset,
            out,
            share=share,
            n_clients=clients,
            test=test,
            seed=seed,
            force=force,
            progress=progress,
        )
    for text in report.notes:
        note(text)
    rows = {
        "users × items": f"{report.users:,} × {report.items:,}",
        "interactions": f"{report.shared:,} shared, {report.private:,} private",
        "time": f"{report.seconds:.1f} s, peak memory {report.peak_mb:,.0f} MB",
        **({"time to prepare": f"{report.prepare_seconds:.1f} s, to forget fast"} if report.prepare_seconds else {}),
        "kept to forget by": size(report.memory_bytes),
        "sent": f"{size(report.bytes_up)} up, {size(report.bytes_down)} down",
    }
    rows |= {name: metric(value) for name, value in report.metrics.items()}
    emit(asdict(report), as_json, facts(rows), f"\nNext: retract recommend {out} --user ID")


@app.command()
def recommend(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="A trained folder, or a shipped file.", show_default=False)
    ],
    user: Annotated[str | None, typer.Option(metavar="ID", help="The user's original id.", show_default=False)] = None,
    items: Annotated[
        list[str] | None,
        typer.Option(metavar="ID,…", help="With a shipped file: the items somebody has.", show_default=False),
    ] = None,
    k: Annotated[int | None, typer.Option("-k", help="How many; 10 unless given.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Show the items that suit a user best and that the user has not had yet."""
    from retract.systems import lifecycle, shipping

    if (user is None) == (items is None):
        both = "give --user with a trained folder, or --items with a shipped file"
        raise click.UsageError(both, click.get_current_context())
    if items is not None:
        found = lifecycle.Recommendations(tuple(shipping.recommend_shipped(folder, _names(items), k)), None)
    else:
        found = lifecycle.recommend_folder(folder, str(user), k)
    if found.fallback is not None:
        note(f"user {user} shares nothing, so the model does not know them: the list goes by {found.fallback}")
    rows = [[str(place), line.item, line.title, f"{line.score:.3f}"] for place, line in enumerate(found.items, start=1)]
    fields = {"user": user, **asdict(found)}
    emit(fields, as_json, grid(["", "item", "title", "score"], rows, numeric=["", "score"]))


@app.command()
def unshare(
    folder: Folder,
    user: User,
    items: Items = None,
    fraction: Fraction = None,
    everything: Everything = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Ask the server to forget what a user shared; the user's own client keeps it. `unlearn` applies it."""
    _request("unshare", folder, user, items, fraction, everything, seed, as_json)


@app.command()
def erase(
    folder: Folder,
    user: User,
    items: Items = None,
    fraction: Fraction = None,
    everything: Everything = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Ask for a user's data to be gone from the server and from the client. `unlearn` applies it."""
    _request("erase", folder, user, items, fraction, everything, seed, as_json)


@app.command()
def unlearn(
    folder: Folder,
    at_least: Annotated[
        int, typer.Option(metavar="M", help="Wait until so many users withdraw what the model learnt.")
    ] = 1,
    judge: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure before and after; may take longer than to unlearn.")
    ] = True,
    audit: Annotated[
        bool, typer.Option("--audit", help="Attack the model before and after, and write a signed certificate.")
    ] = False,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="With --audit: beside the model trained without; takes three trainings.")
    ] = False,
    oracle_folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --audit: take this trained folder as the oracle.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="KEY.pem", help="What signs the certificate; `retract keys new` makes one."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Apply the pending requests: the model forgets what they name."""
    if not audit and (oracle or oracle_folder is not None or key is not None):
        raise click.UsageError("--oracle, --oracle-folder and --key need --audit", click.get_current_context())
    from retract.systems import lifecycle

    with telling_what_is_left(folder, MANIFEST), progress_bars() as progress:
        witness, made = _auditing(folder, key, oracle, oracle_folder, progress) if audit else (None, None)
        report = lifecycle.apply_requests(
            folder,
            seed=seed,
            at_least=at_least,
            judge=judge,
            witness=witness or lifecycle.no_witness,
            progress=progress,
        )
    for text in (*([made] if made is not None else []), *report.notes):
        note(text)
    fields = {**asdict(report), **(witness.fields if witness else {})}
    if report.waiting:
        wanted = f"{report.at_least} withdraw what the model learnt"
        text = f"{report.waiting} user(s) wait until {wanted}: nothing was changed."
        emit(fields, as_json, text)
        return
    if not report.requests:
        emit(fields, as_json, f"Nothing is pending in {folder}: nothing was changed.")
        return
    rows = [[name, metric(report.metrics_before[name]), metric(value)] for name, value in report.metrics.items()]
    done = (
        f"{report.requests} request(s) applied: {report.forgotten:,} interactions forgotten in {report.seconds:.2f} s."
    )
    tables: list[RenderableType] = [grid(["", "before", "after"], rows, numeric=["before", "after"])]
    if witness is not None:
        tables += [table for found in witness.fields["audits"] for table in audit_tables(found)]
        tables.append(f"certificate: {witness.fields['certificate']}")
    emit(fields, as_json, done, *tables)


@app.command()
def extend(
    folder: Folder,
    data: Annotated[str, typer.Option(metavar="FILE", help="What is new; what DIR already holds is left out.")],
    share: Annotated[float, typer.Option(metavar="RATIO", help="The part of it that users share, in [0, 1].")] = 0.5,
    seed: Seed = 0,
    user_col: Column = None,
    item_col: Column = None,
    rating_col: Column = None,
    timestamp_col: Column = None,
    fold_col: Column = None,
    as_json: Json = False,
) -> None:
    """Take in new users, items and interactions without training again (exact), or new users (personalfr).

    All of FILE goes to training, but for what a fold column holds out.
    """
    from retract.data import Columns, load
    from retract.systems.extending import extend_folder

    dataset = load(data, columns=Columns(user_col, item_col, rating_col, timestamp_col, fold_col))
    with telling_what_is_left(folder, MANIFEST), progress_bars() as progress:
        report = extend_folder(folder, dataset, share=share, seed=seed, progress=progress)
    for text in report.notes:
        note(text)
    done = f"{report.added:,} interactions added in {report.seconds:.2f} s; {report.already_held:,} were there already."
    rows = {
        "users × items": f"{report.users:,} × {report.items:,}",
        "interactions": f"{report.shared:,} shared, {report.private:,} private",
    }
    rows |= {name: metric(value) for name, value in report.metrics.items()}
    emit(asdict(report), as_json, done, facts(rows))


@app.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Show what a trained folder holds and which requests wait."""
    from retract.systems import lifecycle

    found = lifecycle.status(folder)
    rows = {
        "system": found.system,
        "users × items": f"{found.users:,} × {found.items:,}",
        "interactions": f"{found.shared:,} shared, {found.private:,} private",
        "requests": f"{found.pending} pending, {found.applied} applied",
    }
    waiting = [
        [request["kind"], request["user"], str(request["count"]), request["received"]]
        for request in found.requests
        if request["status"] == "pending"
    ]
    table = [grid(["request", "user", "items", "received"], waiting, numeric=["items"])] if waiting else []
    hint = [f"Next: retract unlearn {folder}"] if waiting else []
    emit(asdict(found), as_json, facts(rows), *table, *hint)


def _request(
    kind: Kind,
    folder: Path,
    user: str,
    items: list[str] | None,
    fraction: float | None,
    everything: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Record one request and say so."""
    if (items is not None) + (fraction is not None) + everything > 1:
        raise click.UsageError("give one of --items, --fraction and --all", click.get_current_context())
    named = None if items is None else _names(items)
    from retract.systems.requests import add_request

    with telling_what_is_left(folder, MANIFEST):
        request, pending = add_request(folder, kind, user, items=named, fraction=fraction, seed=seed)
    fields = {"request": request.id, "kind": kind, "user": user, "count": request.count, "pending": pending}
    text = f"{kind} of {request.count:,} interactions of user {user} noted ({request.id}); {pending} pending."
    emit(fields, as_json, text, f"Next: retract unlearn {folder}")


def _auditing(
    folder: Path, key: Path | None, oracle: bool, oracle_folder: Path | None, progress: Report
) -> tuple[Auditing, str | None]:
    """The witness of an audited unlearning, and a line on its key where that was made.

    The key comes first: a bad one must cost no work. So does a wrong folder, which must not leave a new key behind.
    """
    from retract.audit.keys import default_key_path, fingerprint, key_or_new
    from retract.audit.witness import Auditing, audits_of

    for each in (folder, oracle_folder):
        if each is not None:
            audits_of(each)
    place = default_key_path() if key is None else key
    signing, made = key_or_new(place)
    text = f"made a key to sign certificates with: {place}, fingerprint {fingerprint(signing.public_key())}"
    witness = Auditing(folder, signing, oracle=oracle, oracle_folder=oracle_folder, progress=progress)
    return witness, text if made else None


def names_of(given: list[str]) -> list[str]:
    """Names from an option that was repeated or whose values were separated by commas."""
    return [name.strip() for text in given for name in text.split(",") if name.strip()]


def _names(items: list[str]) -> list[str]:
    """Ids of items, at least one."""
    named = names_of(items)
    if not named:
        raise click.UsageError("--items names no item", click.get_current_context())
    return named


def _with_backbone(settings: dict[str, str], backbone: str | None) -> dict[str, str]:
    """The settings, the backbone among them where it was given by its own option."""
    if backbone is None:
        return settings
    if "backbone" in settings:
        raise ConfigError(
            f"the backbone is given twice: --backbone {backbone} and --set backbone={settings['backbone']}"
        )
    return {**settings, "backbone": backbone}


def settings_of(given: list[str]) -> dict[str, str]:
    """Settings from KEY=VALUE texts."""
    pairs = [text.partition("=") for text in given]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise ConfigError(f"--set takes KEY=VALUE, such as rounds=50; it got {key + equals + value!r}")
    return {key.strip(): value.strip() for key, _, value in pairs}
