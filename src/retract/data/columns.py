"""Which column of a data set plays which role, found by usual names or by what the caller says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

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
_REQUIRED = ("user", "item")


@dataclass(frozen=True)
class Columns:
    """The columns' names where they are not the usual ones; None means: find it.

    Parameters
    ----------
    user, item, rating, timestamp, fold, shared
        The name in the header, exactly or up to case.
    """

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    timestamp: str | None = None
    fold: str | None = None
    shared: str | None = None


USUAL = Columns()


def find_columns(seen: Sequence[str], columns: Columns, source: str) -> dict[str, int]:
    """The position of every role's column among the names `seen`; optional roles may be absent.

    Raises
    ------
    DataError
        If a required column or a named one is missing, or if several columns could play one role.
    """
    given = {f.name: getattr(columns, f.name) for f in fields(columns) if getattr(columns, f.name) is not None}
    found: dict[str, int] = {}
    for role, name in given.items():
        position = _named(name, role, seen, source)
        if position in found.values():
            raise DataError(f"{source}: column {name!r} cannot play two roles: give {_flag(role)} another one")
        found[role] = position
    for role, usual in _USUAL_NAMES.items():
        if role in found:
            continue
        likely = [at for at, name in enumerate(seen) if _plain(name) in usual.split() and at not in found.values()]
        if len(likely) > 1 and role != "title":  # a title only decorates: the first one will do
            named = _listed([seen[at] for at in likely])
            raise DataError(f"{source}: several columns could be the {role}: {named}; choose one with {_flag(role)}")
        if likely:
            found[role] = likely[0]
        elif role in _REQUIRED:
            raise DataError(f"{source}: no {role} column; columns seen: {_listed(seen)}; name it with {_flag(role)}")
    return found


def _named(name: str, role: str, seen: Sequence[str], source: str) -> int:
    """The position of the column that the caller named, by exact spelling first, then up to case."""
    exact = [at for at, other in enumerate(seen) if other == name]
    matches = exact or [at for at, other in enumerate(seen) if other.lower() == name.lower()]
    if not matches:
        raise DataError(f"{source}: no column {name!r}; columns seen: {_listed(seen)}; correct {_flag(role)}")
    if len(matches) > 1:
        raise DataError(f"{source}: {len(matches)} columns are called {name!r}: rename all but one")
    return matches[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _flag(role: str) -> str:
    return f"--{role}-col or Columns({role}=...)"


def _listed(seen: Sequence[str], show: int = 20) -> str:
    more = f" and {len(seen) - show} more" if len(seen) > show else ""
    return ", ".join(_shown(name) for name in seen[:show]) + more


def _shown(name: str, longest: int = 40) -> str:
    """A name as it stands, or, where it is rubbish, short and on one line."""
    short = name if len(name) <= longest else name[:longest] + "…"
    return short if short.isprintable() else ascii(short)
