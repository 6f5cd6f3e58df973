"""The graph filter's model as named tensors, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import scipy.sparse as sp
import torch
from torch import Tensor

from retract.models.graph_filter import ChangedGram

_PARTS = ("indptr", "indices", "values")


class Tables(Mapping[str, Tensor]):
    """The Gram matrix as CSR and the items' degrees.

    Parameters
    ----------
    gram
        G; its parts are added up when a table is read, as for saving.
    degrees
        Interactions per item, int64, shape [n_items].
    """

    def __init__(self, gram: ChangedGram, degrees: Tensor) -> None:
        self.gram, self.degrees = gram, degrees

    @classmethod
    def of(cls, model: Mapping[str, Tensor]) -> Tables:
        """These tables, or those that were read from a folder."""
        if isinstance(model, Tables):
            return model
        indptr, indices, values = (model[name].numpy() for name in _PARTS)
        n = len(indptr) - 1
        return cls(ChangedGram(sp.csr_matrix((values, indices, indptr), shape=(n, n))), model["degrees"])

    def __getitem__(self, name: str) -> Tensor:
        if name == "degrees":
            return self.degrees
        total = self.gram.total
        parts = dict(zip(_PARTS, (total.indptr, total.indices, total.data), strict=True))
        return torch.from_numpy(parts[name])

    def __iter__(self) -> Iterator[str]:
        return iter((*_PARTS, "degrees"))

    def __len__(self) -> int:
        return len(_PARTS) + 1
