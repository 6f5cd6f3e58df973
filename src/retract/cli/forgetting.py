"""The commands by which people take their data back: unshare, erase, unlearn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from retract.cli.app import app
from retract.cli.options import (
    EngineName,
    Folder,
    Json,
    Key,
    Seed,
    Suggest,
    User,
    Which,
    computing,
    suggesting,
    with_options,
)
from retract.cli.output import (
    Report,
    audit_tables,
    emit,
    grid,
    metric,
    note,
    progress_bars,
    span,
    telling_what_is_left,
    with_paths,
)
from retract.cli.usage import UsageError

if TYPE_CHECKING:
    from retract.auditing.judging import Auditing
    from retract.stores.folder import TrainedFolder
    from retract.stores.forgetting import UnlearnReport
    from retract.stores.ledger import Kind


@app.command()
@with_options
def unshare(folder: Folder, user: User, which: Which, suggest: Suggest = False, as_json: Json = False) -> None:
    """Ask the server to forget what a user shared; the user's own client keeps it. `unlearn` applies it."""
    with suggesting(suggest):
        _request("unshare", folder, user, which, as_json)


@app.command()
@with_options
def erase(folder: Folder, user: User, which: Which, suggest: Suggest = False, as_json: Json = False) -> None:
    """Ask for a user's data to be gone from the server and from the client. `unlearn` applies it."""
    with suggesting(suggest):
        _request("erase", folder, user, which, as_json)


def _request(kind: Kind, folder: Path, user: str, which: Which, as_json: bool) -> None:
    """Record one request and say so."""
    from retract.stores.folder import TrainedFolder
    from retract.stores.requests import Wish, add_request

    trained = TrainedFolder(folder)
    with telling_what_is_left(folder, str(trained.ledger.path.relative_to(trained.path))):
        named = which.named(lambda: trained.catalog().item_ids.tolist())
        request, pending = add_request(trained, Wish(kind, user, named, which.fraction, which.seed))
    fields = {"request": request.id, "kind": kind, "user": user, "count": request.count, "pending": pending}
    text = f"{kind} of {request.count:,} interactions of user {user} noted ({request.id}); {pending} pending."
    keep = f"Keep the request's id: retract status {folder} --request {request.id}"
    why = "says by it when it was applied and which certificate is its own."
    if kind == "erase":
        why += " Once the user is erased nothing else leads to it, for no name is kept."
    emit(fields, as_json, text, f"{keep} {why}", f"Next: retract unlearn {folder}")


@dataclass(frozen=True)
class Judging:
    """Whether and how an unlearning is audited."""

    audit: Annotated[
        bool, typer.Option("--audit", help="Attack the model before and after, and write a signed certificate.")
    ] = False
    oracle: Annotated[
        bool, typer.Option("--oracle", help="With --audit: beside the model trained without; takes three trainings.")
    ] = False
    oracle_folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --audit: take this trained folder as the oracle.", show_default=False),
    ] = None

    def judge(self, folder: TrainedFolder, progress: Report) -> Auditing | None:
        """The judge of an audited unlearning, None where none is asked for."""
        if not self.audit:
            if self.oracle or self.oracle_folder is not None:
                raise UsageError("--oracle and --oracle-folder need --audit")
            return None
        from retract.auditing.judging import Auditing
        from retract.stores.folder import TrainedFolder

        folder.audits()
        given = None if self.oracle_folder is None else TrainedFolder(self.oracle_folder).load()
        return Auditing(lambda: folder.seals.signer.key, oracle=self.oracle, given=given, progress=progress)


@app.command()
@with_options
def unlearn(
    folder: Folder,
    judging: Judging,
    at_least: Annotated[
        int, typer.Option(metavar="M", help="Wait until so many users withdraw what the model learnt.")
    ] = 1,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure before and after; may take longer than to unlearn.")
    ] = True,
    key: Key = None,
    engine: EngineName = "local",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Apply the pending requests: the model forgets what they name."""
    from retract.stores.folder import TrainedFolder
    from retract.stores.forgetting import UnlearnOptions, no_judge, unlearn_folder

    options = UnlearnOptions(seed, at_least, measure)
    trained = TrainedFolder(folder, key)
    engine_of = computing(engine, trained.manifest().system)
    with telling_what_is_left(folder, "server/current"), engine_of, progress_bars() as progress:
        auditing = judging.judge(trained, progress)
        report = unlearn_folder(trained, options, judge=auditing or no_judge, progress=progress)
    for text in report.notes:
        note(text)
    fields = {**asdict(report), **_audited(auditing, folder)}
    emit(fields, as_json, *_told(report, auditing, folder))


def _audited(auditing: Auditing | None, folder: Path) -> dict[str, object]:
    """What an audit adds to the JSON."""
    if auditing is None:
        return {}
    name = auditing.fields["certificate"]
    return {"audits": with_paths(auditing.audits, folder), "certificate": str(folder / name) if name else None}


def _told(report: UnlearnReport, auditing: Auditing | None, folder: Path) -> list[RenderableType]:
    """An unlearning for people."""
    if report.waiting:
        wanted = f"{report.at_least} withdraw what the model learnt"
        return [f"{report.waiting} user(s) wait until {wanted}: nothing was changed."]
    if not report.requests:
        made = f"what was left out has been made in {span(report.refresh_seconds)}" if report.refresh_seconds else ""
        return [f"Nothing is pending in {folder}: {made or 'nothing was changed'}."]
    rows = [[name, metric(report.metrics_before[name]), metric(value)] for name, value in report.metrics.items()]
    done = (
        f"{report.requests} request(s) applied: {report.forgotten:,} interactions forgotten in {span(report.seconds)}."
    )
    if report.held_out:
        done += f" No model had learnt {report.held_out:,} of them, held out for testing, so no audit counts them."
    if report.refresh_seconds:
        done += f" What takes longer was left out at first, and made anew in {span(report.refresh_seconds)}."
    told: list[RenderableType] = [done]
    if any(value is not None for value in report.metrics.values()):
        told.append(grid(["", "before", "after"], rows, numeric=["before", "after"]))
    if auditing is not None:
        told += [table for found in auditing.audits for table in audit_tables(found)]
        told.append(f"certificate: {folder / auditing.fields['certificate']}")
    return told
