"""RecEraser's aggregation: an attention over the sub-models, fitted while they are frozen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract import streams
from retract.data import Interactions
from retract.models.learn.arrays import as_tensor
from retract.systems import backbone_training
from retract.systems.baselines.config import RecEraserConfig


def aggregated(
    tables: NDArray[np.float32], shared: Interactions, config: RecEraserConfig, seed: int
) -> NDArray[np.float32]:
    """One table for the graph of all that is shared, shape [n_nodes, d], of the sub-models' [K, n_nodes, d]."""
    frozen, attention = as_tensor(tables), Attention.start(len(tables), tables.shape[2], seed)
    if len(shared):
        loss_of = backbone_training.objective(config.backbone, shared, seed=seed)
        adam = torch.optim.Adam(attention.parameters(), lr=config.aggregation_rate, betas=(0.9, 0.99))
        for step in range(config.aggregation_steps):
            backbone_training.descend(adam, loss_of(attention(frozen, shared.n_users), step))
    nodes: NDArray[np.float32] = attention(frozen, shared.n_users).detach().numpy()
    return nodes


@dataclass(frozen=True)
class Attention:
    """The attention-based adaptive aggregation, users and items each with their own weights.

    With e_k the embedding of a node in sub-model k,

        ē_k = W_k e_k + b_k,    α_k = softmax_k( hᵀ ReLU(Vᵀ ē_k + c) ),    e = Σ_k α_k ē_k

    as the paper has it for users and items; that e is then propagated over the graph of all shards is its authors'
    code. Ours is the start, W_k = I: all sub-models set out from the same initial table, so they lie in one space.

    Parameters
    ----------
    transfer, shift
        W and b, shapes [K, d, d] and [K, d].
    inner, offset, outer
        V, c and h, for users and for items; shapes [2, d, d / 2], [2, d / 2] and [2, d / 2].
    """

    transfer: Tensor
    shift: Tensor
    inner: Tensor
    offset: Tensor
    outer: Tensor

    @classmethod
    def start(cls, n_shards: int, dimension: int, seed: int) -> Attention:
        """The weights before training: the mean over sub-models, all but for V's random start."""
        width = (dimension + 1) // 2
        drawn = streams.normal(seed, 0, np.arange(2 * dimension), "attention", width).reshape(2, dimension, width)
        weights = (
            torch.eye(dimension).repeat(n_shards, 1, 1),
            torch.zeros(n_shards, dimension),
            torch.from_numpy(drawn) * (2 / (dimension + width)) ** 0.5,
            torch.zeros(2, width),
            torch.full((2, width), 0.01),
        )
        return cls(*(weight.requires_grad_() for weight in weights))

    def parameters(self) -> list[Tensor]:
        """All that is trained."""
        return [self.transfer, self.shift, self.inner, self.offset, self.outer]

    def __call__(self, tables: Tensor, n_users: int) -> Tensor:
        """The aggregated table, shape [n_nodes, d], of the sub-models' (shape [K, n_nodes, d]), users first."""
        mapped = torch.baddbmm(self.shift[:, None], tables, self.transfer)
        parts = (mapped[:, :n_users], mapped[:, n_users:])
        return torch.cat([self._weighted(part, kind) for kind, part in enumerate(parts)])

    def _weighted(self, mapped: Tensor, kind: int) -> Tensor:
        hidden = torch.relu(mapped @ self.inner[kind] + self.offset[kind])
        weights = torch.softmax(hidden @ self.outer[kind], dim=0)
        return (weights[:, :, None] * mapped).sum(dim=0)
