"""The digest of a set of interactions: what certificates and plans name it by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data.interactions import Interactions

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n"})
_LINES_AT_ONCE = 1 << 14


def retained_digest(interactions: Interactions) -> str:
    r"""SHA-256 (hex) of a set of interactions, the same in whatever order a catalog names them.

    Hashed is a tab-separated table in UTF-8: a header that names the columns (user, item, and rating and timestamp if
    the set has them), then one line per interaction, the lines sorted by their bytes, each with a newline. Ids are the
    original ones, their backslashes, tabs and newlines written `\\`, `\t` and `\n`; ratings are as Python spells them.
    """
    catalog = interactions.catalog
    users, items = _escaped(catalog.user_ids), _escaped(catalog.item_ids)
    columns: dict[str, Callable[[NDArray[np.int64]], list[str]]] = {
        "user": lambda rows: [users[code] for code in interactions.users[rows].tolist()],
        "item": lambda rows: [items[code] for code in interactions.items[rows].tolist()],
    }
    if (ratings := interactions.ratings) is not None:
        columns["rating"] = lambda rows: _spelled(ratings[rows] + 0.0)  # + 0.0 makes one of both zeros
    if (timestamps := interactions.timestamps) is not None:
        columns["timestamp"] = lambda rows: _spelled(timestamps[rows])
    digest = hashlib.sha256("\t".join(columns).encode() + b"\n")
    for rows in _pieces(users, interactions.users):
        lines = map("\t".join, zip(*(texts(rows) for texts in columns.values()), strict=True))
        digest.update("".join(f"{line}\n" for line in sorted(lines)).encode())  # code points sort as their UTF-8 does
    return digest.hexdigest()


def _pieces(names: list[str], users: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows, piece by piece: every line of a piece comes after those of the pieces before."""
    ranks = np.unique([f"{name}\t" for name in names], return_inverse=True)[1][users]  # as a line begins
    order = np.argsort(ranks, kind="stable")
    ends = np.flatnonzero(np.diff(ranks[order], append=-1)) + 1  # of each user's rows
    begin = 0
    while begin < len(order):
        end = int(ends[np.searchsorted(ends, min(begin + _LINES_AT_ONCE, len(order)))])
        yield order[begin:end]
        begin = end


def _escaped(ids: NDArray[np.str_]) -> list[str]:
    """Ids that cannot be taken for several columns or lines."""
    return [name.translate(_ESCAPES) for name in ids.tolist()]


def _spelled(values: NDArray[Any]) -> list[str]:
    """Numbers as Python spells them, each distinct one spelled once."""
    distinct, places = np.unique(values, return_inverse=True)
    texts = [repr(value) for value in distinct.tolist()]
    return [texts[place] for place in places.tolist()]
