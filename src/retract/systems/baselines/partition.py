"""RecEraser's user-based balanced partition: shards of users who are alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.functional import normalize

from retract import streams
from retract.data import Interactions
from retract.models.learn.arrays import as_tensor
from retract.models.learn.graph import BipartiteGraph
from retract.models.spectral import spectral_embeddings

PARTITION_DIMENSION = 32
"""Singular vectors in which users are compared."""


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
    table = as_tensor(spectral_embeddings(shared, PARTITION_DIMENSION, 1.0, seed))
    rows = (BipartiteGraph(shared).adjacency @ table)[: shared.n_users]
    directions: NDArray[np.float32] = normalize(rows, dim=1).numpy()
    return directions
