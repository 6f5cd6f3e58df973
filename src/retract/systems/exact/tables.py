"""Exact's model as named arrays: which form they are, and sums that are written out when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from retract.federation import Arrays
from retract.models.graph_filter import ChangedGram
from retract.models.neighbours import Neighbours
from retract.models.retained import Retained
from retract.systems.exact.config import Form

WHOLE, LARGEST = ("indptr", "indices", "values"), ("ids", "values", "lengths", "complete", "limits")
"""The tables of the filter's sums: of all of them, or of the largest of each item."""


class Tables(Mapping[str, NDArray[Any]]):
    """The tables of a model with a graph filter.

    Parameters
    ----------
    gram
        G, or the largest entries of each of its rows; written out as arrays when one is read, as for saving. Then what
        is served is a function of the sums alone, whatever they came from.
    dense
        "degrees", interactions per item, int64, shape [n_items]; in spectral form also what users are folded into.
    retained
        Where only the largest entries are kept, what lists are summed anew from; not at hand in what was read from a
        folder.
    """

    def __init__(self, gram: ChangedGram | Neighbours, dense: Arrays, retained: Retained | None = None) -> None:
        self.gram, self.dense, self.retained = gram, dense, retained
        self.names = (*(WHOLE if isinstance(gram, ChangedGram) else LARGEST), *dense)

    @classmethod
    def of(cls, model: Arrays) -> Tables:
        """These tables, or those that were read from a folder."""
        if isinstance(model, Tables):
            return model
        gram = ChangedGram.read(model) if "indptr" in model else Neighbours.read(model)
        return cls(gram, {name: table for name, table in model.items() if name not in (*WHOLE, *LARGEST)})

    @cached_property
    def _written(self) -> Mapping[str, NDArray[Any]]:
        return self.gram.tables if isinstance(self.gram, ChangedGram) else self.gram.served_only().tables

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._written[name] if name in self and name not in self.dense else self.dense[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def form_of(model: Arrays) -> Form:
    """Which form these tables are."""
    if "inverse" in model:
        return "ease"
    return "spectral" if "items" in model else "filter"
