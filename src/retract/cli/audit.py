"""The commands that check what unlearning left: verify, audit, and the keys that certificates are signed with."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from retract.cli.app import app
from retract.cli.options import Column, Json, Seed, with_options
from retract.cli.output import audit_tables, emit, grid, note, with_paths
from retract.cli.usage import UsageError
from retract.errors import CertificateError, FolderError

if TYPE_CHECKING:
    from retract.auditing.standing import ScoreAudit

keys = typer.Typer(help="Make the key that certificates are signed with.")
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
    test: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Held-out interactions to measure by; needs --history.", show_default=False),
    ] = None
    user_col: Column = None
    item_col: Column = None
    score_col: Column = None
    margin: Annotated[
        float | None, typer.Option(help="The largest difference in AUC that counts as none; 0.05 unless given.")
    ] = None
    seed: Seed = 0
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="A page of it, to look at.", show_default=False)
    ] = None

    @property
    def files(self) -> dict[str, str]:
        """The files that were given, by their options' names."""
        names = ("before", "after", "forget", "oracle", "history", "test")
        return {name: str(path) for name in names if (path := getattr(self, name)) is not None}

    @property
    def command(self) -> str:
        """The command that makes this audit again."""
        given = {name: value for name, value in asdict(self).items() if value is not None and name != "out"}
        pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items()]
        return shlex.join(["retract", "audit", *(part for pair in pairs for part in pair)])

    def audited(self) -> ScoreAudit:
        """The audit."""
        from retract.auditing.score_files import audit_files
        from retract.data import Columns

        options: dict[str, Any] = {**self.files, "score": self.score_col, "seed": self.seed}
        options |= {} if self.margin is None else {"margin": self.margin}
        return audit_files(columns=Columns(user=self.user_col, item=self.item_col), **options)


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
    if folder is None and {"before", "after", "forget"} <= strangers.files.keys():
        _audit_strangers(strangers, as_json)
        return
    if folder is None or strangers != Strangers():
        text = "give a trained folder alone, or --before, --after and --forget of another recommender"
        raise UsageError(text)
    from retract.stores.folder import TrainedFolder

    found = TrainedFolder(folder).audits()
    tables = [table for one in found for table in (*audit_tables(one), f"certificate: {folder / one['certificate']}")]
    nothing = f"No unlearning of {folder} was audited yet; `retract unlearn {folder} --audit` does."
    emit({"audits": with_paths(found, folder)}, as_json, *(tables or [nothing]))


def _audit_strangers(strangers: Strangers, as_json: bool) -> None:
    """Audit another recommender's forgetting, from score files."""
    out = strangers.out
    if out is not None:
        from retract.report.page import require_page

        require_page()
        if out.is_dir():
            raise FolderError(f"{out} is a folder: give a file for the page")
    found = strangers.audited()
    for text in found.notes:
        note(text)
    columns, rows = found.table()
    parts: list[RenderableType] = [found.verdict.text, grid(columns, rows, numeric=columns[1:])]
    if out is not None:
        from retract.report.forgetting import write_forgetting

        write_forgetting(out, found, {**strangers.files, "command": strangers.command})
        parts.append(f"page: {out}")
    emit({**found.to_json(), "page": None if out is None else str(out)}, as_json, *parts)


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
    from retract.stores.folder import CERTIFICATES

    room = certificate.resolve().parent
    return room.parent if room.name == CERTIFICATES and (room.parent / "server" / "current").exists() else None
