"""RecEraser: shards of similar users, each with a model; the touched ones are trained again (Chen et al., WWW 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from retract import streams
from retract.data import Interactions
from retract.federation import Clients, Engine
from retract.models.graph import BipartiteGraph
from retract.models.lightgcn import DotProduct, light_gcn
from retract.models.recommender import Recommender
from retract.models.spectral import spectral_embeddings
from retract.systems.base import Memory, Progress, Stopwatch, Trained, Withdrawal, no_progress, require_shared
from retract.systems.baselines.lightgcn import LightGCN, LightGCNConfig

PARTITION_DIMENSION = 32
"""Singular vectors in which users are compared."""


class RecEraserConfig(LightGCNConfig):
    """Settings of RecEraser; those of LightGCN are those of every sub-model."""

    steps: Annotated[int, Field(ge=1, description="Full-batch steps of every sub-model.")] = 200
    shards: Annotated[int, Field(ge=1, description="Shards K of users.")] = 10
    partition_rounds: Annotated[int, Field(ge=1, description="Rounds of the balanced partition at most.")] = 20
    aggregation_steps: Annotated[int, Field(ge=0, description="Full-batch steps of the aggregation.")] = 100
    aggregation_rate: Annotated[float, Field(gt=0, description="Adam rate of the aggregation.")] = 0.01


class RecEraser:
    """RecEraser (Chen et al., *Recommendation Unlearning*, arXiv 2201.06820, WWW 2022), central, over LightGCN.

    Users are parted into K shards of similar users (the paper's user-based balanced partition, UBP), each
    shard trains a LightGCN of its own, and an attention makes one model of them. To unlearn is to train
    the touched shards again, with the seed they had, and then the aggregation: exactly what training without the
    withdrawn would have given *with the same partition*. The partition itself was made with it, here as in the paper.

    UBP, not the interaction-based partition, because it is users who withdraw: a user lies in one shard, so a request
    costs one shard. Ours are the embeddings that similarity is measured in, singular vectors of the normalised
    interactions where the paper pre-trains a factorisation, and full-batch steps (see `LightGCN`).

    Parameters
    ----------
    config
        Settings.
    """

    name = "receraser"

    def __init__(self, config: RecEraserConfig | None = None) -> None:
        self.config = config if config is not None else RecEraserConfig()
        fields = LightGCNConfig.model_fields
        self._sub_model = LightGCN(LightGCNConfig.model_validate(self.config.model_dump(include=set(fields))))

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Part, train the shards, aggregate; the engine is not used, and what is private plays no part.

        Raises
        ------
        DataError
            If nothing is shared.
        """
        require_shared(self.name, shared, engine)
        partition = balanced_partition(shared, self.config.shards, self.config.partition_rounds, seed)
        return self.train_parts(shared, partition, engine, seed=seed, progress=progress)

    def train_parts(
        self,
        shared: Interactions,
        partition: NDArray[np.int64],
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Train with a given partition, the shard of every user (shape [n_users], -1 for none)."""
        n_nodes = shared.n_users + shared.n_items
        tables = torch.zeros(self.config.shards, n_nodes, self.config.dimension)
        return self._fit(shared, partition, tables, np.arange(len(tables)), engine, seed, progress, ())

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
        partition = trained.memory.tensors["partition"].numpy()
        touched = np.unique(partition[withdrawal.forget.users])
        retained, tables = trained.shared - withdrawal.forget, trained.memory.tensors["shards"]
        return self._fit(retained, partition, tables, touched, engine, trained.seed, progress, trained.log)

    def recommender(self, trained: Trained, clients: Clients) -> Recommender:
        """Inner products of the aggregated embeddings."""
        return DotProduct(trained.model["users"], trained.model["items"])

    def views(self, trained: Trained, clients: Clients | None) -> Mapping[str, Recommender]:
        """The aggregated embeddings."""
        return {"embeddings": DotProduct(trained.model["users"], trained.model["items"])}

    def _fit(
        self,
        shared: Interactions,
        partition: NDArray[np.int64],
        tables: Tensor,
        which: NDArray[np.int64],
        engine: Engine,
        seed: int,
        progress: Progress,
        log: tuple[Mapping[str, Any], ...],
    ) -> Trained:
        """The shards in `which` trained anew, the others as they are in `tables`, aggregated."""
        tables, records = tables.clone(), []
        for number, shard in enumerate(which):
            watch, part = Stopwatch(), shared.where(partition[shared.users] == shard)
            tables[shard] = self._sub_table(part, engine, seed)
            record = {"stage": "train", "shard": int(shard), "interactions": len(part)}
            records.append({**record, "seconds": round(watch.seconds, 4)})
            progress("training", number + 1, len(which) + 1)
        nodes = self._aggregate(tables, shared, seed)
        users, items = light_gcn(BipartiteGraph(shared), nodes, self.config.layers)
        progress("training", len(which) + 1, len(which) + 1)
        memory = Memory({"partition": torch.from_numpy(partition), "shards": tables})
        return Trained(self.name, self.config, seed, {"users": users, "items": items}, memory, shared, (*log, *records))

    def _sub_table(self, part: Interactions, engine: Engine, seed: int) -> Tensor:
        """A shard's own LightGCN before propagation, zero at the nodes that it has no edge of."""
        table = torch.zeros(part.n_users + part.n_items, self.config.dimension)
        if len(part):
            own = torch.from_numpy(np.union1d(part.users, part.items + part.n_users))
            table[own] = self._sub_model.train(part, engine, seed=seed).model["nodes"][own]
        return table

    def _aggregate(self, tables: Tensor, shared: Interactions, seed: int) -> Tensor:
        """One table for the graph of all that is shared, the sub-models frozen and the attention fitted."""
        attention = Attention.start(len(tables), tables.shape[2], seed)
        if not len(shared):
            return attention(tables, shared.n_users).detach()
        loss_of = self._sub_model.objective(shared, seed=seed)
        adam = torch.optim.Adam(attention.parameters(), lr=self.config.aggregation_rate, betas=(0.9, 0.99))
        for step in range(self.config.aggregation_steps):
            loss = loss_of(attention(tables, shared.n_users), step)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        return attention(tables, shared.n_users).detach()


@dataclass(frozen=True)
class Attention:
    """The attention-based adaptive aggregation, users and items each with their own weights.

    With e_k the embedding of a node in sub-model k,

        ē_k = W_k e_k + b_k,    α_k = softmax_k( hᵀ ReLU(Vᵀ ē_k + c) ),    e = Σ_k α_k ē_k

    as the paper has it for users and items; that e is then propagated over the graph of all shards is its authors'
    code. Ours is the start, W_k = I: all sub-models set out from the same initial table, so they lie in one space.

    Parameters
    ----------
    transfer, shift
        W and b, shapes [K, d, d] and [K, d].
    inner, offset, outer
        V, c and h, for users and for items; shapes [2, d, d / 2], [2, d / 2] and [2, d / 2].
    """

    transfer: Tensor
    shift: Tensor
    inner: Tensor
    offset: Tensor
    outer: Tensor

    @classmethod
    def start(cls, n_shards: int, dimension: int, seed: int) -> Attention:
        """The weights before training: the mean over sub-models, all but for V's random start."""
        width = (dimension + 1) // 2
        drawn = streams.normal(seed, 0, np.arange(2 * dimension), "attention", width).reshape(2, dimension, width)
        weights = (
            torch.eye(dimension).repeat(n_shards, 1, 1),
            torch.zeros(n_shards, dimension),
            torch.from_numpy(drawn) * (2 / (dimension + width)) ** 0.5,
            torch.zeros(2, width),
            torch.full((2, width), 0.01),
        )
        return cls(*(weight.requires_grad_() for weight in weights))

    def parameters(self) -> list[Tensor]:
        """All that is trained."""
        return [self.transfer, self.shift, self.inner, self.offset, self.outer]

    def __call__(self, tables: Tensor, n_users: int) -> Tensor:
        """The aggregated table, shape [n_nodes, d], of the sub-models' (shape [K, n_nodes, d]), users first."""
        mapped = torch.baddbmm(self.shift[:, None], tables, self.transfer)
        parts = (mapped[:, :n_users], mapped[:, n_users:])
        return torch.cat([self._weighted(part, kind) for kind, part in enumerate(parts)])

    def _weighted(self, mapped: Tensor, kind: int) -> Tensor:
        hidden = torch.relu(mapped @ self.inner[kind] + self.offset[kind])
        weights = torch.softmax(hidden @ self.outer[kind], dim=0)
        return (weights[:, :, None] * mapped).sum(dim=0)


def balanced_partition(shared: Interactions, n_shards: int, rounds: int, seed: int) -> NDArray[np.int64]:
    """The user-based balanced partition (UBP): k-means in which no shard takes more than ⌈|U| / K⌉.

    Returns
    -------
    ndarray
        The shard of every user, int64, shape [n_users]; -1 for users who share nothing.
    """
    users = shared.active_users()
    embeddings = user_directions(shared, seed)[users]
    order = np.argsort(streams.bits(seed, 0, users, "anchors"))
    anchors = embeddings[order[np.arange(n_shards) % len(users)]]
    capacity = -(-len(users) // n_shards)
    shards = np.full(len(users), -1)
    for _ in range(rounds):
        distances = np.linalg.norm(embeddings[:, None] - anchors[None], axis=2)
        before, shards = shards, fill_shards(distances, capacity)
        if np.array_equal(before, shards):
            break
        held = [embeddings[shards == shard] for shard in range(n_shards)]
        anchors = np.stack([rows.mean(axis=0) if len(rows) else old for rows, old in zip(held, anchors, strict=True)])
    partition = np.full(shared.n_users, -1)
    partition[users] = shards
    return partition


def fill_shards(distances: NDArray[np.floating[Any]], capacity: int) -> NDArray[np.int64]:
    """Go through all (user, shard) pairs from near to far; a user goes to the first of its shards that has room.

    While no shard fills up, everyone's first is the nearest open one; so it is enough to sort once for every shard that
    fills up, not to walk through all pairs.

    Parameters
    ----------
    distances
        Shape [n_users, n_shards].
    capacity
        Users per shard at most; n_shards times that is n_users or more.
    """
    shards, room = np.full(len(distances), -1), np.full(distances.shape[1], capacity)
    while len(left := np.flatnonzero(shards < 0)):
        to_open = np.where(room > 0, distances[left], np.inf)
        nearest = to_open.argmin(axis=1)
        order = np.argsort(to_open.min(axis=1), kind="stable")
        turn = np.empty(len(left), dtype=np.int64)  # how many went to the same shard before
        by_shard = np.argsort(nearest[order], kind="stable")
        chosen = nearest[order][by_shard]
        turn[by_shard] = np.arange(len(left)) - np.searchsorted(chosen, chosen)
        refused = np.flatnonzero(turn >= room[nearest[order]])
        placed = order[: refused[0]] if len(refused) else order
        shards[left[placed]] = nearest[placed]
        room -= np.bincount(nearest[placed], minlength=len(room))
    return shards


def user_directions(shared: Interactions, seed: int) -> NDArray[np.float32]:
    """Users in the leading singular vectors of the normalised interactions, as unit rows; shape [n_users, 32].

    Every vector counts by its singular value, which one step over the graph multiplies it by. Unit rows, for it is
    tastes that are to be near each other, not activities.
    """
    table = spectral_embeddings(shared, PARTITION_DIMENSION, 1.0, seed)
    rows = (BipartiteGraph(shared).adjacency @ table)[: shared.n_users]
    directions: NDArray[np.float32] = normalize(rows, dim=1).numpy()
    return directions
