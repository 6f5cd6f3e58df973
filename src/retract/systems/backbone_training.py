"""The training of backbones: for every system that stands on one. Tables come and go as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions
from retract.models.learn.arrays import as_tensor
from retract.models.learn.backbones import SGL, Backbone, LightGCN, Moment, SimGCL
from retract.models.learn.graph import BipartiteGraph
from retract.models.learn.lightgcn import initial_embeddings
from retract.models.learn.optimising import adam_tables, restore_adam
from retract.models.learn.pairwise import PairwiseLoss, batches
from retract.systems.abilities import Objective
from retract.systems.backbone import BackboneConfig
from retract.systems.base import Checkpoint, Keep, Progress, Stopwatch, keep_nothing, no_progress

Table = NDArray[np.float32]
Log = tuple[Mapping[str, Any], ...]


def make_backbone(config: BackboneConfig) -> Backbone:
    """The backbone that the settings name."""
    if config.backbone == "sgl":
        return SGL(config.layers, config.contrast_weight, config.temperature, config.edge_dropout)
    if config.backbone == "simgcl":
        return SimGCL(config.layers, config.contrast_weight, config.temperature, config.noise)
    return LightGCN(config.layers)


def make_loss(config: BackboneConfig) -> PairwiseLoss:
    """What the settings train by: ranking, L2 and the backbone's contrast."""
    return PairwiseLoss(make_backbone(config), config.regularisation, config.activity_exponent, config.contrasted)


def start(config: BackboneConfig, shared: Interactions, seed: int) -> Table:
    """The table before training, shape [n_nodes, d]; a node's row depends on the seed and its place alone."""
    n_nodes = shared.n_users + shared.n_items
    return _array(initial_embeddings(n_nodes, config.dimension, config.initial_scale, seed, "nodes"))


def objective(
    config: BackboneConfig, shared: Interactions, *, seed: int, among: Interactions | None = None
) -> Objective:
    """The loss over all of `shared`, of a table of nodes and of the step that keys its draws.

    Parameters
    ----------
    among
        Of the loss, the ranking of these edges alone.
    """
    graph, loss = BipartiteGraph(shared), make_loss(config)
    if among is None:
        return lambda nodes, step: loss(graph, nodes, Moment(seed, step))
    counted = among.contains(shared)
    return lambda nodes, step: loss.ranking(graph, loss.backbone.final(graph, nodes), Moment(seed, step), counted)


def optimiser(nodes: Tensor, rate: float) -> torch.optim.Optimizer:
    """Adam over a table of nodes."""
    return torch.optim.Adam([nodes], lr=rate, betas=(0.9, 0.99), eps=1e-15, fused=True)


def descend(adam: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step along the loss."""
    adam.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    adam.step()


class Fitting:
    """A table of nodes on its way down the loss, by Adam.

    Parameters
    ----------
    config
        Settings.
    shared
        The edges.
    nodes
        The table to begin with, shape [n_nodes, d]; it stays as it is.
    seed
        Keys all draws.
    rate
        Adam's.
    """

    def __init__(self, config: BackboneConfig, shared: Interactions, nodes: Table, *, seed: int, rate: float) -> None:
        self.graph, self.loss, self.size, self.seed = BipartiteGraph(shared), make_loss(config), config.batch, seed
        self._nodes = as_tensor(nodes).clone().requires_grad_()
        self._adam = optimiser(self._nodes, rate)

    @property
    def nodes(self) -> Table:
        """The table as it stands, a copy."""
        return _array(self._nodes).copy()

    def epoch(self, number: int) -> Mapping[str, Any]:
        """Pass over all edges once, and say how it went; the number keys the draws."""
        watch, total, steps = Stopwatch(), 0.0, 0
        for loss in self._losses(Moment(self.seed, number)):
            descend(self._adam, loss)
            total, steps = total + float(loss.detach()), steps + 1
        return {"stage": "train", "round": number, "loss": total / steps, "seconds": round(watch.seconds, 4)}

    def tables(self) -> Mapping[str, NDArray[Any]]:
        """All that the next epoch reads, copied."""
        return {"nodes": self.nodes, **adam_tables(self._adam)}

    def restore(self, tables: Mapping[str, NDArray[Any]]) -> None:
        """Put the optimiser where it stood; the table is what this was made with."""
        restore_adam(self._adam, tables)

    def _losses(self, at: Moment) -> Iterator[Tensor]:
        """The losses of an epoch's steps, each taken when the table is where the steps before have brought it."""
        if not self.size:
            yield self.loss(self.graph, self._nodes, at)
            return
        for batch in batches(self.graph.interactions, self.size, at.seed, at.epoch):
            yield self.loss.of_batch(self.graph, self._nodes, batch)


def learn(
    config: BackboneConfig,
    shared: Interactions,
    begun: Checkpoint,
    *,
    keep: Keep = keep_nothing,
    progress: Progress = no_progress,
) -> tuple[Table, Log]:
    """Train for all epochs of the settings, from nothing or from where it was interrupted.

    Parameters
    ----------
    begun
        The training, with as many epochs done as are; its seed keys all draws.
    keep
        Called after every epoch.

    Returns
    -------
    nodes
        Initial embeddings, shape [n_nodes, d].
    log
        A record per epoch.
    """
    nodes = begun.tables["nodes"] if begun.done else start(config, shared, begun.seed)
    fitting = Fitting(config, shared, nodes, seed=begun.seed, rate=config.rate)
    fitting.restore(begun.tables)

    def stand(done: int, log: Log) -> Checkpoint:
        return replace(begun, done=done, tables=fitting.tables(), log=log)

    log = begun.log
    for epoch in range(begun.done, config.epochs):
        log = (*log, fitting.epoch(epoch))
        progress("training", epoch + 1, config.epochs)
        keep(partial(stand, epoch + 1, log))
    return fitting.nodes, log


def go_on(
    config: BackboneConfig,
    shared: Interactions,
    nodes: Table,
    epochs: int,
    *,
    seed: int,
    progress: Progress = no_progress,
) -> tuple[Table, Log]:
    """More epochs, at a tenth of the rate: a settled table is not to be jolted by a fresh Adam; returns as `learn`."""
    fitting, log = Fitting(config, shared, nodes, seed=seed, rate=config.rate / 10), []
    for epoch in range(epochs):
        log.append(fitting.epoch(config.epochs + epoch))
        progress("training", epoch + 1, epochs)
    return fitting.nodes, tuple(log)


def tables(config: BackboneConfig, shared: Interactions, nodes: Table) -> dict[str, Table]:
    """The final embeddings of `users` and `items` over the graph of `shared`, shapes [n_users, d] and [n_items, d]."""
    final = _array(make_backbone(config).final(BipartiteGraph(shared), as_tensor(nodes)))
    return {"users": final[: shared.n_users], "items": final[shared.n_users :]}


def _array(tensor: Tensor) -> Table:
    array: Table = tensor.detach().numpy()
    return array
