"""The commands that check what unlearning left: verify, audit, and the keys that certificates are signed with."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from retract.cli.app import app
from retract.cli.options import Column, Folder, Json, Seed, with_options
from retract.cli.output import audit_tables, complain, emit, grid, note, with_paths
from retract.cli.usage import UsageError
from retract.errors import FolderError

if TYPE_CHECKING:
    from retract.auditing.standing import ScoreAudit
    from retract.auditing.verifying import Verdict
    from retract.report.certificate import Shown

keys = typer.Typer(help="The keys that versions and certificates are signed with.")
app.add_typer(keys, name="keys")


@app.command()
def verify(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILES… [DIR]", help="Certificates; a trained folder.", show_default=False)
    ],
    key: Annotated[
        Path | None, typer.Option(metavar="PUBLIC.pem", help="The public key that must have signed them.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="A page of it for people, to read, print and file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check certificates offline, and a trained folder: its chain of versions, its files and every certificate in it.

    A certificate is held against DIR, else against the folder that it lies in, else it stands alone. What was checked
    is said, and what was not. It shows which procedure ran on which model and data, not that no trace is left.
    """
    from retract.auditing.verifying import verify_paths
    from retract.report.certificate import to_text, write_certificates
    from retract.stores.keys import load_public

    if report is not None:
        _require_page(report)
    found = verify_paths(paths, None if key is None else load_public(key))
    results = [{"valid": verdict.valid, **asdict(verdict)} for verdict in found]
    valid = all(verdict.valid for verdict in found)
    lines = [_in_words(one) for one in found if one.valid]
    shown = [_shown(one) for one in found if one.valid and one.kind == "certificate"]
    if len(found) == len(shown) == 1:
        lines += to_text(shown[0].certificate)
    if report is not None and shown:
        lines.append(f"page: {write_certificates(report, shown)}")
    page = str(report) if report is not None and shown else None
    emit({"valid": valid, "results": results, "page": page}, as_json, *lines)
    for verdict in found:
        if verdict.refusal is not None:
            complain(verdict.refusal)
    if not valid:
        raise typer.Exit(2)


def _shown(verdict: Verdict) -> Shown:
    """A valid certificate as its page has it."""
    from retract.auditing.certificate import read
    from retract.report.certificate import NEVER, Shown, sentence

    path = Path(verdict.path)
    content = path.read_bytes()
    unchecked = [*map(sentence, verdict.not_checked), NEVER]
    return Shown(
        read(content, verdict.path), path.name, content.decode(), list(map(sentence, verdict.checked)), unchecked
    )


def _in_words(verdict: Verdict) -> str:
    """What a valid certificate, or folder, says and what of it was checked, in one line."""
    unchecked = "".join(f"; not checked: {text}" for text in verdict.not_checked)
    checked = f"checked: {'; '.join(verdict.checked)}{unchecked}."
    by = f"by {verdict.fingerprint}"
    if verdict.kind == "folder":
        return (
            f"{verdict.path} is valid: {verdict.system}, version {verdict.version} of {verdict.issued} {by}; {checked}"
        )
    return (
        f"{verdict.path} is valid: {verdict.requests} request(s), {verdict.interactions:,} interactions unlearned from "
        f"{verdict.system}, issued {verdict.issued} {by}; {checked} It shows the procedure and the hashes, not that no "
        "trace is left."
    )


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
        _require_page(out)
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


def _require_page(out: Path) -> None:
    """Refuse to begin what ends in a page that could not be made."""
    from retract.report.page import require_page

    require_page()
    if out.is_dir():
        raise FolderError(f"{out} is a folder: give a file for the page")


@keys.command()
def new(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="$RETRACT_KEY or your settings' retract/key.pem unless given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key; PATH is for you alone, and PATH.pub for those who check certificates."""
    from retract.stores.keys import default_key_path, fingerprint, new_key, public_path

    place = path or default_key_path()
    shown = fingerprint(new_key(place).public_key())
    fields = {"key": str(place), "public_key": str(public_path(place)), "fingerprint": shown}
    emit(fields, as_json, f"key: {place}, public key: {public_path(place)}, fingerprint: {shown}")


@keys.command()
def rotate(
    folder: Folder,
    new: Annotated[
        Path,
        typer.Option(metavar="NEW.pem", help="The key to go on with; made where there is none.", show_default=False),
    ],
    old: Annotated[
        Path | None, typer.Option(metavar="OLD.pem", help="The key so far, which signs the change; yours unless given.")
    ] = None,
    lost: Annotated[
        bool, typer.Option("--lost", help="The key so far is lost: `verify` will say so for good.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let the versions of a trained folder be signed by another key from now on. The key so far signs the change."""
    from retract.stores.folder import TrainedFolder
    from retract.stores.records import name_of

    if lost and old is not None:
        raise UsageError("give --old or --lost")
    record = TrainedFolder(folder, old).seals.change_key(new, lost=lost)
    by = "nobody, for the key before was lost" if lost else f"key {name_of(record.public_key)}"
    fields = {"key": str(new), "fingerprint": name_of(record.key), "signed_by_old_key": not lost}
    text = f"{folder} goes on with key {name_of(record.key)}; the change is signed by {by}."
    emit(fields, as_json, text, f"Next: give --key {new}, or set RETRACT_KEY={new}")
