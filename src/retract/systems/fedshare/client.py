"""FedShare beside the user's data: the recommendations, and what a device can do for the server."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import ClientTask, Kept, TaskMakers, TaskSpec
from retract.models.item_matrix import ItemToItem
from retract.models.recommender import DotProduct, HistoryReader, Mixed, Recommender, Scores, read_history, standardised
from retract.systems.base import Published
from retract.systems.checks import require_extra
from retract.systems.fedshare.config import EPOCH, NAME, VIEW, FedShareConfig
from retract.systems.spectral.config import PROJECTION
from retract.systems.spectral.projection import Projection


class FedShareDevice:
    """A device mixes its own view, made of its vector and its history, with the global one (a `DeviceSide`)."""

    def __init__(self, config: FedShareConfig) -> None:
        self.config = config

    @property
    def tasks(self) -> TaskMakers:
        """A step of the common start, and the local epoch."""
        return {PROJECTION: Projection, EPOCH: _local_epoch}

    def reader(self, model: Published, kept: Kept) -> Recommender:
        """The local and the global view, standardised and mixed; see `Weighted`."""
        config, tables = model.config, model.tables
        assert isinstance(config, FedShareConfig)
        local, shared = LocalView(tables["items"], kept), ItemToItem.among(tables, VIEW)
        if "global_items" in tables:
            return Weighted(local, HistoryReader(tables["global_items"]), config, float(tables["coverage"]), kept)
        if shared is None:
            return Mixed([local], [1.0])
        return Weighted(local, shared, config, float(tables["coverage"]), kept)

    def views(self, model: Published, kept: Kept) -> Mapping[str, Recommender]:
        """The clients' vectors against Q; a row of zeros for who has none."""
        if "vector" not in kept.state:
            return {}
        n_users = int(kept.clients.max(initial=-1)) + 1 if kept.held is None else kept.held.n_users
        return {"devices": DotProduct(vectors_of(np.arange(n_users), kept), model.tables["items"])}


class Weighted:
    """The local and the global view, each standardised per user, in a weighted sum.

    The global view weighs mix · c^a · s_u^b · n / (n + m). It is as good as the part c of all interactions that it was
    made from; it knows a user by the part s_u that this user shares; and what it reads from few of the user's n
    interactions is noise. All that is known on the device, and there the weight is decided. Who shares nothing is read
    by the own view alone, and need not fetch the other. Where nobody knows how much a user shares, s_u is c.

    Parameters
    ----------
    local, shared
        The views.
    config
        mix, a, b and m.
    coverage
        c.
    kept
        What devices keep.
    """

    def __init__(
        self, local: Recommender, shared: Recommender, config: FedShareConfig, coverage: float, kept: Kept
    ) -> None:
        self.local, self.shared, self.config, self.coverage, self.kept = local, shared, config, coverage, kept

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        weights = self.weights(users, history)[:, None]
        local, shared = (standardised(view.scores(users, history)) for view in (self.local, self.shared))
        found: Scores = (1 - weights) * local + weights * shared
        return found

    def weights(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """The global view's weight for some users, float32, shape [len(users)]."""
        config, own = self.config, np.full(len(users), self.coverage)
        if self.kept.held is not None and self.kept.shared is not None:
            held, shares = self.kept.held.user_degrees()[users], self.kept.shared.user_degrees()[users]
            own = np.where(held > 0, shares / np.maximum(held, 1), self.coverage)
        read = history.user_degrees()[users]
        enough = read / np.maximum(read + config.short_history, 1)
        found = config.mix * self.coverage**config.mix_exponent * own**config.own_exponent * enough
        return np.asarray(found, dtype=np.float32)


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
