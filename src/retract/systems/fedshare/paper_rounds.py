"""The rounds of the paper's form: the server's own table is fitted first, and Q is drawn towards it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract import streams
from retract.data import Interactions
from retract.federation import Arrays, Broadcast, Engine
from retract.models.learn.arrays import as_tensor
from retract.models.learn.lightgcn import initial_embeddings
from retract.models.learn.losses import aligned_info_nce
from retract.systems.base import Stopwatch, Trained
from retract.systems.fedshare.config import FedShareConfig
from retract.systems.fedshare.coverage import Coverage
from retract.systems.fedshare.graph import Fit, Fitted, SharedGraph, fit, snapshot_tables, snapshots_in
from retract.systems.fedshare.rounds import RoundServer, Training, finish

GRAPH = "shared graph"
"""The stage of a training before its rounds."""


class AligningServer(RoundServer):
    """A server that draws Q towards what it made of S, and lets the clients do so too.

    Parameters
    ----------
    fitted
        E, fitted to S.
    others
        As of `RoundServer`.
    """

    def __init__(
        self,
        shared: Interactions,
        items: Tensor,
        config: FedShareConfig,
        seed: int,
        run: str,
        coverage: Coverage | None = None,
        *,
        fitted: Fitted,
    ) -> None:
        super().__init__(shared, items, config, seed, run, coverage)
        self.global_items = SharedGraph(shared, config).global_view(fitted.nodes)[1] if len(shared) else None

    def broadcast(self, round: int) -> Broadcast:
        """Q and the coverage, and Z's items where anything is shared."""
        tables = super().broadcast(round).tables
        beside = {} if self.global_items is None else {"global_items": self.global_items.numpy()}
        return Broadcast(round, {**tables, **beside})

    def gradient(self, sums: Arrays, round: int) -> Tensor:
        """With λ c InfoNCE(Q, Z_items) over a keyed batch of items, c being the coverage."""
        plain = super().gradient(sums, round)
        if self.global_items is None:
            return plain
        order = streams.bits(self.seed, round, 0, "alignment", np.arange(len(self.items)))
        batch = torch.from_numpy(np.argsort(order)[: self.config.contrast_batch])
        pairs = self.items[batch], self.global_items[batch]
        aligned = aligned_info_nce(*pairs, self.config.temperature).mean()
        strength = self.config.contrast * self.coverage.of(self.shared)
        return plain + torch.autograd.grad(strength * aligned, self.items)[0]


class PaperTraining(Training):
    """A training in the paper's form: the fit of the shared graph, then the rounds."""

    def trained(self, engine: Engine) -> Trained:
        """The model after all that is left to do; errors as of `Training.trained`."""
        fitted = self._fitted()
        items = random_items(self.shared.n_items, self.config, self.seed)
        server = AligningServer(self.shared, items, self.config, self.seed, self.run, fitted=fitted)
        beside = fitted_tables(fitted)
        return finish(self.learnt(server, engine, beside), tuple(self.log), {}, beside)

    def _fitted(self) -> Fitted:
        """E and its snapshots, or those of the interrupted training where its fit was done."""
        if self.begun is not None and self.in_rounds:
            return Fitted(as_tensor(self.begun.tables["nodes"]), snapshots_in(self.begun.tables))
        watch = Stopwatch()
        if len(self.shared):
            under_way = Fit.of_training(self.shared, self.config, self.seed)
            if self.begun is not None:
                under_way.restore(self.begun.done, self.begun.tables)
            fitted = under_way.run(self.progress, lambda: self.offer(GRAPH, under_way.done, lambda: under_way.tables))
        else:
            fitted = fit(self.shared, self.config, self.seed)
        self.log.append({"stage": GRAPH, "seconds": round(watch.seconds, 4)})
        return fitted


def random_items(n_items: int, config: FedShareConfig, seed: int) -> Tensor:
    """Q before any round."""
    return initial_embeddings(n_items, config.dimension, config.initial_scale, seed, "items")


def fitted_tables(fitted: Fitted) -> dict[str, NDArray[Any]]:
    """E and its snapshots under the names that they are kept by; copies."""
    return {"nodes": fitted.nodes.numpy().copy(), **snapshot_tables(fitted.snapshots)}
