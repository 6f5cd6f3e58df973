"""Backbones: graph recommenders that all take initial embeddings to final ones, and differ in what they contrast.

    backbone.final(graph, nodes)        the embeddings that score by their inner products
    backbone.contrast(graph, nodes, ...)    the backbone's own term of the loss, beside the ranking loss of all

Who trains a backbone, or changes its initial embeddings, need not know which one it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from retract import streams
from retract.models.learn.graph import BipartiteGraph
from retract.models.learn.lightgcn import light_gcn
from retract.models.learn.losses import aligned_info_nce

NOISE_ROWS = 2**16
"""Directions of noise that are drawn once; every draw gives each node another of them."""


@dataclass(frozen=True)
class Moment:
    """What keys all randomness of a step of training.

    Parameters
    ----------
    seed
        The training's.
    epoch
        Passes over all edges before this one.
    batch
        Steps of this epoch before this one; 0 where all edges make one step.
    """

    seed: int
    epoch: int
    batch: int = 0


class Backbone(Protocol):
    """A recommender whose only parameters are the initial embeddings of users and items."""

    def final(self, graph: BipartiteGraph, nodes: Tensor) -> Tensor:
        """The final embeddings, differentiable in the initial ones.

        Parameters
        ----------
        nodes
            Initial embeddings of users, then items; float32, shape [n_nodes, d].

        Returns
        -------
        Tensor
            Shape [n_nodes, d].
        """
        ...

    def contrast(
        self, graph: BipartiteGraph, nodes: Tensor, final: Tensor, users: Tensor, items: Tensor, at: Moment
    ) -> Tensor:
        """The backbone's own loss beside the ranking, weighted; 0 if it has none.

        Parameters
        ----------
        nodes, final
            Initial embeddings and what `final` makes of them, shape [n_nodes, d].
        users, items
            Codes of those to be told apart, each once; shapes [n] and [m].
        at
            The key of its randomness.

        Returns
        -------
        Tensor
            A scalar.
        """
        ...


@dataclass(frozen=True)
class LightGCN:
    """LightGCN (He et al., SIGIR 2020): the mean of the layers 0..L (eq. 4, 8), and nothing to contrast.

    Parameters
    ----------
    layers
        L >= 0.
    """

    layers: int

    def final(self, graph: BipartiteGraph, nodes: Tensor) -> Tensor:
        """(1 / (L + 1)) Σ_{l=0..L} Â^l E."""
        return light_gcn(graph, nodes, self.layers)

    def contrast(
        self, graph: BipartiteGraph, nodes: Tensor, final: Tensor, users: Tensor, items: Tensor, at: Moment
    ) -> Tensor:
        """Nothing."""
        return nodes.new_zeros(())


@dataclass(frozen=True)
class SGL:
    """SGL with edge dropout (Wu et al., SIGIR 2021): two thinned graphs have to agree on who is who (eq. 6, 10, 11).

    The final embeddings are LightGCN's over the whole graph. The views are those of an epoch, as in the authors' code.

    Parameters
    ----------
    layers
        L >= 0.
    weight
        λ of the contrast.
    temperature
        τ > 0.
    dropout
        Share ρ of the edges that each view lacks, in [0, 1).
    """

    layers: int
    weight: float
    temperature: float
    dropout: float

    def final(self, graph: BipartiteGraph, nodes: Tensor) -> Tensor:
        """(1 / (L + 1)) Σ_{l=0..L} Â^l E."""
        return light_gcn(graph, nodes, self.layers)

    def contrast(
        self, graph: BipartiteGraph, nodes: Tensor, final: Tensor, users: Tensor, items: Tensor, at: Moment
    ) -> Tensor:
        """InfoNCE between the views that two dropouts give."""
        rows = torch.cat([users, items + graph.n_users])
        views = []
        for purpose in ("left view", "right view"):
            thinned = graph.thinned(self.dropout, seed=at.seed, round=at.epoch, purpose=purpose)
            views.append(self.final(thinned, nodes).index_select(0, rows))
        return self.weight * _told_apart(views[0], views[1], len(users), self.temperature)


@dataclass(frozen=True)
class SimGCL:
    """SimGCL (Yu et al., SIGIR 2022): two draws of noise in every layer have to agree on who is who (eq. 5 to 8).

    The mean is of the layers 1..L, without the initial embeddings, as the paper has it. Noise is a constant to the
    gradient, so a view is the final embedding plus a constant, and one backward propagation serves them all.

    Parameters
    ----------
    layers
        L >= 1.
    weight
        λ of the contrast.
    temperature
        τ > 0.
    noise
        Length ε of the noise that is added to every node in every layer.
    """

    layers: int
    weight: float
    temperature: float
    noise: float

    def final(self, graph: BipartiteGraph, nodes: Tensor) -> Tensor:
        """(1 / L) Σ_{l=1..L} Â^l E."""
        return graph.weighted(nodes, (0.0,) + (1 / self.layers,) * self.layers)

    def contrast(
        self, graph: BipartiteGraph, nodes: Tensor, final: Tensor, users: Tensor, items: Tensor, at: Moment
    ) -> Tensor:
        """InfoNCE between the views that two draws of noise give."""
        rows = torch.cat([users, items + graph.n_users])
        draws = [_Noise(self.noise, at, purpose) for purpose in ("left view", "right view")]
        clean = final.index_select(0, rows)
        sums = graph.disturbed(nodes, self.layers, rows, draws)
        left, right = (clean + (total / self.layers - clean).detach() for total in sums)
        return self.weight * _told_apart(left, right, len(users), self.temperature)


@dataclass(frozen=True)
class _Noise:
    """Adds to every row a vector of a given length, uniform in the orthant that the row lies in (eq. 5).

    Parameters
    ----------
    length
        ε.
    at, purpose
        The key of the draw.
    """

    length: float
    at: Moment
    purpose: str

    def __call__(self, layer: Tensor, nodes: Tensor, depth: int) -> Tensor:
        """The rows of `layer` (shape [n, d]) with their noise; `nodes` (shape [n]) are the nodes they belong to."""
        pool = _directions(self.at.seed, layer.shape[1])
        shift = int(streams.below(len(pool), self.at.seed, self.at.epoch, self.at.batch, self.purpose, depth)[0])
        drawn = pool.index_select(0, (nodes + shift) % len(pool))
        return torch.addcmul(layer, drawn, layer.sign(), value=self.length)


@lru_cache(maxsize=2)  # a function of its arguments alone: nothing is remembered but time
def _directions(seed: int, dimension: int) -> Tensor:
    """Uniform positive rows of length 1, shape [NOISE_ROWS, dimension]."""
    rows = streams.uniform(seed, 0, np.arange(NOISE_ROWS)[:, None], "noise", np.arange(dimension))
    return normalize(torch.from_numpy(rows.astype(np.float32)), dim=1)


def _told_apart(left: Tensor, right: Tensor, n_users: int, temperature: float) -> Tensor:
    """Mean InfoNCE of two views among users plus that among items; `n_users` rows of users come first."""
    kinds = (slice(None, n_users), slice(n_users, None))
    losses = [aligned_info_nce(left[kind], right[kind], temperature).mean() for kind in kinds]
    return torch.stack(losses).sum()
