"""Which column of a data set plays which role, found by usual names or by what the caller says."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from retract.data.values import reads_as_number_or_time
from retract.errors import DataError

_USUAL_NAMES = {
    "user": "user userid uid usr customer customerid visitor visitorid reviewerid",
    "item": "item itemid iid movie movieid product productid book bookid artist artistid track trackid song songid "
    "business businessid article articleid asin isbn sku",
    "rating": "rating ratings score stars overall bookrating",
    "timestamp": "timestamp time ts unixtime unixreviewtime",
    "fold": "fold split",
    "shared": "shared isshared share",
    "title": "title itemtitle movietitle booktitle producttitle itemname",
}
REQUIRED = ("user", "item")


@dataclass(frozen=True)
class Columns:
    """The columns' names where they are not the usual ones; None means: find it.

    Parameters
    ----------
    user, item, rating, timestamp, fold, shared
        The name in the header, exactly or up to case.
    names
        What all columns are called, in their order, where there is no header or another one: `("user", "item",
        "rating", "timestamp")`. `-` stands for a column that is not read.
    encoding
        How a text file is encoded, such as `latin-1`. UTF-8 unless given; a file that begins with the mark of UTF-16
        says so itself.
    """

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    timestamp: str | None = None
    fold: str | None = None
    shared: str | None = None
    names: tuple[str, ...] | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))

    @property
    def roles(self) -> dict[str, str]:
        """The names that were given, by what their columns are."""
        return {role: name for role in _USUAL_NAMES if (name := getattr(self, role, None)) is not None}


USUAL = Columns()


def find_columns(
    seen: Sequence[str], columns: Columns, source: str, roles: Collection[str] = tuple(_USUAL_NAMES)
) -> dict[str, int]:
    """The position of every role's column among the names `seen`; optional roles may be absent.

    Parameters
    ----------
    roles
        Those that are looked for; all unless given.

    Raises
    ------
    DataError
        If a required column or a named one is missing, or if several columns could play one role.
    """
    seen = names_of(seen, columns, source)
    found: dict[str, int] = {}
    for role, name in columns.roles.items():
        if role not in roles:
            continue
        position = _named(name, role, seen, source)
        if position in found.values():
            raise DataError(f"{source}: column {name!r} cannot play two roles: give {_flag(role)} another one")
        found[role] = position
    for role, usual in _USUAL_NAMES.items():
        if role in found or role not in roles:
            continue
        likely = [at for at, name in enumerate(seen) if _plain(name) in usual.split() and at not in found.values()]
        if len(likely) > 1 and role != "title":  # a title only decorates: the first one will do
            named = listed([seen[at] for at in likely])
            raise DataError(f"{source}: several columns could be the {role}: {named}; choose one with {_flag(role)}")
        if likely:
            found[role] = likely[0]
        elif role in REQUIRED:
            raise DataError(f"{source}: {_without(role, seen)}")
    return found


def names_of(seen: Sequence[str], columns: Columns, source: str) -> Sequence[str]:
    """What the columns are called: what the caller says in their order, else what was seen.

    Raises
    ------
    DataError
        If the caller names more columns than there are, or fewer.
    """
    if columns.names is None:
        return seen
    if len(columns.names) != len(seen):
        raise DataError(
            f"{source} has {len(seen)} columns ({listed(seen)}), and {len(columns.names)} are named "
            f"({listed(columns.names)}): name each in its order, with - for one that is not to be read"
        )
    return columns.names


def unread_note(seen: Sequence[str], found: Mapping[str, int]) -> tuple[str, ...]:
    """What to say where a column may hold ratings and is not read as such."""
    unread = [name for at, name in enumerate(seen) if at not in found.values() and name != "-"]
    if "rating" in found or not unread:
        return ()
    return (f"no column is read as the rating; not read at all: {listed(unread)} (--rating-col names it)",)


def _without(role: str, seen: Sequence[str]) -> str:
    """What to say where a required column is missing: that there is no header, where that is plain."""
    if any(reads_as_number_or_time(name.strip()) for name in seen):
        return (
            f"there seems to be no header, for the columns are called {listed(seen)}: name them in their order with "
            "--columns user,item,rating,timestamp or Columns(names=...), and with - for one that is not to be read"
        )
    no_header = "; if there is no header, name all columns with --columns" if len(seen) > 1 else ""
    return f"no {role} column; columns seen: {listed(seen)}; name it with {_flag(role)}{no_header}"


def _named(name: str, role: str, seen: Sequence[str], source: str) -> int:
    """The position of the column that the caller named, by exact spelling first, then up to case."""
    exact = [at for at, other in enumerate(seen) if other == name]
    matches = exact or [at for at, other in enumerate(seen) if other.lower() == name.lower()]
    if not matches:
        raise DataError(f"{source}: no column {name!r}; columns seen: {listed(seen)}; correct {_flag(role)}")
    if len(matches) > 1:
        raise DataError(f"{source}: {len(matches)} columns are called {name!r}: rename all but one")
    return matches[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _flag(role: str) -> str:
    return f"--{role}-col or Columns({role}=...)"


def listed(seen: Sequence[str], show: int = 20) -> str:
    """Names for a message."""
    more = f" and {len(seen) - show} more" if len(seen) > show else ""
    return ", ".join(_shown(name) for name in seen[:show]) + more


def _shown(name: str, longest: int = 40) -> str:
    """A name as it stands, or, where it is rubbish, short and on one line."""
    short = name if len(name) <= longest else name[:longest] + "…"
    return short if short.isprintable() else ascii(short)
