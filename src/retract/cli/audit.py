"""The commands that check what unlearning left: verify, audit, and the keys that certificates are signed with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.console import RenderableType

from retract.cli.app import app
from retract.cli.options import Json, with_options
from retract.cli.output import audit_tables, emit, grid, note
from retract.errors import CertificateError

CERTIFICATES = "certificates"

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
    from retract.auditing.certificate import verify as check
    from retract.auditing.keys import load_public

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


@dataclass(frozen=True)
class Strangers:
    """Score files of another recommender, and what it was to forget."""

    before: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scores before: user, item, score.", show_default=False)
    ] = None
    after: Annotated[Path | None, typer.Option(metavar="FILE", help="Scores after.", show_default=False)] = None
    forget: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What was to be forgotten: user, item.", show_default=False)
    ] = None
    oracle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Scores of the same model trained without it.", show_default=False),
    ] = None
    history: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the users still hold: user, item.", show_default=False)
    ] = None
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="A page of it, to look at.", show_default=False)
    ] = None


@app.command()
@with_options
def audit(
    strangers: Strangers,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A trained folder.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the audits of a trained folder, or audit another recommender by its score files (--before …).

    Those of a folder were made while its model was unlearning, by `unlearn --audit`.
    """
    files = (strangers.before, strangers.after, strangers.forget)
    if folder is None and all(file is not None for file in files):
        _audit_strangers(strangers, as_json)
        return
    if folder is None or any(file is not None for file in files):
        text = "give a trained folder, or --before, --after and --forget of another recommender"
        raise click.UsageError(text, click.get_current_context())
    from retract.stores.folder import TrainedFolder

    found = TrainedFolder(folder).audits()
    tables = [table for one in found for table in (*audit_tables(one), f"certificate: {folder / one['certificate']}")]
    nothing = f"No unlearning of {folder} was audited yet; `retract unlearn {folder} --audit` does."
    emit({"audits": found}, as_json, *(tables or [nothing]))


def _audit_strangers(strangers: Strangers, as_json: bool) -> None:
    """Audit another recommender's forgetting, from score files."""
    from retract.auditing.score_files import audit_files

    if strangers.out is not None:
        from retract.report.page import require_page

        require_page()
    assert strangers.before is not None
    assert strangers.after is not None
    assert strangers.forget is not None
    found = audit_files(
        strangers.before, strangers.after, strangers.forget, oracle=strangers.oracle, history=strangers.history
    )
    for text in found.notes:
        note(text)
    columns, rows = found.table()
    parts: list[RenderableType] = [found.verdict.text, grid(columns, rows, numeric=columns[1:])]
    if strangers.out is not None:
        from retract.report.forgetting import write_forgetting

        files = {name: path for name, path in vars(strangers).items() if path is not None and name != "out"}
        parts.append(f"page: {write_forgetting(strangers.out, found, files)}")
    emit(found.to_json(), as_json, *parts)


@keys.command()
def new(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="$RETRACT_KEY or your settings' retract/key.pem unless given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key; PATH is for you alone, and PATH.pub for those who check certificates."""
    from retract.auditing.keys import default_key_path, fingerprint, new_key, public_path

    place = path or default_key_path()
    shown = fingerprint(new_key(place).public_key())
    fields = {"key": str(place), "public_key": str(public_path(place)), "fingerprint": shown}
    emit(fields, as_json, f"key: {place}, public key: {public_path(place)}, fingerprint: {shown}")


def _around(certificate: Path) -> Path | None:
    """The trained folder in whose `certificates/` a file lies."""
    room = certificate.resolve().parent
    return room.parent if room.name == CERTIFICATES and (room.parent / "server" / "current").exists() else None
