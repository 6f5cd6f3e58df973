"""Tables in and out, in the library that the caller uses; ids as the caller writes them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retract.data import Catalog


class Row(NamedTuple):
    """A recommended item, where neither pandas nor polars is installed."""

    user: Any
    item: Any
    score: float
    rank: int


@dataclass(frozen=True)
class Ids:
    """How a caller writes ids, which are text inside.

    Parameters
    ----------
    user, item
        Whether they are whole numbers to the caller.
    """

    user: bool
    item: bool

    @classmethod
    def of(cls, data: object, catalog: Catalog, columns: Mapping[str, str]) -> Ids:
        """As in a frame's columns; elsewhere as whole numbers where all of them read so.

        Parameters
        ----------
        columns
            The frame's own names of the user's and the item's column.
        """
        kinds = {role: _is_integer(data, name) for role, name in columns.items()}
        return cls(
            kinds.get("user", all_whole(catalog.user_ids)) is True,
            kinds.get("item", all_whole(catalog.item_ids)) is True,
        )

    def within(self, catalog: Catalog) -> Ids:
        """As before, but for ids that came in since and do not read as whole numbers: then all are text."""
        return Ids(self.user and all_whole(catalog.user_ids), self.item and all_whole(catalog.item_ids))

    def users(self, names: Sequence[str]) -> list[Any]:
        """Users as the caller writes them; None for one who is gone."""
        return [(int(name) if self.user else name) if name else None for name in names]

    def items(self, names: Sequence[str]) -> list[Any]:
        """Items as the caller writes them."""
        return [int(name) if self.item else name for name in names]


def all_whole(names: NDArray[np.str_]) -> bool:
    """Whether all ids read as whole numbers and are written as such; those of who is gone do not count."""
    return all(name.lstrip("-").isdecimal() and str(int(name)) == name for name in names.tolist() if name)


def library_of(data: object) -> str | None:
    """The frame library that a value is of: "pandas", "polars", or None."""
    room = type(data).__module__.split(".")[0]
    return room if room in ("pandas", "polars") else None


def make_frame(columns: Mapping[str, Sequence[Any]], library: str | None) -> Any:
    """A frame of columns.

    Parameters
    ----------
    library
        "pandas" or "polars"; where neither is said, the one that is loaded or installed, and a list of `Row` where
        neither is.
    """
    chosen = library or next((name for name in ("polars", "pandas") if name in sys.modules), None)
    chosen = chosen or next((name for name in ("polars", "pandas") if find_spec(name)), None)
    if chosen == "polars":
        import polars

        return polars.DataFrame(dict(columns))
    if chosen == "pandas":
        import pandas

        return pandas.DataFrame(dict(columns))
    return [Row(*row) for row in zip(*columns.values(), strict=True)]


def _is_integer(data: object, name: str) -> bool | None:
    """Whether a frame's column holds whole numbers; None where that cannot be seen."""
    library = library_of(data)
    if library == "pandas":
        return bool(data[name].dtype.kind in "iu")  # type: ignore[index]
    if library == "polars":
        schema = data.collect_schema() if hasattr(data, "collect_schema") else {}
        return bool(name in schema and schema[name].is_integer())
    return None
