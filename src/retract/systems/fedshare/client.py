"""FedShare beside the user's data: the recommendations, and what a device can do for the server."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import ClientTask, Kept, TaskMakers, TaskSpec
from retract.models.recommender import DotProduct, HistoryReader, Mixed, Recommender, Scores, read_history
from retract.systems.base import Published
from retract.systems.checks import require_extra
from retract.systems.fedshare.config import EPOCH, NAME, FedShareConfig


class FedShareDevice:
    """A device mixes its own view, made of its vector and its history, with the global one (a `DeviceSide`)."""

    def __init__(self, config: FedShareConfig) -> None:
        self.config = config

    @property
    def tasks(self) -> TaskMakers:
        """The local epoch."""
        return {EPOCH: _local_epoch}

    def reader(self, model: Published, kept: Kept) -> Recommender:
        """The local and the global view, standardised and mixed.

        The global view weighs mix * coverage^mix_exponent, for it is as good as the part of all interactions that it
        was made from.
        """
        config, tables = model.config, model.tables
        assert isinstance(config, FedShareConfig)
        local = LocalView(tables["items"], kept)
        if "global_items" not in tables:
            return Mixed([local], [1.0])
        mix = config.mix * float(tables["coverage"]) ** config.mix_exponent
        return Mixed([local, HistoryReader(tables["global_items"])], [1 - mix, mix])

    def views(self, model: Published, kept: Kept) -> Mapping[str, Recommender]:
        """The clients' vectors against Q; a row of zeros for who has none."""
        if "vector" not in kept.state:
            return {}
        n_users = int(kept.clients.max(initial=-1)) + 1 if kept.held is None else kept.held.n_users
        return {"devices": DotProduct(vectors_of(np.arange(n_users), kept), model.tables["items"])}


def _local_epoch(spec: TaskSpec) -> ClientTask:
    """It takes gradients, so it is loaded when it is asked for."""
    require_extra(NAME, "learn", "torch")
    from retract.systems.fedshare.local_epoch import LocalEpoch

    return LocalEpoch(spec)


class LocalView:
    """What clients score by from Q, their own vectors and their own histories.

    Parameters
    ----------
    items
        Q, float32, shape [n_items, d].
    kept
        What devices keep; a user without a vector is read from the history alone.
    """

    def __init__(self, items: Scores, kept: Kept) -> None:
        self.items, self.kept = items, kept

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        rows = read_history(users, history, self.items)
        if "vector" in self.kept.state:
            rows = vectors_of(users, self.kept) + rows
        found: Scores = rows @ self.items.T
        return found


def vectors_of(users: NDArray[np.int64], kept: Kept) -> Scores:
    """The vectors of some users, float32, shape [len(users), d]; zeros for who has none."""
    vectors, places = kept.state["vector"], kept.places_of(users)
    if not len(vectors):
        return np.zeros((len(users), vectors.shape[1]), dtype=np.float32)
    found: Scores = np.where((places >= 0)[:, None], vectors[places], np.float32(0))
    return found
