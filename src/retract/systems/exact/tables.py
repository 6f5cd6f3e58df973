"""Exact's model as named arrays: which form they are, and a Gram matrix that is added up when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.federation import Arrays
from retract.models.graph_filter import ChangedGram
from retract.systems.exact.config import Form

_PARTS = ("indptr", "indices", "values")


class Tables(Mapping[str, NDArray[Any]]):
    """The tables of a model with a graph filter.

    Parameters
    ----------
    gram
        G, read as CSR "indptr", "indices" and "values"; its parts are added up when one is read, as for saving.
    dense
        "degrees", interactions per item, int64, shape [n_items]; in spectral form also what users are folded into.
    """

    def __init__(self, gram: ChangedGram, dense: Arrays) -> None:
        self.gram, self.dense = gram, dense

    @classmethod
    def of(cls, model: Arrays) -> Tables:
        """These tables, or those that were read from a folder."""
        if isinstance(model, Tables):
            return model
        indptr, indices, values = (model[name] for name in _PARTS)
        n = len(indptr) - 1
        dense = {name: table for name, table in model.items() if name not in _PARTS}
        return cls(ChangedGram(sp.csr_matrix((values, indices, indptr), shape=(n, n))), dense)

    def over(self, n_items: int) -> Tables:
        """The same over a larger catalog, in which nobody has touched the new items yet."""
        total = self.gram.total
        more = n_items - total.shape[0]
        if not more:
            return self
        indptr = np.append(total.indptr, np.full(more, total.indptr[-1], dtype=total.indptr.dtype))
        gram = sp.csr_matrix((total.data, total.indices, indptr), shape=(n_items, n_items))
        degrees = np.append(self.dense["degrees"], np.zeros(more, dtype=np.int64))
        return Tables(ChangedGram(gram), {**self.dense, "degrees": degrees})

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in _PARTS:
            return self.dense[name]
        total = self.gram.total
        parts = dict(zip(_PARTS, (total.indptr, total.indices, total.data), strict=True))
        part: NDArray[Any] = parts[name]
        return part

    def __iter__(self) -> Iterator[str]:
        return iter((*_PARTS, *self.dense))

    def __len__(self) -> int:
        return len(_PARTS) + len(self.dense)


def form_of(model: Arrays) -> Form:
    """Which form these tables are."""
    if "inverse" in model:
        return "ease"
    return "spectral" if "items" in model else "filter"
