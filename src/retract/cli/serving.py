"""The commands that use a model: recommend, extend, ship, status."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import click
import typer

from retract.cli.app import app
from retract.cli.options import DataOptions, Folder, Json, Seed, Share, item_names, with_options
from retract.cli.output import emit, facts, grid, metric, note, progress_bars, size, telling_what_is_left


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
    from retract.stores import reading, shipping

    if (user is None) == (items is None):
        both = "give --user with a trained folder, or --items with a shipped file"
        raise click.UsageError(both, click.get_current_context())
    fallback = None
    if items is not None:
        found = tuple(shipping.recommend_shipped(folder, item_names(items), k))
    else:
        listed = reading.recommend_folder(folder, str(user), k)
        found, fallback = listed.items, listed.fallback
    if fallback is not None:
        note(f"user {user} shares nothing, so the model does not know them: the list goes by {fallback}")
    if not found:
        who = "these are" if user is None else f"user {user} has"
        note(f"nothing is left to recommend: {who} all items that the model knows")
    rows = [[str(place), line.item, line.title, f"{line.score:.3f}"] for place, line in enumerate(found, start=1)]
    fields = {"user": user, "items": [asdict(line) for line in found], "fallback": fallback}
    emit(fields, as_json, grid(["", "item", "title", "score"], rows, numeric=["", "score"]))


@app.command()
@with_options
def extend(
    folder: Folder,
    source: DataOptions,
    share: Share = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Take in new users, items and interactions without training again (exact), or new users (personalfr).

    All of FILE goes to training, but for what a fold column holds out; what DIR already holds is left out.
    """
    from retract.stores.extending import extend_folder
    from retract.stores.folder import TrainedFolder

    dataset = source.load()
    with telling_what_is_left(folder, "server/current"), progress_bars() as progress:
        report = extend_folder(TrainedFolder(folder), dataset, share=share, seed=seed, progress=progress)
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
def ship(
    folder: Folder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file for clients.", show_default=False)],
    max_mb: Annotated[float, typer.Option(help="Its size at most, in megabytes.")] = 2.0,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Noise for whole users: the ε of (ε, δ)-differential privacy.", show_default=False),
    ] = None,
    delta: Annotated[float, typer.Option(help="The δ of it.")] = 1e-6,
    as_json: Json = False,
) -> None:
    """Write a model of `exact` as one small file, so that clients need not tell anybody which items they ask for."""
    from retract.stores.shipping import ship_folder

    report = ship_folder(folder, out, max_bytes=int(max_mb * 1e6), epsilon=epsilon, delta=delta)
    rows = {
        "file": f"{out}, {size(report.bytes)}",
        "recall@20": f"{metric(report.metrics['recall@20'])}, whole model {metric(report.metrics_whole['recall@20'])}",
        "ndcg@20": f"{metric(report.metrics['ndcg@20'])}, whole model {metric(report.metrics_whole['ndcg@20'])}",
    }
    emit(asdict(report), as_json, facts(rows), f"\nNext: retract recommend {out} --items ID,ID")


@app.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Show what a trained folder holds and which requests wait."""
    from retract.stores.status import status as status_of

    found = status_of(folder)
    private = "those of the devices are elsewhere" if found.private is None else f"{found.private:,} private"
    rows = {
        "system": found.system,
        "version": str(found.version),
        "users × items": f"{found.users:,} × {found.items:,}",
        "interactions": f"{found.shared:,} shared, {private}",
        "requests": f"{found.pending} pending, {found.applied} applied",
    }
    waiting = [
        [request["kind"], request["user"], str(request["count"]), request["received"]]
        for request in found.requests
        if request["status"] != "completed"
    ]
    table = [grid(["request", "user", "items", "received"], waiting, numeric=["items"])] if waiting else []
    hint = [f"Next: retract unlearn {folder}"] if waiting else []
    emit(asdict(found), as_json, facts(rows), *table, *hint)
