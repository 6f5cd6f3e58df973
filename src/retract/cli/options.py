"""Options that several commands take, and how a command takes a whole group of them as one value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from retract.cli.usage import UsageError
from retract.errors import ConfigError, DataError, UnknownIdError

if TYPE_CHECKING:
    from retract.data import Columns, Dataset

SYSTEMS = "exact, fedshare, lightgcn, personalfr, receraser, unlearnrec, or one that is plugged in"

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A trained folder.", show_default=False)]
Data = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="CSV, TSV, .txt, .inter, .dat, .data (also .gz, .zip), Parquet, a folder or pattern of these, or "
        "movielens-small.",
    ),
]
User = Annotated[str, typer.Option(metavar="ID", help="The user's original id.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Key of all random draws.")]
Key = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY.pem",
        help="The private key that signs; $RETRACT_KEY or your settings' retract/key.pem unless given.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
Share = Annotated[
    float | None,
    typer.Option(
        metavar="RATIO",
        help="The part that every user shares, in [0, 1]; else a column named shared says it; else it is all of it "
        "(personalfr: nothing; fedshare has to be told).",
        show_default=False,
    ),
]
Test = Annotated[
    float | None,
    typer.Option(
        metavar="RATIO",
        help="The part of every user's interactions that no model learns from, in [0, 1); else a column named fold "
        "says it; else there is none.",
        show_default=False,
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="Of exact, who computes its sums: local, or ray, on the cluster of RAY_ADDRESS if that is set.",
    ),
]
Again = Annotated[
    bool,
    typer.Option("--again", help="Take in what was erased from DIR, and share what was unshared: on a new consent."),
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


Items = Annotated[
    list[str] | None,
    typer.Option(
        "--items", metavar="ID", help="These items: one id each time it is given, or several with commas between."
    ),
]
ItemsFile = Annotated[
    Path | None,
    typer.Option("--items-file", metavar="FILE", help="Those items that a file names, one id a line."),
]
Suggest = Annotated[
    bool, typer.Option("--suggest", help="Where there is no such user, name the nearest ids of other users.")
]


@dataclass(frozen=True)
class ItemIds:
    """A list of item ids."""

    items: Items = None
    items_file: ItemsFile = None

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return self.items is not None or self.items_file is not None

    def among(self, known: Sequence[str]) -> list[str]:
        """The ids that are meant.

        A file names one a line, and an option that is repeated one each time. A single text is read as one id or as
        several with commas between, and there must be one way alone to read it.

        Raises
        ------
        UsageError
            If both ways to name items are used, or none is named.
        UnknownIdError
            If a text reads as no id.
        DataError
            If it reads in several ways, or the file is no text.
        """
        if self.items is not None and self.items_file is not None:
            raise UsageError("give one of --items and --items-file")
        ids = frozenset(known)
        if self.items_file is not None:
            named = _lines(self.items_file, known)
        else:
            texts = self.items or []
            named = [
                name
                for text in texts
                for name in ([text] if len(texts) > 1 and text in ids else readings(text, ids, known))
            ]
        if not named:
            raise UsageError(f"{self._option} names no item")
        return named

    @property
    def _option(self) -> str:
        return "--items" if self.items_file is None else f"--items-file {self.items_file}"


def readings(text: str, ids: frozenset[str], known: Sequence[str]) -> list[str]:
    """The known ids that a text names with commas between them, where it can be read in one way alone.

    Raises
    ------
    UnknownIdError
        If it reads as no known ids.
    DataError
        If it reads in several ways.
    """
    parts = text.split(",")
    longest = 1 + max((name.count(",") for name in known), default=0)
    found: list[list[list[str]]] = [*([] for _ in parts), [[]]]
    for begin in reversed(range(len(parts))):
        ways = list(found[begin + 1]) if not parts[begin].strip() else []
        for end in range(begin + 1, min(begin + longest, len(parts)) + 1):
            name = ",".join(parts[begin:end])
            name = name if name in ids else name.strip()
            ways += [[name, *rest] for rest in found[end]] if name in ids else []
        found[begin] = ways[:2]
    if len(found[0]) > 1:
        one, other = (" and ".join(repr(name) for name in way) for way in found[0])
        raise DataError(
            f"--items {text!r} can be read as {one} or as {other}: repeat --items, once for each id, or name them in a "
            "file, one id a line: --items-file FILE"
        )
    if not found[0]:
        some = [part.strip() for part in parts if part.strip() in ids]
        unknown = next(part.strip() for part in parts if part.strip() not in ids) if some else text.strip()
        raise _unknown(unknown, known)
    return found[0][0]


def _lines(path: Path, known: Sequence[str]) -> list[str]:
    """The ids that a file names, one a line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8: give a file with one id a line") from None
    ids, named = frozenset(known), []
    for number, line in enumerate(lines, start=1):
        name = line if line in ids else line.strip()
        if name and name not in ids:
            raise UnknownIdError(f"{path}, line {number}: {_unknown(name, known)}")
        named += [name] if name else []
    return named


def _unknown(name: str, known: Sequence[str]) -> UnknownIdError:
    from retract.data.catalog import nearest_ids

    return UnknownIdError(f"unknown item {name!r}; nearest known ids: {', '.join(nearest_ids(name, known))}")


@contextmanager
def suggesting(wanted: bool) -> Iterator[None]:
    """Say of an unknown user which ids are near, if that is wanted; else how to ask for them."""
    try:
        yield
    except UnknownIdError as error:
        if error.near is None:
            raise
        hint = f"nearest known ids: {', '.join(error.near())}" if wanted else "--suggest names the nearest known ids"
        raise UnknownIdError(f"{error}; {hint}") from None


@dataclass(frozen=True)
class Which:
    """Which of a user's interactions a request names."""

    items: Items = None
    items_file: ItemsFile = None
    fraction: Annotated[
        float | None, typer.Option(metavar="F", help="A random part, in (0, 1].", show_default=False)
    ] = None
    everything: Annotated[bool, typer.Option("--all", help="Everything; so without --items and --fraction too.")] = (
        False
    )
    seed: Seed = 0

    def named(self, known: Callable[[], Sequence[str]]) -> list[str] | None:
        """Ids of the items, None where none are named.

        Parameters
        ----------
        known
            Called for all item ids, where some are named.

        Raises
        ------
        UsageError
            If several ways to name them are given.
        """
        listed = ItemIds(self.items, self.items_file)
        if listed.given + (self.fraction is not None) + self.everything > 1:
            raise UsageError("give one of --items, --items-file, --fraction and --all")
        return listed.among(known()) if listed.given else None


@contextmanager
def computing(engine: str, system: str) -> Iterator[None]:
    """Have an engine compute meanwhile what can be shared among workers.

    Raises
    ------
    UsageError
        If the system has nothing that could be.
    """
    from retract import workers

    if engine != "local" and system != "exact":
        raise UsageError(f"--engine {engine} is for the sums of exact; {system} computes here: leave it out")
    with workers.engine(engine):
        yield


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


def settings_of(given: list[str]) -> dict[str, str]:
    """Settings from KEY=VALUE texts."""
    pairs = [text.partition("=") for text in given]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise ConfigError(f"--set takes KEY=VALUE, such as rounds=50; it got {key + equals + value!r}")
    return {key.strip(): value.strip() for key, _, value in pairs}
