"""FedShare's server: the shared graph, the federated item table, and snapshots. It sees no private interaction."""

from __future__ import annotations

from collections.abc import Mapping

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
from retract.systems.fedshare.config import FedShareConfig

BETAS = (0.9, 0.99)


class SharedGraph:
    """The high-order graph of what is shared, and how a table of its nodes is read and fitted.

    Parameters
    ----------
    shared
        S, all that the server holds.
    config
        Settings.
    """

    def __init__(self, shared: Interactions, config: FedShareConfig) -> None:
        self.shared, self.config = shared, config
        self.graph = BipartiteGraph(shared)
        degrees = shared.user_degrees()
        weights = activity_weights(degrees, shared.n_items, config.activity_exponent)
        self._weights = weights.repeat_interleave(torch.from_numpy(degrees))

    def global_view(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Z = Σ_l Â(S)^l E, parted into users [n_users, d] and items [n_items, d]."""
        final = self.graph.propagate(nodes, self.config.layers)
        return final[: self.graph.n_users], final[self.graph.n_users :]

    def ranking_loss(
        self, users: Tensor, items: Tensor, seed: int, step: int, among: NDArray[np.bool_] | None = None
    ) -> Tensor:
        """Mean BPR over the shared edges, a user read as own node plus ego graph: z_u + |S_u|^{-1/2} Σ z_i.

        With `among` (shape [len(shared)]), the sum over the edges where it is true, divided by the weight of all edges.
        """
        shared = self.shared
        negatives = sample_negatives(
            np.arange(shared.n_users), shared.indptr, shared.items, shared.n_items, seed=seed, round=step
        )
        batch = EgoBatch(shared.indptr, shared.items, np.maximum(negatives, 0), shared.n_items)
        scores = batch.scores(users + batch.read(items), items)
        losses = bpr(scores.positive[:, None], scores.negative).mean(dim=1)
        counted = self._weights if among is None else self._weights * torch.from_numpy(among)
        return losses @ counted / self._weights.sum().clamp_min(1e-12)

    def penalty(self, nodes: Tensor) -> Tensor:
        """L2 per node, so that users and items are held alike however many there are of each."""
        users, items = nodes[: self.graph.n_users], nodes[self.graph.n_users :]
        size = users.square().sum() / len(users) + items.square().sum() / len(items)
        return 0.5 * self.config.server_regularisation * size


class Server:
    """The server's state during training: tables Q and E, each with a fresh Adam.

    Parameters
    ----------
    shared
        S.
    config
        Settings.
    seed
        Key of the initial tables and of all draws.
    tables
        Tables to go on from: "items" (Q) and "nodes" (E). Initial ones unless given.
    """

    def __init__(
        self, shared: Interactions, config: FedShareConfig, seed: int, tables: Mapping[str, Tensor] | None = None
    ) -> None:
        self.config, self.seed = config, seed
        self.shared_graph = SharedGraph(shared, config) if len(shared) else None
        tables = tables if tables is not None else initial_tables(shared, config, seed)
        self.items = tables["items"].clone().requires_grad_()
        self.nodes = tables["nodes"].clone().requires_grad_()
        self.coverage = 0.0
        self._shared_degrees = shared.user_degrees()
        self.item_adam = torch.optim.Adam([self.items], lr=config.item_rate, betas=BETAS, eps=1e-15)
        self.node_adam = torch.optim.Adam([self.nodes], lr=config.server_rate, betas=BETAS, eps=1e-15)

    def learn_shared(self, round: int) -> None:
        """A few steps of E on S: BPR, plus λ c InfoNCE(Z_items, Q), c being the coverage."""
        if self.shared_graph is None:
            return
        for step in range(round * self.config.server_steps, (round + 1) * self.config.server_steps):
            users, items = self.shared_graph.global_view(self.nodes)
            loss = self.shared_graph.ranking_loss(users, items, self.seed, step)
            loss = loss + self._alignment(items, self.items.detach(), step)
            loss = loss + self.shared_graph.penalty(self.nodes)
            self.node_adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.node_adam.step()

    def broadcast(self, round: int) -> Broadcast:
        """What the clients get: Q, the coverage, and Z's items where anything is shared."""
        tables = {"items": self.items.detach(), "coverage": torch.tensor(self.coverage)}
        if self.shared_graph is not None:
            tables["global_items"] = self.shared_graph.global_view(self.nodes.detach())[1]
        return Broadcast(round, tables)

    def apply(self, update: Update, broadcast: Broadcast, users: NDArray[np.int64]) -> None:
        """One Adam step of Q on the clients' mean gradient, L2, and λ c InfoNCE(Q, Z_items)."""
        gradient = update.tensors["item_gradient"] / update.tensors["weight"].clamp_min(1e-12)
        gradient = gradient + self.config.regularisation * self.items.detach() / len(self.items)
        if "global_items" in broadcast.tensors:
            aligned = self._alignment(self.items, broadcast.tensors["global_items"], broadcast.round)
            gradient = gradient + torch.autograd.grad(aligned, self.items)[0]
        self.items.grad = gradient
        self.item_adam.step()
        self.coverage = float(self._shared_degrees[users].sum() / max(int(update.tensors["interactions"]), 1))

    def tables(self) -> dict[str, Tensor]:
        """A copy of (Q, E): what a snapshot holds."""
        return {"items": self.items.detach().clone(), "nodes": self.nodes.detach().clone()}

    def _alignment(self, left: Tensor, right: Tensor, step: int) -> Tensor:
        """λ c times the mean InfoNCE of a keyed batch of items between two tables."""
        order = streams.bits(self.seed, step, 0, "alignment", np.arange(len(left)))
        batch = torch.from_numpy(np.argsort(order)[: self.config.contrast_batch])
        strength = self.config.contrast * self.coverage
        return strength * aligned_info_nce(left[batch], right[batch], self.config.temperature).mean()


def initial_tables(shared: Interactions, config: FedShareConfig, seed: int) -> dict[str, Tensor]:
    """Q and E before any training; they depend on the catalog's size and the seed alone."""
    n_nodes = shared.n_users + shared.n_items
    return {
        "items": initial_embeddings(shared.n_items, config.dimension, config.initial_scale, seed, "items"),
        "nodes": initial_embeddings(n_nodes, config.dimension, config.initial_scale, seed, "nodes"),
    }
