"""The command that tells what can be set."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from retract.cli.app import app
from retract.cli.options import SYSTEMS, Json
from retract.cli.output import emit, grid


@app.command()
def settings(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help=f"{SYSTEMS}.", show_default=False)],
    as_json: Json = False,
) -> None:
    """List all settings of SYSTEM, which `train --set KEY=VALUE` takes: meaning, unit, values and default."""
    from retract.systems.registry import system_type
    from retract.systems.settings import settings_of

    found = settings_of(system_type(system).config)
    rows = [[one.name, one.shown_default, one.values, one.meaning] for one in found]
    columns = ["setting", "default", "values", "meaning"]
    emit({"system": system, "settings": [asdict(one) for one in found]}, as_json, grid(columns, rows))
