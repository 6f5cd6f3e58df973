"""Centralised LightGCN: everything that is shared lies on the server, and there are no clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from retract.data import Interactions
from retract.errors import DataError
from retract.federation import Clients, Engine
from retract.models.graph import BipartiteGraph
from retract.models.lightgcn import DotProduct, initial_embeddings, light_gcn
from retract.models.losses import activity_weights, bpr
from retract.models.negatives import sample_negatives
from retract.models.recommender import Recommender
from retract.models.sparse import Pattern, pair_scores
from retract.systems.base import Memory, Objective, Progress, Stopwatch, SystemConfig, Trained, Withdrawal, no_progress


class LightGCNConfig(SystemConfig):
    """Settings of centralised LightGCN; the defaults were tuned on a validation part of ML-1M's train fold."""

    dimension: Annotated[int, Field(ge=1, description="Size d of the embeddings.")] = 64
    layers: Annotated[int, Field(ge=0, description="Layers L.")] = 3
    steps: Annotated[int, Field(ge=1, description="Full-batch steps: one pass over all edges each.")] = 400
    rate: Annotated[float, Field(gt=0, description="Adam rate.")] = 0.03
    regularisation: Annotated[float, Field(ge=0, description="L2 per node.")] = 0.002
    activity_exponent: Annotated[
        float, Field(ge=0, le=1, description="A user with n interactions weighs n^-a per interaction.")
    ] = 0.5
    initial_scale: Annotated[float, Field(gt=0, description="Deviation of the initial embeddings.")] = 0.1


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

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Train on what is shared; the engine is not used, and what is private plays no part.

        Raises
        ------
        DataError
            If nothing is shared.
        """
        if not len(shared):
            raise DataError("lightgcn is centralised and nothing is shared: share more (--share 1)")
        config, n_nodes = self.config, shared.n_users + shared.n_items
        start = initial_embeddings(n_nodes, config.dimension, config.initial_scale, seed, "nodes")
        nodes, log = self._fit(start, shared, range(config.steps), config.rate, seed, progress)
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
        """More steps, at a tenth of the rate: the settled table is not to be jolted by a fresh Adam."""
        later = range(self.config.steps, self.config.steps + rounds)
        nodes, log = self._fit(self.nodes(trained), shared, later, self.config.rate / 10, seed, progress)
        return self._trained(nodes, shared, trained.seed, [*trained.log, *log])

    def nodes(self, trained: Trained) -> Tensor:
        """The initial embeddings, before propagation."""
        return trained.model["nodes"]

    def objective(self, shared: Interactions, *, seed: int, among: Interactions | None = None) -> Objective:
        """BPR on the graph of `shared`, and L2."""
        graph, mask = BipartiteGraph(shared), None if among is None else among.contains(shared)
        return lambda nodes, step: self._loss(graph, shared, nodes, seed, step, mask)

    def with_nodes(self, trained: Trained, nodes: Tensor, shared: Interactions) -> Trained:
        """The final embeddings that `nodes` give over the graph of `shared`."""
        return self._trained(nodes, shared, trained.seed, trained.log)

    def _fit(
        self, start: Tensor, shared: Interactions, steps: range, rate: float, seed: int, progress: Progress
    ) -> tuple[Tensor, list[Mapping[str, Any]]]:
        """Adam from `start`, and a record per step."""
        loss_of, nodes = self.objective(shared, seed=seed), start.clone().requires_grad_()
        adam = torch.optim.Adam([nodes], lr=rate, betas=(0.9, 0.99), eps=1e-15)
        log: list[Mapping[str, Any]] = []
        for step in steps:
            watch = Stopwatch()
            loss = loss_of(nodes, step)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            seconds = round(watch.seconds, 4)
            log.append({"stage": "train", "round": step, "loss": float(loss.detach()), "seconds": seconds})
            progress("training", step - steps.start + 1, len(steps))
        return nodes.detach(), log

    def _trained(self, nodes: Tensor, shared: Interactions, seed: int, log: Sequence[Mapping[str, Any]]) -> Trained:
        users, items = light_gcn(BipartiteGraph(shared), nodes, self.config.layers)
        model = {"nodes": nodes, "users": users, "items": items}
        return Trained(self.name, self.config, seed, model, Memory({}), shared, tuple(log))

    def _loss(
        self,
        graph: BipartiteGraph,
        shared: Interactions,
        nodes: Tensor,
        seed: int,
        step: int,
        among: NDArray[np.bool_] | None,
    ) -> Tensor:
        users, items = light_gcn(graph, nodes, self.config.layers)
        drawn = sample_negatives(
            np.arange(shared.n_users), shared.indptr, shared.items, shared.n_items, seed=seed, round=step
        )
        pairs = np.stack([shared.items, np.maximum(drawn[:, 0], 0)], axis=1).reshape(-1)
        scores = pair_scores(Pattern(shared.indptr * 2, pairs, shared.n_items), users, items).view(-1, 2)
        degrees = shared.user_degrees()
        weights = activity_weights(degrees, shared.n_items, self.config.activity_exponent)
        edge_weights = weights.repeat_interleave(torch.from_numpy(degrees))
        counted = edge_weights if among is None else edge_weights * torch.from_numpy(among)
        ranking = bpr(scores[:, 0], scores[:, 1]) @ counted / edge_weights.sum().clamp_min(1e-12)
        if among is not None:
            return ranking
        per_node = nodes[: graph.n_users].square().sum() / graph.n_users
        per_node = per_node + nodes[graph.n_users :].square().sum() / graph.n_items
        return ranking + 0.5 * self.config.regularisation * per_node
