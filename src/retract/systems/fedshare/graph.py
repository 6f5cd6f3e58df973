"""The server's own table E, over the graph of what is shared, and its fit. It sees no private interaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract import streams
from retract.data import Interactions
from retract.federation import Arrays
from retract.models.learn.arrays import as_tensor
from retract.models.learn.ego import EgoBatch
from retract.models.learn.graph import BipartiteGraph
from retract.models.learn.losses import activity_weights, bpr
from retract.models.learn.optimising import adam_tables, restore_adam
from retract.models.negatives import sample_negatives
from retract.models.spectral import spectral_embeddings
from retract.systems.base import Progress, no_progress
from retract.systems.fedshare.config import BETAS, SNAPSHOT, FedShareConfig

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
        return as_tensor(spectral_embeddings(self.shared, self.config.dimension, self.config.spectral_scale, seed))

    def step_loss(self, nodes: Tensor, seed: int, step: int) -> Tensor:
        """What a step of the fit lowers: BPR over the edges of those who take part in it, and L2."""
        losses, weights = self._edges(*self.global_view(nodes), self._taking_part(step, seed), seed, step)
        return losses @ weights / weights.sum().clamp_min(1e-12) + self.penalty(nodes)

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


class Fit:
    """E on its way: steps of Adam on BPR and L2, with a keyed part of the sharers in each.

    Nothing that clients compute enters, so the fitted table is a function of S and the seed.

    Parameters
    ----------
    graph
        Of what is shared.
    nodes
        E to begin with.
    steps
        Numbers of the steps, the keys of their draws.
    seed
        Key of all draws.
    kept_at
        Places in `steps` after which a snapshot is kept.
    """

    def __init__(
        self, graph: SharedGraph, nodes: Tensor, steps: range, seed: int, kept_at: Collection[int] = ()
    ) -> None:
        self.graph, self.steps, self.seed, self.kept_at = graph, steps, seed, kept_at
        self.done, self.snapshots = 0, list[Tensor]()
        self.table = nodes.clone().requires_grad_()
        self.adam = torch.optim.Adam([self.table], betas=BETAS, eps=1e-15)

    @classmethod
    def of_training(cls, shared: Interactions, config: FedShareConfig, seed: int) -> Fit:
        """The fit of a training, before its first step; `shared` is not empty."""
        graph = SharedGraph(shared, config)
        kept_at = snapshot_steps(config.server_steps, config.snapshots)
        return cls(graph, graph.start(seed), range(config.server_steps), seed, kept_at)

    def run(self, progress: Progress = no_progress, after_step: Callable[[], None] = lambda: None) -> Fitted:
        """All steps that are left."""
        while self.done < len(self.steps):
            self.step()
            progress("shared graph", self.done, len(self.steps))
            after_step()
        return Fitted(self.table.detach().clone(), self.snapshots)

    def step(self) -> None:
        """One step; its rate falls to `SLOWEST` of the first one's."""
        part = (1 - SLOWEST) * self.done / len(self.steps)
        self.adam.param_groups[0]["lr"] = self.graph.config.server_rate * (1 - part)
        loss = self.graph.step_loss(self.table, self.seed, self.steps[self.done])
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        if self.done in self.kept_at:
            self.snapshots.append(self.table.detach().clone())
        self.done += 1

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """Copies of all that the next step reads, and of the snapshots."""
        nodes = self.table.detach().numpy().copy()
        return {"nodes": nodes, **snapshot_tables(self.snapshots), **adam_tables(self.adam)}

    def restore(self, done: int, tables: Arrays) -> None:
        """Go back to where `tables` were taken, after so many steps."""
        self.done, self.snapshots = done, snapshots_in(tables)
        with torch.no_grad():
            self.table.copy_(as_tensor(tables["nodes"]))
        restore_adam(self.adam, tables)


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves.

    Parameters
    ----------
    nodes
        E, shape [n_users + n_items, d].
    snapshots
        Those that contrastive unlearning wants, oldest first.
    """

    nodes: Tensor
    snapshots: Sequence[Tensor]


def fit(shared: Interactions, config: FedShareConfig, seed: int, progress: Progress = no_progress) -> Fitted:
    """E fitted to S from its spectral start; zeros where nothing is shared."""
    if not len(shared):
        return Fitted(torch.zeros(shared.n_users + shared.n_items, config.dimension), ())
    return Fit.of_training(shared, config, seed).run(progress)


def snapshot_steps(steps: int, count: int) -> set[int]:
    """`count` evenly spaced steps, the last one included."""
    return {int(step) for step in np.linspace(0, steps - 1, count + 1).round()[1:]}


def snapshot_tables(snapshots: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
    """Snapshots by the names that they are kept under."""
    return {f"{SNAPSHOT}{number}": table.numpy().copy() for number, table in enumerate(snapshots)}


def snapshots_in(tables: Arrays) -> list[Tensor]:
    """The snapshots among some tables, oldest first."""
    names = [name for name in tables if name.startswith(SNAPSHOT)]
    return [as_tensor(tables[name]) for name in sorted(names, key=lambda name: int(name[len(SNAPSHOT) :]))]
