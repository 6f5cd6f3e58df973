"""Centralised LightGCN: everything that is shared lies on the server, and devices only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Engine
from retract.models.recommender import Recommender
from retract.systems.abilities import Objective
from retract.systems.base import (
    Checkpoint,
    Keep,
    Memory,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    keep_nothing,
    no_progress,
    require_same_system,
)
from retract.systems.baselines.config import LightGCNConfig
from retract.systems.central import begun, recommender_of
from retract.systems.checks import require_extra, require_shared

NAME = "lightgcn"


class LightGCNServer:
    """LightGCN (He et al., SIGIR 2020) trained by BPR on all shared edges at once.

    Full-batch steps replace the paper's minibatches: on a CPU the propagation is most of a step, and it costs the same
    for one edge as for all.

    Parameters
    ----------
    config
        Settings.
    """

    def __init__(self, config: LightGCNConfig) -> None:
        self.config = config

    def train(
        self,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        resume_from: Checkpoint | None = None,
        keep: Keep = keep_nothing,
        progress: Progress = no_progress,
    ) -> Trained:
        """Train on what is shared; no device is asked, and what is private plays no part.

        Raises
        ------
        DataError
            If nothing is shared.
        """
        require_extra(NAME, "learn", "torch")
        from retract.systems import backbone_training

        require_shared(NAME, shared, engine)
        start = begun(NAME, self.config, seed, resume_from)
        nodes, log = backbone_training.learn(self.config.backbone, shared, start, keep=keep, progress=progress)
        return _trained(nodes, self.config, shared, seed, start.run, log)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Train again: centralised LightGCN keeps nothing that it could forget by."""
        watch, again = Stopwatch(), LightGCNServer(_config_of(trained))
        result = again.train(trained.shared - withdrawal.forget, engine, seed=trained.seed, progress=progress)
        record = {"stage": "unlearn", "request": withdrawal.request_id, "seconds": round(watch.seconds, 4)}
        return replace(result, log=(*result.log, record))

    def recommender(self, trained: Trained) -> Recommender:
        """Inner products of the final embeddings."""
        return recommender_of(trained.model)

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """The final embeddings: everything lies on the server."""
        return {"embeddings": recommender_of(trained.model)}

    def continue_training(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        rounds: int,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """More steps, at a lower rate."""
        require_extra(NAME, "learn", "torch")
        from retract.systems import backbone_training

        settings = _config_of(trained).backbone
        nodes, log = backbone_training.go_on(
            settings, shared, self.nodes(trained), rounds, seed=seed, progress=progress
        )
        return replace(self.with_nodes(trained, nodes, shared), log=(*trained.log, *log))

    def nodes(self, trained: Trained) -> NDArray[np.float32]:
        """The initial embeddings, before propagation."""
        return trained.model["nodes"]

    def objective(self, shared: Interactions, *, seed: int, among: Interactions | None = None) -> Objective:
        """BPR on the graph of `shared`, and L2."""
        require_extra(NAME, "learn", "torch")
        from retract.systems import backbone_training

        return backbone_training.objective(self.config.backbone, shared, seed=seed, among=among)

    def with_nodes(self, trained: Trained, nodes: NDArray[np.float32], shared: Interactions) -> Trained:
        """The final embeddings that `nodes` give over the graph of `shared`."""
        return _trained(nodes, _config_of(trained), shared, trained.seed, trained.run, trained.log)


def _config_of(trained: Trained) -> LightGCNConfig:
    """The settings that a model was trained with."""
    require_same_system(NAME, trained)
    assert isinstance(trained.config, LightGCNConfig)
    return trained.config


def _trained(
    nodes: NDArray[np.float32],
    config: LightGCNConfig,
    shared: Interactions,
    seed: int,
    run: str,
    log: tuple[Mapping[str, Any], ...],
) -> Trained:
    from retract.systems import backbone_training

    model = {"nodes": nodes, **backbone_training.tables(config.backbone, shared, nodes)}
    return Trained(NAME, config, seed, run, model, Memory({}), shared, log)
