"""The bipartite user-item graph and the propagation over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from retract import streams
from retract.data import Interactions

RENUMBER_FROM = 30_000
"""Nodes from which on the propagation renumbers them: below, a table fits into the processor's cache as it is."""
KEPT_VIEWS = 2
"""Thinned graphs that a graph remembers: a pair of views serves all steps of an epoch."""

Disturbance = Callable[[Tensor, Tensor, int], Tensor]
"""Of a layer's rows (shape [n, d]), the nodes that they belong to (shape [n]) and the layer's number: other rows."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where the edges stand in the symmetric adjacency, row by row; every edge stands twice.

    Parameters
    ----------
    indptr
        Row pointers, int64, shape [n_nodes + 1].
    columns
        Column of every place, int32, shape [2 n_edges].
    edges
        The edge at every place, int32, shape [2 n_edges].
    """

    indptr: NDArray[np.int64]
    columns: NDArray[np.int32]
    edges: NDArray[np.int32]

    @classmethod
    def of(cls, interactions: Interactions, order: NDArray[np.int64] | None = None) -> Places:
        """The places of a graph, its nodes (users, then items) renumbered so that row r is node order[r]."""
        ends = interactions.users, interactions.items + interactions.n_users
        n_nodes = interactions.n_users + interactions.n_items
        if order is not None:
            rank = np.empty_like(order)
            rank[order] = np.arange(n_nodes)
            ends = rank[ends[0]], rank[ends[1]]
        rows, columns = np.concatenate(ends), np.concatenate(ends[::-1])
        edges = np.tile(np.arange(len(interactions)), 2)
        matrix = sp.coo_matrix((edges, (rows, columns)), shape=(n_nodes, n_nodes)).tocsr()
        matrix.sort_indices()
        return cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.int32))

    def rows(self, rows: NDArray[np.int64], adjacency: Tensor) -> Tensor:
        """Some rows of an adjacency over these places, sparse, shape [len(rows), n_nodes]."""
        lengths = self.indptr[rows + 1] - self.indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        take = torch.from_numpy(np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths))
        return torch.sparse_csr_tensor(
            torch.from_numpy(indptr).int(),
            torch.from_numpy(self.columns)[take],
            adjacency.values()[take],
            size=(len(rows), len(self.indptr) - 1),
        )

    def kept(self, keep: NDArray[np.bool_]) -> Places:
        """The places of the kept edges (shape [n_edges]), which are numbered anew in their order."""
        stays = keep.take(self.edges)
        number, before = np.cumsum(keep, dtype=np.int32) - 1, np.zeros(len(stays) + 1, dtype=np.int32)
        np.cumsum(stays, dtype=np.int32, out=before[1:])
        places = np.flatnonzero(stays)
        indptr = before[self.indptr].astype(np.int64)
        return Places(indptr, self.columns.take(places), number.take(self.edges.take(places)))

    def matrix(self, values: NDArray[np.float32]) -> Tensor:
        """The sparse CSR matrix with `values` (shape [n_edges]) at the edges' places."""
        n_nodes = len(self.indptr) - 1
        return torch.sparse_csr_tensor(
            torch.from_numpy(self.indptr).int(),  # MKL's own width: int64 is converted at every product
            torch.from_numpy(self.columns),
            torch.from_numpy(values[self.edges]),
            size=(n_nodes, n_nodes),
        )


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
        self.interactions = interactions
        self._views: dict[tuple[float, int, int, str], BipartiteGraph] = {}

    @property
    def n_nodes(self) -> int:
        """Users and items together."""
        return self.n_users + self.n_items

    @cached_property
    def adjacency(self) -> Tensor:
        """Â as a sparse CSR tensor, float32, shape [n_nodes, n_nodes]; symmetric."""
        return self._inner if self._order is None else Places.of(self.interactions).matrix(self._values)

    def propagate(self, embeddings: Tensor, layers: int) -> Tensor:
        """The sum of all layers, Σ_{l=0..L} Â^l E; divide by L + 1 for LightGCN's mean.

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
        return self.weighted(embeddings, (1.0,) * (layers + 1))

    def weighted(self, embeddings: Tensor, weights: Sequence[float]) -> Tensor:
        """A weighted sum of layers, Σ_{l=0..L} w_l Â^l E; `propagate` is the one of ones.

        The operator is symmetric, so its gradient is the same sum over the incoming gradient: one Horner pass each
        way, and no intermediate layer is kept for the backward pass.

        Parameters
        ----------
        embeddings
            E, float32, shape [n_nodes, d].
        weights
            w_0 to w_L.

        Returns
        -------
        Tensor
            Shape [n_nodes, d].
        """
        return _Propagate.apply(self, embeddings, weights)  # type: ignore[no-any-return, no-untyped-call]

    @torch.no_grad()
    def disturbed(
        self, embeddings: Tensor, layers: int, nodes: Tensor, disturbances: Sequence[Disturbance]
    ) -> list[Tensor]:
        """For every disturbance f, the sum Σ_{l=1..L} E^l of the walk E^l = f(Â E^{l-1}) at some nodes; no gradient.

        The walks share their first product, and their last is made for `nodes` alone.

        Parameters
        ----------
        embeddings
            E^0, float32, shape [n_nodes, d].
        layers
            L >= 1.
        nodes
            Where the sum is wanted, shape [n].

        Returns
        -------
        list of Tensor
            Shape [n, d] each.
        """
        every = torch.arange(self.n_nodes) if self._order is None else self._order
        rows = nodes if self._order is None else self._rank[nodes]
        first, sums = self._inner @ self._enter(embeddings), []
        last = self._places.rows(rows.numpy(), self._inner) if layers > 1 else None
        for disturb in disturbances:
            layer = disturb(first, every, 1)
            total = layer[rows]
            for depth in range(2, layers):
                layer = disturb(self._inner @ layer, every, depth)
                total += layer[rows]
            sums.append(total if last is None else total + disturb(last @ layer, nodes, layers))
        return sums

    def thinned(self, dropout: float, *, seed: int, round: int, purpose: str) -> BipartiteGraph:
        """The graph without a random part of its edges, normalised by the degrees that are left.

        Whether an edge is dropped depends on (seed, round, user, item, purpose) alone. The last two are remembered.

        Parameters
        ----------
        dropout
            Probability to drop an edge, in [0, 1).
        purpose
            Which of a round's views this is.
        """
        key = (dropout, seed, round, purpose)
        if key not in self._views:
            edges = self.interactions
            keep = streams.uniform(seed, round, edges.users, purpose, edges.items) >= dropout
            while len(self._views) >= KEPT_VIEWS:
                del self._views[next(iter(self._views))]
            self._views[key] = self.where(keep)
        return self._views[key]

    def where(self, keep: NDArray[np.bool_]) -> BipartiteGraph:
        """The graph of the kept edges (shape [n_edges]); nothing is sorted again."""
        graph = BipartiteGraph(self.interactions.where(keep))
        graph._order, graph._places = self._order, self._places.kept(keep)
        return graph

    @cached_property
    def _order(self) -> Tensor | None:
        """The node in every row of the inner adjacency, shape [n_nodes]; None where nodes are not renumbered.

        Neighbours get near numbers, so that a product finds their rows in the cache (Cuthill and McKee, 1969); users
        and items keep apart, which measured faster than the order as it comes.
        """
        if self.n_nodes < RENUMBER_FROM:
            return None
        places = Places.of(self.interactions)
        shape = (self.n_nodes, self.n_nodes)
        matrix = sp.csr_matrix((np.ones(len(places.columns)), places.columns, places.indptr), shape=shape)
        order = reverse_cuthill_mckee(matrix, symmetric_mode=True).astype(np.int64)
        return torch.from_numpy(np.concatenate([order[order < self.n_users], order[order >= self.n_users]]))

    @cached_property
    def _rank(self) -> Tensor:
        """The row of every node in the inner adjacency: the inverse of the order."""
        assert self._order is not None
        return torch.argsort(self._order)

    @cached_property
    def _places(self) -> Places:
        return Places.of(self.interactions, None if self._order is None else self._order.numpy())

    @cached_property
    def _values(self) -> NDArray[np.float32]:
        """Â at every edge."""
        edges = self.interactions
        scale = _inverse_root(edges.user_degrees())[edges.users] * _inverse_root(edges.item_degrees())[edges.items]
        return scale.astype(np.float32)

    @cached_property
    def _inner(self) -> Tensor:
        """Â in the inner numbering."""
        return self._places.matrix(self._values)

    def _enter(self, embeddings: Tensor) -> Tensor:
        """Rows of nodes as the inner adjacency numbers them."""
        return embeddings if self._order is None else embeddings.index_select(0, self._order)

    def _horner(self, embeddings: Tensor, weights: Sequence[float]) -> Tensor:
        """Σ_l w_l Â^l E = w_0 E + Â(w_1 E + Â(w_2 E + ...)), computed in the inner numbering."""
        *lower, last = weights
        if not lower:
            return last * embeddings
        inside = self._enter(embeddings)
        total = torch.addmm(inside, self._inner, inside, beta=lower.pop(), alpha=last)
        for weight in reversed(lower):
            total = torch.addmm(inside, self._inner, total, beta=weight)
        return total if self._order is None else total.index_select(0, self._rank)


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: BipartiteGraph, embeddings: Tensor, weights: Sequence[float]) -> Tensor:
        ctx.graph, ctx.weights = graph, weights
        return graph._horner(embeddings, weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.graph._horner(grads[0].contiguous(), ctx.weights), None


def _inverse_root(degrees: NDArray[np.int64]) -> NDArray[np.float64]:
    """Degree^{-1/2}, and 0 where the degree is 0."""
    return np.where(degrees > 0, np.maximum(degrees, 1) ** -0.5, 0.0)
