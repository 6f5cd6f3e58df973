"""LightGCN (He et al., SIGIR 2020): embeddings, their propagation, and nothing else."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from retract import streams
from retract.models.learn.graph import BipartiteGraph


def initial_embeddings(n: int, dimension: int, scale: float, seed: int, purpose: str) -> Tensor:
    """Normal embeddings of deviation `scale`, shape [n, dimension]; row r depends on (seed, r, purpose) alone."""
    return torch.from_numpy(streams.normal(seed, 0, np.arange(n), purpose, dimension)) * scale


def light_gcn(graph: BipartiteGraph, embeddings: Tensor, layers: int) -> Tensor:
    """Final embeddings, (1 / (L + 1)) Σ_{l=0..L} Â^l E, the mean of the layers (eq. 4, 8).

    Parameters
    ----------
    embeddings
        Initial embeddings of users, then items; shape [n_nodes, d].

    Returns
    -------
    Tensor
        Shape [n_nodes, d].
    """
    return graph.weighted(embeddings, (1 / (layers + 1),) * (layers + 1))
