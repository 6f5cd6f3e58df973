"""The application that the commands belong to. What computes is imported where it is used: `--help` is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from retract.version import __version__

app = typer.Typer(
    name="retract",
    help="A recommender you can take your data back from.",
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
