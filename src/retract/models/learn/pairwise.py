"""What a backbone is trained by: pairwise ranking over all edges or a batch of them, L2, and its own contrast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract import streams
from retract.data import Interactions
from retract.models.learn.backbones import Backbone, Moment
from retract.models.learn.graph import BipartiteGraph
from retract.models.learn.losses import activity_weights, bpr
from retract.models.learn.sparse import Pattern, pair_scores
from retract.models.negatives import sample_negatives


@dataclass(frozen=True)
class Batch:
    """Some edges and a negative for each.

    Parameters
    ----------
    edges
        Places in the interactions, int64, shape [n].
    negatives
        Items, int64, shape [n]; -1 where a user touched every item.
    at
        When it is its turn.
    """

    edges: NDArray[np.int64]
    negatives: NDArray[np.int64]
    at: Moment


def batches(edges: Interactions, size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """All edges once, in an order that (seed, epoch) decides; the last batch may be smaller.

    Parameters
    ----------
    size
        Edges per batch, >= 1.
    """
    negatives = _negatives(edges, seed, epoch)
    order = np.argsort(streams.bits(seed, epoch, edges.users, "order", edges.items), kind="stable")
    for batch, begin in enumerate(range(0, len(order), size)):
        places = order[begin : begin + size]
        yield Batch(places, negatives[places], Moment(seed, epoch, batch))


@dataclass(frozen=True)
class PairwiseLoss:
    """BPR weighted by activity, L2 per node, and the backbone's contrast.

        Σ_e w_e (-log σ(ŷ_e - ŷ_e⁻)) / Σ_e w_e  +  (λ / 2) (mean_u |E_u|² + mean_i |E_i|²)  +  contrast

    with w_e = n_u^{-a} for an edge of a user of n_u edges, and one negative per edge and epoch. A batch gives an
    unbiased estimate of what all edges give: over an epoch the ranking losses, weighted by their sizes, average to it.

    Parameters
    ----------
    backbone
        What takes initial to final embeddings.
    regularisation
        λ.
    activity_exponent
        a in [0, 1].
    contrasted
        Edges whose users and items a step contrasts, at most: its cost is their square. Those that a batch begins with,
        or, when all edges make one step, as many drawn at random.
    """

    backbone: Backbone
    regularisation: float
    activity_exponent: float
    contrasted: int

    def __call__(self, graph: BipartiteGraph, nodes: Tensor, at: Moment, *, final: Tensor | None = None) -> Tensor:
        """The loss over all edges of the graph at once, a scalar.

        Parameters
        ----------
        nodes
            Initial embeddings, shape [n_nodes, d].
        at
            The key of its draws.
        final
            `backbone.final(graph, nodes)`, where the caller has it.
        """
        final = self.backbone.final(graph, nodes) if final is None else final
        n_edges = len(graph.interactions)
        drawn = streams.below(n_edges, at.seed, at.epoch, at.batch, "contrast", np.arange(self.contrasted))
        contrast = self._contrast(graph, drawn, nodes, final, at)
        return self.ranking(graph, final, at) + self.penalty(graph, nodes) + contrast

    def of_batch(self, graph: BipartiteGraph, nodes: Tensor, batch: Batch, *, final: Tensor | None = None) -> Tensor:
        """The loss over some of the edges, a scalar; parameters as in `__call__`."""
        final = self.backbone.final(graph, nodes) if final is None else final
        contrast = self._contrast(graph, batch.edges[: self.contrasted], nodes, final, batch.at)
        return self.batch_ranking(graph, final, batch) + self.penalty(graph, nodes) + contrast

    def ranking(
        self, graph: BipartiteGraph, final: Tensor, at: Moment, among: NDArray[np.bool_] | None = None
    ) -> Tensor:
        """The ranking loss over all edges; with `among` (shape [n_edges]), the part of it that these make up."""
        edges = graph.interactions
        pairs = np.stack([edges.items, np.maximum(_negatives(edges, at.seed, at.epoch), 0)], axis=1).reshape(-1)
        pattern = Pattern(edges.indptr * 2, pairs, edges.n_items)
        scores = pair_scores(pattern, final[: graph.n_users], final[graph.n_users :]).view(-1, 2)
        weights = self._weights(edges).repeat_interleave(torch.from_numpy(edges.user_degrees()))
        counted = weights if among is None else weights * torch.from_numpy(among)
        return bpr(scores[:, 0], scores[:, 1]) @ counted / weights.sum().clamp_min(1e-12)

    def batch_ranking(self, graph: BipartiteGraph, final: Tensor, batch: Batch) -> Tensor:
        """The ranking loss over some of the edges, as if all were like them."""
        edges = graph.interactions
        users, negatives = edges.users[batch.edges], np.maximum(batch.negatives, 0)
        rows = np.concatenate([users, edges.items[batch.edges] + graph.n_users, negatives + graph.n_users])
        left, positive, negative = final.index_select(0, torch.from_numpy(rows)).chunk(3)
        losses = bpr((left * positive).sum(dim=1), (left * negative).sum(dim=1))
        weights = self._weights(edges)
        mean_weight = weights @ torch.from_numpy(edges.user_degrees()).float() / len(edges)
        return losses @ weights[torch.from_numpy(users)] / (len(users) * mean_weight.clamp_min(1e-12))

    def penalty(self, graph: BipartiteGraph, nodes: Tensor) -> Tensor:
        """L2 per node, users and items apart."""
        shares = torch.full((graph.n_nodes,), 1 / graph.n_items)
        shares[: graph.n_users] = 1 / graph.n_users
        squares: Tensor = torch.linalg.vecdot(nodes, nodes)
        return 0.5 * self.regularisation * (squares @ shares)

    def _weights(self, edges: Interactions) -> Tensor:
        """The weight of each of a user's edges, shape [n_users]."""
        return activity_weights(edges.user_degrees(), edges.n_items, self.activity_exponent)

    def _contrast(
        self, graph: BipartiteGraph, edges: NDArray[np.int64], nodes: Tensor, final: Tensor, at: Moment
    ) -> Tensor:
        """The backbone's contrast among the users and the items of some edges."""
        if not len(graph.interactions):
            return nodes.new_zeros(())
        ends = graph.interactions.users[edges], graph.interactions.items[edges]
        users, items = (torch.from_numpy(np.unique(codes)) for codes in ends)
        return self.backbone.contrast(graph, nodes, final, users, items, at)


def _negatives(edges: Interactions, seed: int, epoch: int) -> NDArray[np.int64]:
    """One negative per edge, shape [n]."""
    users = np.arange(edges.n_users)
    return sample_negatives(users, edges.indptr, edges.items, edges.n_items, seed=seed, round=epoch)[:, 0]
