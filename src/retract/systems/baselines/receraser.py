"""RecEraser: shards of similar users, each with a model; the touched ones are trained again (Chen et al., WWW 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Engine
from retract.models.nodes import endpoints
from retract.models.recommender import Recommender
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
from retract.systems.baselines.config import RecEraserConfig
from retract.systems.central import begun, recommender_of
from retract.systems.checks import require_extra, require_shared

NAME = "receraser"
PARTITION, SHARDS = "partition", "shards"
"""What is kept: the shard of every user, shape [n_users], and the sub-models' tables, shape [K, n_nodes, d]."""


class RecEraserServer:
    """RecEraser (Chen et al., *Recommendation Unlearning*, arXiv 2201.06820, WWW 2022), central, over LightGCN.

    Users are parted into K shards of similar users (the paper's user-based balanced partition, UBP), each
    shard trains a LightGCN of its own, and an attention makes one model of them. To unlearn is to train
    the touched shards again, with the seed they had, and then the aggregation: exactly what training without the
    withdrawn would have given *with the same partition*. The partition itself was made with it, here as in the paper.

    UBP, not the interaction-based partition, because it is users who withdraw: a user lies in one shard, so a request
    costs one shard. Ours are the embeddings that similarity is measured in, singular vectors of the normalised
    interactions where the paper pre-trains a factorisation, and full-batch steps (see `LightGCNServer`).

    Parameters
    ----------
    config
        Settings.
    """

    def __init__(self, config: RecEraserConfig) -> None:
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
        """Part, train the shards, aggregate; no device is asked, and what is private plays no part.

        Raises
        ------
        DataError
            If nothing is shared.
        """
        require_extra(NAME, "learn", "torch")
        from retract.systems.baselines.partition import balanced_partition

        require_shared(NAME, shared, engine)
        start = begun(NAME, self.config, seed, resume_from)
        if not start.done:
            partition = balanced_partition(shared, self.config.shards, self.config.partition_rounds, seed)
            start = replace(start, tables=nothing_learnt(self.config, shared, partition))
        return fitted(shared, self.config, start, np.arange(start.done, self.config.shards), keep, progress)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Train the touched shards and the aggregation again, with the seed of the training; `seed` plays no part."""
        require_extra(NAME, "learn", "torch")
        watch, config = Stopwatch(), _config_of(trained)
        touched = np.unique(trained.memory.tables[PARTITION][withdrawal.forget.users])
        standing = replace(
            begun(NAME, config, trained.seed, None), tables=trained.memory.tables, run=trained.run, log=trained.log
        )
        result = fitted(trained.shared - withdrawal.forget, config, standing, touched, keep_nothing, progress)
        record = {"stage": "unlearn", "request": withdrawal.request_id, "seconds": round(watch.seconds, 4)}
        return replace(result, log=(*result.log, record))

    def recommender(self, trained: Trained) -> Recommender:
        """Inner products of the aggregated embeddings."""
        return recommender_of(trained.model)

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """The aggregated embeddings."""
        return {"embeddings": recommender_of(trained.model)}


def _config_of(trained: Trained) -> RecEraserConfig:
    """The settings that a model was trained with."""
    require_same_system(NAME, trained)
    assert isinstance(trained.config, RecEraserConfig)
    return trained.config


def nothing_learnt(
    config: RecEraserConfig, shared: Interactions, partition: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """What is kept before any shard is trained: the shard of every user (shape [n_users]), and tables of zeros."""
    shape = (config.shards, shared.n_users + shared.n_items, config.dimension)
    return {PARTITION: partition, SHARDS: np.zeros(shape, np.float32)}


def fitted(
    shared: Interactions,
    config: RecEraserConfig,
    start: Checkpoint,
    which: NDArray[np.int64],
    keep: Keep,
    progress: Progress,
) -> Trained:
    """The shards in `which` trained anew, the others as they are in `start`, aggregated."""
    from retract.systems import backbone_training
    from retract.systems.baselines.attention import aggregated

    standing, n_steps = start, start.done + len(which) + 1
    for shard in which.tolist():
        standing = _with_shard(standing, config, shared, shard)
        progress("training", standing.done, n_steps)
        keep(partial(_as_it_is, standing))
    nodes = aggregated(standing.tables[SHARDS], shared, config, start.seed)
    model = backbone_training.tables(config.backbone, shared, nodes)
    progress("training", n_steps, n_steps)
    memory = Memory({name: standing.tables[name] for name in (PARTITION, SHARDS)})
    return Trained(NAME, config, start.seed, start.run, model, memory, shared, standing.log)


def _with_shard(standing: Checkpoint, config: RecEraserConfig, shared: Interactions, shard: int) -> Checkpoint:
    """One more shard trained; its table is zero at the nodes that it has no edge of."""
    from retract.systems import backbone_training

    watch, part = Stopwatch(), shared.where(standing.tables[PARTITION][shared.users] == shard)
    tables = standing.tables[SHARDS].copy()
    tables[shard] = 0
    if len(part):
        own = endpoints(part)
        fresh = begun(NAME, config, standing.seed, None)
        tables[shard][own] = backbone_training.learn(config.backbone, part, fresh)[0][own]
    record = {"stage": "train", "shard": shard, "interactions": len(part), "seconds": round(watch.seconds, 4)}
    return replace(
        standing,
        done=standing.done + 1,
        tables={**standing.tables, SHARDS: tables},
        log=(*standing.log, record),
    )


def _as_it_is(standing: Checkpoint) -> Checkpoint:
    """A checkpoint that is made already: no table of it is written into again."""
    return standing
