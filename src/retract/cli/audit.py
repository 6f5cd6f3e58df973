"""The commands that check what unlearning left: verify, and the keys that certificates are signed with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retract.cli.app import MANIFEST, Json, app
from retract.cli.output import emit
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
