"""FedShare's server: the shared graph and the federated item table. It sees no private interaction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract import streams
from retract.data import Interactions
from retract.federation import Broadcast, Update
from retract.models.ego import EgoBatch
from retract.models.graph import BipartiteGraph
from retract.models.lightgcn import initial_embeddings
from retract.models.losses import activity_weights, aligned_info_nce, bpr
from retract.models.negatives import sample_negatives
from retract.models.spectral import spectral_embeddings
from retract.systems.base import Progress, no_progress
from retract.systems.fedshare.config import FedShareConfig

BETAS = (0.9, 0.99)
SLOWEST = 0.2
"""The part of its rate at which the server's fit ends."""


class SharedGraph:
    """The high-order graph of what is shared, and how a table of its nodes is read and fitted.

    Parameters
    ----------
    shared
        S, all that the server holds; not empty.
    config
        Settings.
    """

    def __init__(self, shared: Interactions, config: FedShareConfig) -> None:
        self.shared, self.config = shared, config
        self.graph = BipartiteGraph(shared)

    def global_view(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Z = Σ_l Â(S)^l E, parted into users [n_users, d] and items [n_items, d]."""
        final = self.graph.propagate(nodes, self.config.layers)
        return final[: self.graph.n_users], final[self.graph.n_users :]

    def start(self, seed: int) -> Tensor:
        """E before any step: the leading singular vectors of the graph, a function of S and the seed."""
        return spectral_embeddings(self.shared, self.config.dimension, self.config.spectral_scale, seed)

    def fit(self, nodes: Tensor, steps: range, seed: int, progress: Progress = no_progress) -> Iterator[Tensor]:
        """E after each step of Adam on BPR and L2, from `nodes`; a keyed part of the sharers in each step.

        Nothing that clients compute enters, so the fitted table is a function of S and the seed.
        """
        table = nodes.clone().requires_grad_()
        adam = torch.optim.Adam([table], betas=BETAS, eps=1e-15)
        for number, step in enumerate(steps):
            adam.param_groups[0]["lr"] = self.config.server_rate * (1 - (1 - SLOWEST) * number / len(steps))
            losses, weights = self._edges(*self.global_view(table), self._taking_part(step, seed), seed, step)
            loss = losses @ weights / weights.sum().clamp_min(1e-12) + self.penalty(table)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            progress("shared graph", number + 1, len(steps))
            yield table.detach()

    def ranking_loss(
        self, users: Tensor, items: Tensor, seed: int, step: int, among: NDArray[np.bool_] | None = None
    ) -> Tensor:
        """Mean BPR over the shared edges, a user read as own node plus ego graph: z_u + |S_u|^{-1/2} Σ z_i.

        With `among` (shape [len(shared)]), the sum over the edges where it is true, divided by the weight of all edges.
        """
        losses, weights = self._edges(users, items, self.shared.active_users(), seed, step)
        counted = weights if among is None else weights * torch.from_numpy(among)
        return losses @ counted / weights.sum().clamp_min(1e-12)

    def penalty(self, nodes: Tensor) -> Tensor:
        """L2 per node, so that users and items are held alike however many there are of each."""
        users, items = nodes[: self.graph.n_users], nodes[self.graph.n_users :]
        size = users.square().sum() / len(users) + items.square().sum() / len(items)
        return 0.5 * self.config.server_regularisation * size

    def _taking_part(self, step: int, seed: int) -> NDArray[np.int64]:
        """The sharers of a step: each belongs to one keyed group, and the groups take turns."""
        sharers, groups = self.shared.active_users(), round(1 / self.config.server_part)
        chosen = sharers[streams.below(groups, seed, 0, sharers, "server step") == step % groups]
        return chosen if len(chosen) else sharers

    def _edges(
        self, users: Tensor, items: Tensor, among: NDArray[np.int64], seed: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """BPR and weight of each shared edge of some users."""
        indptr, own = self.shared.rows_of(among)
        negatives = sample_negatives(among, indptr, own, self.shared.n_items, seed=seed, round=step)
        batch = EgoBatch(indptr, own, np.maximum(negatives, 0), self.shared.n_items)
        scores = batch.scores(users[torch.from_numpy(among)] + batch.read(items), items)
        losses = bpr(scores.positive[:, None], scores.negative).mean(dim=1)
        degrees = np.diff(indptr)
        weights = activity_weights(degrees, self.shared.n_items, self.config.activity_exponent)
        return losses, weights.repeat_interleave(torch.from_numpy(degrees))


class Server:
    """The server's state in a round: Q with a fresh Adam, and what it reads from its own table E.

    Parameters
    ----------
    shared
        S.
    nodes
        E, fitted to S; shape [n_users + n_items, d].
    config
        Settings.
    seed
        Key of the initial table and of all draws.
    items
        Q to go on from. The initial one unless given.
    """

    def __init__(
        self, shared: Interactions, nodes: Tensor, config: FedShareConfig, seed: int, items: Tensor | None = None
    ) -> None:
        self.config, self.seed, self.nodes = config, seed, nodes
        if items is None:
            items = initial_embeddings(shared.n_items, config.dimension, config.initial_scale, seed, "items")
        self.items = items.clone().requires_grad_()
        self.global_items = SharedGraph(shared, config).global_view(nodes)[1] if len(shared) else None
        self.coverage = 0.0
        self._shared_degrees = shared.user_degrees()
        self._adam = torch.optim.Adam([self.items], lr=config.item_rate, betas=BETAS, eps=1e-15)

    def broadcast(self, round: int) -> Broadcast:
        """What the clients get: Q, the coverage, and Z's items where anything is shared."""
        tables = {"items": self.items.detach(), "coverage": torch.tensor(self.coverage)}
        if self.global_items is not None:
            tables["global_items"] = self.global_items
        return Broadcast(round, tables)

    def apply(self, update: Update, broadcast: Broadcast, users: NDArray[np.int64]) -> None:
        """One Adam step of Q on the clients' mean gradient, L2, and λ c InfoNCE(Q, Z_items), c being the coverage."""
        gradient = update.tensors["item_gradient"] / update.tensors["weight"].clamp_min(1e-12)
        gradient = gradient + self.config.regularisation * self.items.detach() / len(self.items)
        if self.global_items is not None:
            aligned = self._alignment(self.global_items, broadcast.round)
            gradient = gradient + torch.autograd.grad(aligned, self.items)[0]
        self.items.grad = gradient
        self._adam.step()
        self.coverage = float(self._shared_degrees[users].sum() / max(int(update.tensors["interactions"]), 1))

    def _alignment(self, global_items: Tensor, step: int) -> Tensor:
        """λ c times the mean InfoNCE of a keyed batch of items between the two tables."""
        order = streams.bits(self.seed, step, 0, "alignment", np.arange(len(global_items)))
        batch = torch.from_numpy(np.argsort(order)[: self.config.contrast_batch])
        strength = self.config.contrast * self.coverage
        return strength * aligned_info_nce(self.items[batch], global_items[batch], self.config.temperature).mean()
