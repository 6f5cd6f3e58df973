"""Centralised LightGCN: everything that is shared lies on the server, and there are no clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from retract.data import Interactions
from retract.federation import Clients, Engine
from retract.models.lightgcn import DotProduct
from retract.models.recommender import Recommender
from retract.systems import backbone
from retract.systems.base import Memory, Objective, Progress, Trained, Withdrawal, no_progress, require_shared


class LightGCNConfig(backbone.GraphConfig):
    """Settings of centralised LightGCN; the defaults were tuned on a validation part of ML-1M's train fold."""

    steps: Annotated[int, Field(ge=1, description="Full-batch steps: one pass over all edges each.")] = 400


class LightGCN:
    """LightGCN (He et al., SIGIR 2020) trained by BPR on all shared edges at once.

    Full-batch steps replace the paper's minibatches: on a CPU the propagation is most of a step, and it costs the same
    for one edge as for all.

    Parameters
    ----------
    config
        Settings.
    """

    name = "lightgcn"

    def __init__(self, config: LightGCNConfig | None = None) -> None:
        self.config = config if config is not None else LightGCNConfig()
        shared = self.config.model_dump(include=set(backbone.GraphConfig.model_fields))
        self._settings = backbone.BackboneConfig(backbone="lightgcn", epochs=self.config.steps, **shared)

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Train on what is shared; the engine is not used, and what is private plays no part.

        Raises
        ------
        DataError
            If nothing is shared.
        """
        require_shared(self.name, shared, engine)
        nodes, log = backbone.learn(self._settings, shared, seed=seed, progress=progress)
        return self._trained(nodes, shared, seed, log)

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
        return self.train(trained.shared - withdrawal.forget, engine, seed=trained.seed, progress=progress)

    def recommender(self, trained: Trained, clients: Clients) -> Recommender:
        """Inner products of the final embeddings."""
        return DotProduct(trained.model["users"], trained.model["items"])

    def views(self, trained: Trained, clients: Clients | None) -> Mapping[str, Recommender]:
        """The final embeddings: everything lies on the server."""
        return {"embeddings": DotProduct(trained.model["users"], trained.model["items"])}

    def resume(
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
        nodes, log = backbone.go_on(self._settings, shared, self.nodes(trained), rounds, seed=seed, progress=progress)
        return self._trained(nodes, shared, trained.seed, [*trained.log, *log])

    def nodes(self, trained: Trained) -> Tensor:
        """The initial embeddings, before propagation."""
        return trained.model["nodes"]

    def objective(self, shared: Interactions, *, seed: int, among: Interactions | None = None) -> Objective:
        """BPR on the graph of `shared`, and L2."""
        return backbone.objective(self._settings, shared, seed=seed, among=among)

    def with_nodes(self, trained: Trained, nodes: Tensor, shared: Interactions) -> Trained:
        """The final embeddings that `nodes` give over the graph of `shared`."""
        return self._trained(nodes, shared, trained.seed, trained.log)

    def _trained(self, nodes: Tensor, shared: Interactions, seed: int, log: Sequence[Mapping[str, Any]]) -> Trained:
        model = {"nodes": nodes, **backbone.tables(self._settings, shared, nodes)}
        return Trained(self.name, self.config, seed, model, Memory({}), shared, tuple(log))
