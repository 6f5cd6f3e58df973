"""The bipartite user-item graph and the propagation over it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retract.data import Interactions
from retract.models.sparse import Pattern


class BipartiteGraph:
    """The symmetrically normalised adjacency of an interaction set, Â = D^{-1/2} A D^{-1/2}.

    Nodes are the users, then the items. A node without an edge keeps its own embedding and receives nothing.

    Parameters
    ----------
    interactions
        The edges.
    """

    def __init__(self, interactions: Interactions) -> None:
        self.n_users, self.n_items = interactions.n_users, interactions.n_items
        self._interactions = interactions

    @property
    def n_nodes(self) -> int:
        """Users and items together."""
        return self.n_users + self.n_items

    @cached_property
    def adjacency(self) -> Tensor:
        """Â as a sparse CSR tensor, float32, shape [n_nodes, n_nodes]; symmetric."""
        edges = self._interactions
        scale = _inverse_root(edges.user_degrees())[edges.users] * _inverse_root(edges.item_degrees())[edges.items]
        to_items = edges.csr(scale)
        to_users = to_items.T.tocsr()
        indptr = np.concatenate([to_items.indptr, to_users.indptr[1:] + to_items.nnz], dtype=np.int64)
        columns = np.concatenate([to_items.indices + self.n_users, to_users.indices], dtype=np.int64)
        values = np.concatenate([to_items.data, to_users.data], dtype=np.float32)
        return Pattern(indptr, columns, self.n_nodes).csr(torch.from_numpy(values))

    def propagate(self, embeddings: Tensor, layers: int) -> Tensor:
        """The sum of all layers, Σ_{l=0..L} Â^l E; divide by L + 1 for LightGCN's mean.

        The operator is symmetric, so its gradient is the same propagation of the incoming gradient: one Horner pass
        each way, and no intermediate layer is kept for the backward pass.

        Parameters
        ----------
        embeddings
            E, float32, shape [n_nodes, d].
        layers
            L >= 0.

        Returns
        -------
        Tensor
            Shape [n_nodes, d].
        """
        return _Propagate.apply(self, embeddings, layers)  # type: ignore[no-any-return, no-untyped-call]


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: BipartiteGraph, embeddings: Tensor, layers: int) -> Tensor:
        ctx.graph, ctx.layers = graph, layers
        return _horner(graph.adjacency, embeddings, layers)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        return None, _horner(ctx.graph.adjacency, grads[0].contiguous(), ctx.layers), None


def _horner(adjacency: Tensor, embeddings: Tensor, layers: int) -> Tensor:
    """Σ_{l=0..L} Â^l E = E + Â(E + Â(E + ...))."""
    total = embeddings.clone()
    for _ in range(layers):
        total = torch.addmm(embeddings, adjacency, total)
    return total


def _inverse_root(degrees: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Degree^{-1/2}, and 0 where the degree is 0."""
    return np.where(degrees > 0, np.maximum(degrees, 1) ** -0.5, 0.0)
