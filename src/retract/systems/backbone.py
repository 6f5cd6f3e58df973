"""Backbones with settings, and their training: for every system that stands on one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from retract.data import Interactions
from retract.errors import ConfigError
from retract.models.backbones import SGL, Backbone, LightGCN, Moment, SimGCL
from retract.models.graph import BipartiteGraph
from retract.models.lightgcn import initial_embeddings
from retract.models.pairwise import PairwiseLoss, batches
from retract.systems.base import Objective, Progress, Stopwatch, SystemConfig, no_progress

BackboneName = Literal["lightgcn", "sgl", "simgcl"]

BACKBONE_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "lightgcn": {},
        "sgl": {
            "layers": 2,
            "rate": 0.05,
            "regularisation": 0.004,
            "epochs": 300,
            "contrast_weight": 0.01,
            "edge_dropout": 0.5,
        },
        "simgcl": {"layers": 2, "rate": 0.1, "regularisation": 0.0005, "contrast_weight": 0.15},
    }
)
"""Where a backbone's defaults differ from those of `BackboneConfig`, which are LightGCN's.

Tuned in full batch on a tenth of ML-1M's train fold, of every user held out at random, within two and a half minutes on
one thread; two layers, for they are cheaper. A contrast bears a higher rate than ranking alone. What they reach there:
`python -m benchmarks.backbones validation`.
"""


class GraphConfig(SystemConfig):
    """Settings of every graph recommender."""

    dimension: Annotated[int, Field(ge=1, description="Size d of the embeddings.")] = 64
    layers: Annotated[int, Field(ge=0, description="Layers L.")] = 3
    rate: Annotated[float, Field(gt=0, description="Adam rate.")] = 0.03
    regularisation: Annotated[float, Field(ge=0, description="L2 per node.")] = 0.002
    activity_exponent: Annotated[
        float, Field(ge=0, le=1, description="A user with n interactions weighs n^-a per interaction.")
    ] = 0.5
    initial_scale: Annotated[float, Field(gt=0, description="Deviation of the initial embeddings.")] = 0.1


class BackboneConfig(GraphConfig):
    """Settings of a backbone and of its training; what is not given is the backbone's own default.

    The defaults were tuned in full batch on a validation part of ML-1M's train fold: see `BACKBONE_DEFAULTS`.
    """

    backbone: Annotated[BackboneName, Field(description="Which one.")] = "lightgcn"
    epochs: Annotated[int, Field(ge=1, description="Passes over all edges; in full batch, a step each.")] = 400
    batch: Annotated[int, Field(ge=0, description="Edges per step; 0 for all of them (full batch).")] = 0
    contrast_weight: Annotated[float, Field(ge=0, description="Weight of the contrast of SGL and SimGCL.")] = 0.1
    temperature: Annotated[float, Field(gt=0, description="Temperature of the contrast.")] = 0.2
    contrasted: Annotated[int, Field(ge=1, description="Edges whose users and items a step contrasts, at most.")] = 2048
    edge_dropout: Annotated[float, Field(ge=0, lt=1, description="Edges that each view of SGL lacks.")] = 0.1
    noise: Annotated[float, Field(ge=0, description="Length of SimGCL's noise per layer.")] = 0.1

    defaults_by: ClassVar = {"backbone": BACKBONE_DEFAULTS}

    @model_validator(mode="after")
    def _simgcl_has_layers(self) -> BackboneConfig:
        if self.backbone == "simgcl" and not self.layers:
            raise ConfigError("layers is 0: simgcl is the mean of the layers 1 to L; set at least 1")
        return self


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


def start(config: GraphConfig, shared: Interactions, seed: int) -> Tensor:
    """The table before training, shape [n_nodes, d]; a node's row depends on the seed and its place alone."""
    return initial_embeddings(shared.n_users + shared.n_items, config.dimension, config.initial_scale, seed, "nodes")


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


def learn(
    config: BackboneConfig, shared: Interactions, *, seed: int, progress: Progress = no_progress
) -> tuple[Tensor, list[Mapping[str, Any]]]:
    """Train from nothing, for all epochs of the settings; returns as `fit`."""
    return fit(config, shared, start(config, shared, seed), range(config.epochs), seed=seed, progress=progress)


def go_on(
    config: BackboneConfig,
    shared: Interactions,
    nodes: Tensor,
    epochs: int,
    *,
    seed: int,
    progress: Progress = no_progress,
) -> tuple[Tensor, list[Mapping[str, Any]]]:
    """More epochs, at a tenth of the rate: a settled table is not to be jolted by a fresh Adam; returns as `fit`."""
    later = range(config.epochs, config.epochs + epochs)
    return fit(config, shared, nodes, later, seed=seed, rate=config.rate / 10, progress=progress)


def fit(
    config: BackboneConfig,
    shared: Interactions,
    nodes: Tensor,
    epochs: range,
    *,
    seed: int,
    rate: float | None = None,
    progress: Progress = no_progress,
) -> tuple[Tensor, list[Mapping[str, Any]]]:
    """Adam from `nodes`, which stay as they are, and a record per epoch.

    Parameters
    ----------
    nodes
        The table to begin with, shape [n_nodes, d].
    epochs
        Numbers of the epochs; they key the draws.
    rate
        Adam's, if it is not to be the settings'.
    """
    nodes = nodes.clone().requires_grad_()
    graph, loss_of = BipartiteGraph(shared), make_loss(config)
    adam = optimiser(nodes, rate or config.rate)
    log: list[Mapping[str, Any]] = []
    for epoch in epochs:
        watch, total, steps = Stopwatch(), 0.0, 0
        for loss in _losses(loss_of, graph, nodes, Moment(seed, epoch), config.batch):
            descend(adam, loss)
            total, steps = total + float(loss.detach()), steps + 1
        record = {"stage": "train", "round": epoch, "loss": total / steps}
        log.append({**record, "seconds": round(watch.seconds, 4)})
        progress("training", epoch - epochs.start + 1, len(epochs))
    return nodes.detach(), log


def tables(config: BackboneConfig, shared: Interactions, nodes: Tensor) -> dict[str, Tensor]:
    """The final embeddings of `users` and `items` over the graph of `shared`, shapes [n_users, d] and [n_items, d]."""
    final = make_backbone(config).final(BipartiteGraph(shared), nodes)
    return {"users": final[: shared.n_users], "items": final[shared.n_users :]}


def _losses(loss: PairwiseLoss, graph: BipartiteGraph, nodes: Tensor, at: Moment, size: int) -> Iterator[Tensor]:
    """The losses of an epoch's steps, each taken when the table is where the steps before have brought it."""
    if not size:
        yield loss(graph, nodes, at)
        return
    for batch in batches(graph.interactions, size, at.seed, at.epoch):
        yield loss.of_batch(graph, nodes, batch)
