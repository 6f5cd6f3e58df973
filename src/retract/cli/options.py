"""Options that several commands take, and how a command takes a whole group of them as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import click
import typer

from retract.errors import ConfigError

if TYPE_CHECKING:
    from retract.data import Columns, Dataset

SYSTEMS = "exact, fedshare, lightgcn, personalfr, receraser, unlearnrec, or one that is plugged in"

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A trained folder.", show_default=False)]
Data = Annotated[
    str,
    typer.Option(
        metavar="FILE", help="CSV, TSV, .txt, .inter, .dat, .data (also .gz, .zip), Parquet, or movielens-small."
    ),
]
User = Annotated[str, typer.Option(metavar="ID", help="The user's original id.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Key of all random draws.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
Share = Annotated[
    float | None,
    typer.Option(
        metavar="RATIO",
        help="The part that every user shares, in [0, 1]; else a column named shared says it; else it is 0.5.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the system; repeatable.")
]
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Its name in the header, where it is not a usual one.",
        show_default=False,
        rich_help_panel="Columns of the data",
    ),
]


@dataclass(frozen=True)
class DataOptions:
    """Which data, and what its columns are called."""

    data: Data
    user_col: Column = None
    item_col: Column = None
    rating_col: Column = None
    timestamp_col: Column = None
    fold_col: Column = None
    shared_col: Column = None
    header: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="NAME,…",
            help="What all columns are called, in their order, where there is no header: user,item,rating,timestamp; - "
            "for one that is not read.",
            show_default=False,
            rich_help_panel="Columns of the data",
        ),
    ] = None
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How a text file is encoded, such as latin-1, where it is not UTF-8.",
            show_default=False,
            rich_help_panel="Columns of the data",
        ),
    ] = None
    at_least_rating: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Leave out what is rated lower. What is rated 0 or below is no like, and left out in any case but by "
            "personalfr.",
            show_default=False,
            rich_help_panel="Columns of the data",
        ),
    ] = None

    @property
    def columns(self) -> Columns:
        """The columns' names where they are not the usual ones."""
        from retract.data import Columns

        names = (self.user_col, self.item_col, self.rating_col, self.timestamp_col, self.fold_col, self.shared_col)
        header = None if self.header is None else tuple(name.strip() for name in self.header.split(","))
        return Columns(*names, names=header, encoding=self.encoding)

    def load(self) -> Dataset:
        """The data set."""
        from retract.data import load

        return load(self.data, columns=self.columns, at_least_rating=self.at_least_rating)


@dataclass(frozen=True)
class Which:
    """Which of a user's interactions a request names."""

    items: Annotated[
        list[str] | None,
        typer.Option(metavar="ID,…", help="These items; repeat it or separate by commas.", show_default=False),
    ] = None
    fraction: Annotated[
        float | None, typer.Option(metavar="F", help="A random part, in (0, 1].", show_default=False)
    ] = None
    everything: Annotated[bool, typer.Option("--all", help="Everything; so without --items and --fraction too.")] = (
        False
    )
    seed: Seed = 0

    @property
    def named(self) -> list[str] | None:
        """Ids of the items, None where none are named.

        Raises
        ------
        click.UsageError
            If several ways to name them are given.
        """
        if (self.items is not None) + (self.fraction is not None) + self.everything > 1:
            raise click.UsageError("give one of --items, --fraction and --all", click.get_current_context())
        return None if self.items is None else item_names(self.items)


def options_of(columns: Columns, at_least_rating: float | None) -> list[tuple[str, object]]:
    """Options that say how data is read, by name, as `DataOptions` takes them."""
    given: list[tuple[str, object]] = [(f"{role}-col", name) for role, name in columns.roles.items()]
    given += [("columns", ",".join(columns.names))] if columns.names is not None else []
    given += [("encoding", columns.encoding)] if columns.encoding is not None else []
    return given + ([("at-least-rating", f"{at_least_rating:g}")] if at_least_rating is not None else [])


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose dataclass parameters are spread out: every field becomes an option of its own."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = [
        flat
        for name, parameter in signature(command).parameters.items()
        for flat in (_spread(groups[name]) if name in groups else [parameter.replace(annotation=hints[name])])
    ]

    @wraps(command)
    def call(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    del call.__wrapped__
    keywords = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    call.__signature__ = Signature(keywords)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in keywords}
    return call


def _spread(group: Any) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def names_of(given: list[str]) -> list[str]:
    """Names from an option that was repeated or whose values were separated by commas."""
    return [name.strip() for text in given for name in text.split(",") if name.strip()]


def item_names(items: list[str]) -> list[str]:
    """Ids of items, at least one."""
    named = names_of(items)
    if not named:
        raise click.UsageError("--items names no item", click.get_current_context())
    return named


def settings_of(given: list[str]) -> dict[str, str]:
    """Settings from KEY=VALUE texts."""
    pairs = [text.partition("=") for text in given]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise ConfigError(f"--set takes KEY=VALUE, such as rounds=50; it got {key + equals + value!r}")
    return {key.strip(): value.strip() for key, _, value in pairs}
