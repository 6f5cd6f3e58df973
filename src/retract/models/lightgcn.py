"""LightGCN (He et al., SIGIR 2020): embeddings, their propagation, and nothing else."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract import streams
from retract.data import Interactions
from retract.models.graph import BipartiteGraph


def initial_embeddings(n: int, dimension: int, scale: float, seed: int, purpose: str) -> Tensor:
    """Normal embeddings of deviation `scale`, shape [n, dimension]; row r depends on (seed, r, purpose) alone."""
    return torch.from_numpy(streams.normal(seed, 0, np.arange(n), purpose, dimension)) * scale


def light_gcn(graph: BipartiteGraph, embeddings: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Final user and item embeddings, the mean of the layers (eq. 4, 5).

    Parameters
    ----------
    embeddings
        Initial embeddings of users, then items; shape [n_nodes, d].

    Returns
    -------
    users, items
        Shapes [n_users, d] and [n_items, d].
    """
    final = graph.propagate(embeddings, layers) / (layers + 1)
    return final[: graph.n_users], final[graph.n_users :]


class DotProduct:
    """A recommender that scores by the inner product of user and item embeddings.

    Parameters
    ----------
    users, items
        Final embeddings, shapes [n_users, d] and [n_items, d].
    """

    def __init__(self, users: Tensor, items: Tensor) -> None:
        self.users, self.items = users, items

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Inner products, shape [len(users), n_items]; the history is already in the user embeddings."""
        return self.users[torch.from_numpy(users)] @ self.items.T
