"""The commands that use a model: recommend, extend, ship, status."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retract.cli.app import app
from retract.cli.options import (
    Again,
    DataOptions,
    EngineName,
    Folder,
    ItemIds,
    Json,
    Key,
    Seed,
    Share,
    Suggest,
    computing,
    suggesting,
    with_options,
)
from retract.cli.output import emit, facts, grid, metric, note, progress_bars, size, span, telling_what_is_left
from retract.cli.usage import UsageError
from retract.errors import DataError

if TYPE_CHECKING:
    from retract.stores.status import Status


@app.command()
@with_options
def recommend(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="A trained folder, or a shipped file.", show_default=False)
    ],
    listed: ItemIds,
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="Of a trained folder: the user's original id.", show_default=False)
    ] = None,
    k: Annotated[int | None, typer.Option("-k", help="How many; 10 unless given.", show_default=False)] = None,
    suggest: Suggest = False,
    as_json: Json = False,
) -> None:
    """Show the items that suit a user best and that the user has not had yet.

    With a shipped file: those that suit whoever has the items of --items.
    """
    from retract.stores import reading, shipping

    if (user is None) == (not listed.given):
        both = "give --user with a trained folder, or --items with a shipped file"
        raise UsageError(both)
    if user is None:
        found = reading.Recommendations("", tuple(shipping.recommend_shipped(folder, listed.among, k)), None)
    else:
        with suggesting(suggest):
            found = reading.recommend_folder(folder, user, k)
    for text in found.notes:
        note(text)
    titled = any(line.title != line.item for line in found.items)
    rated = any(line.rating is not None for line in found.items)
    columns = ["", "item", *(["title"] if titled else []), "score", *(["predicted rating"] if rated else [])]
    rows = [
        [str(place), line.item, *([line.title] if titled else []), *(f"{x:.3f}" for x in line.numbers)]
        for place, line in enumerate(found.items, start=1)
    ]
    fields = {"user": user, "items": [line.fields for line in found.items], "fallback": found.fallback}
    emit(fields, as_json, grid(columns, rows, numeric=["", "score", "predicted rating"]))


@app.command()
@with_options
def extend(
    folder: Folder,
    source: DataOptions,
    share: Share = None,
    key: Key = None,
    again: Again = False,
    engine: EngineName = "local",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Take in new users, items and interactions without training again (exact), or new users (personalfr).

    All of FILE goes to training, but for what a fold column holds out; what DIR already holds is left out.
    """
    from retract.stores.extending import extend_folder
    from retract.stores.folder import TrainedFolder

    place = TrainedFolder(folder, key)
    engine_of = computing(engine, place.manifest().system)
    with telling_what_is_left(folder, "server/current"), engine_of, progress_bars() as progress:
        report = extend_folder(place, source.load(), share=share, again=again, seed=seed, progress=progress)
    for text in report.notes:
        note(text)
    done = f"{report.added:,} interactions added in {span(report.seconds)}; {report.already_held:,} were there already."
    rows = {
        "users × items": f"{report.users:,} × {report.items:,}",
        "interactions": f"{report.shared:,} shared, {report.private:,} private",
    }
    rows |= {name: metric(value) for name, value in report.metrics.items() if value is not None}
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

    if not 0 < max_mb < math.inf:
        raise UsageError(f"--max-mb is {max_mb:g}: give the file's size in megabytes, above 0")
    report = ship_folder(folder, out, max_bytes=int(max_mb * 1e6), epsilon=epsilon, delta=delta)
    rows = {
        "file": f"{out}, {size(report.bytes)}",
        **{
            name: f"{metric(value)}, whole model {metric(report.metrics_whole[name])}"
            for name, value in report.metrics.items()
            if value is not None
        },
    }
    emit(asdict(report), as_json, facts(rows), f"\nNext: retract recommend {out} --items ID,ID")


@app.command()
def status(
    folder: Folder,
    request: Annotated[
        str | None, typer.Option(metavar="ID", help="Show this request alone.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a trained folder holds, and its requests: who asked for what and when, and the certificates."""
    from retract.stores.status import status as status_of

    found = status_of(folder)
    if request is not None:
        return _one_request(folder, found, request, as_json)
    private = "those of the devices are elsewhere" if found.private is None else f"{found.private:,} private"
    rows = {
        "system": found.system,
        "version": str(found.version),
        "users × items": f"{found.users:,} × {found.items:,}",
        "interactions": f"{found.shared:,} shared, {private}",
        "requests": f"{found.pending} pending, {found.applied} applied",
    }
    if found.verdicts:
        told = [f"{one['kind']}: {one['verdict'] or 'cannot be told'}" for one in found.verdicts]
        rows["last verdict"] = f"{', '.join(told)} ({found.verdicts[0]['certificate']})"
    asked = [_line(one) for one in found.requests]
    hint = [f"Next: retract unlearn {folder}"] if found.pending else []
    emit(asdict(found), as_json, facts(rows), *asked, *hint)


def _one_request(folder: Path, found: Status, id: str, as_json: bool) -> None:
    """Show one request."""
    request = next((one for one in found.requests if one["id"] == id), None)
    if request is None:
        raise DataError(f"{folder} knows no request {id!r}: `retract status {folder}` lists all")
    emit(request, as_json, _line(request))


def _line(request: Mapping[str, Any]) -> str:
    """A request for people; in one line, to be searched and copied."""
    whose = f"user {request['user']}" if request["user"] else "a user who is erased"
    what = f"{request['id']}: {request['kind']} of {request['count']:,} interactions of {whose}"
    done = "pending" if request["completed"] is None else f"applied {request['completed']}"
    proof = "" if request["certificate"] is None else f", {request['certificate']}"
    return f"{what}, received {request['received']}, {done}{proof}"
