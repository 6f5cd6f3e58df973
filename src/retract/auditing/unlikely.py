"""Edges that a model of the clean data finds least likely: an attack on accuracy, and what to tell them apart from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data import Interactions
from retract.errors import ConfigError
from retract.models.recommender import best_of
from retract.models.spectral import spectral_embeddings

DIMENSION = 64
"""Of the model that finds them unlikely."""
BATCH_SCORES = 20_000_000


def unlikely_edges(
    shared: Interactions, taken: Interactions, amount: int, seed: int
) -> tuple[Interactions, Interactions]:
    """Edges to plant, and as many for each user that are as unlikely and are not planted.

    UnlearnRec (arXiv 2505.22649) attacks so: it injects the edges of the least likely choice. Here of users drawn at
    random; who is drawn k times gets a keyed half of the 2k items of lowest score. The other half are the non-members:
    items of like popularity would be told apart by any model, whether it had learnt the planted ones or not.

    Parameters
    ----------
    shared
        What the model is made of: inner products of `spectral_embeddings`. Only its users are drawn.
    taken
        Interactions that none of them may be.
    amount
        How many to plant.
    seed
        Key of users, model and halves.

    Raises
    ------
    ConfigError
        If there are too few pairs for both halves.
    """
    room = np.where(shared.user_degrees() > 0, (shared.n_items - taken.user_degrees()) // 2, 0)
    if amount > room.sum():
        raise ConfigError(f"only {room.sum():,} unlikely edges have another to hide beside, and {amount:,} are wanted")
    counts = _spread(amount, room, seed)
    found = _least_likely(shared, taken, 2 * counts, seed)
    order = np.lexsort((streams.bits(seed, 0, found.users, "unlikely half", found.items), found.users))
    planted = np.empty(len(found), dtype=np.bool_)
    planted[order] = np.arange(len(found)) - found.indptr[found.users] < counts[found.users]
    return found.where(planted), found.where(~planted)


def _spread(amount: int, room: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """How many of `amount` each user gets, at random but never more than there is `room`; shape [n_users]."""
    counts, attempt = np.zeros_like(room), 0
    while short := amount - int(counts.sum()):
        users = np.flatnonzero(counts < room)
        drawn = users[streams.below(len(users), seed, attempt, 0, "unlikely user", np.arange(short))]
        counts = np.minimum(counts + np.bincount(drawn, minlength=len(room)), room)
        attempt += 1
    return counts


def _least_likely(shared: Interactions, taken: Interactions, counts: NDArray[np.int64], seed: int) -> Interactions:
    """For each user so many of the pairs that are not taken, those of the lowest scores."""
    table, matrix, asked = spectral_embeddings(shared, DIMENSION, 1.0, seed), taken.csr(), np.flatnonzero(counts)
    users, items = table[: shared.n_users], table[shared.n_users :]
    found, size = [], max(1, BATCH_SCORES // shared.n_items)
    for begin in range(0, len(asked), size):
        part = asked[begin : begin + size]
        unlikely = -(users[part] @ items.T)
        unlikely[matrix[part].toarray() > 0] = -np.inf
        lowest = best_of(unlikely, int(counts[part].max())).items
        rows, places = np.nonzero(np.arange(lowest.shape[1]) < counts[part, None])
        found.append((part[rows], lowest[rows, places]))
    codes = (np.concatenate(column) for column in zip(*found, strict=True))
    return Interactions.of(shared.catalog, *codes)
