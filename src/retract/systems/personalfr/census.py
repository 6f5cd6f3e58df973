"""PersonalFR's census beside the user's data: what a client counts of what it holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract.federation import Broadcast, ClientState, Cohort, Reply, TaskSpec, Update
from retract.systems.personalfr.config import bytes_sent


class Census:
    """What the server must know before the first round, as sums over clients (a `ClientTask`): no model, no state.

    How many interactions there are and how many of them are rated, how many users there are, the sum of all squared
    ratings, how many users hold each item and the sum of their ratings, and how many ratings lie below and above each
    place that the server names.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.update = spec.update

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """Nothing is kept."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sums."""
        ratings = np.empty(0, dtype=np.float32) if cohort.ratings is None else cohort.ratings
        rated = cohort.items[: len(ratings)]
        places = np.asarray(broadcast.tables["places"])[:, None]
        sums = {
            "interactions": np.asarray(len(cohort.items), dtype=np.int64),
            "rated": np.asarray(len(ratings), dtype=np.int64),
            "users": np.asarray((cohort.degrees > 0).sum(), dtype=np.int64),
            "squares": np.asarray(np.square(ratings, dtype=np.float64).sum()),
            "ratings": np.bincount(rated, weights=ratings, minlength=cohort.n_items).astype(np.float64),
            "support": np.bincount(cohort.items, minlength=cohort.n_items).astype(np.int32),
            "below": (ratings < places).sum(axis=1, dtype=np.int64),
            "above": (ratings > places).sum(axis=1, dtype=np.int64),
        }
        sent = bytes_sent(self.update, {"support": cohort.items_held})
        return Reply(Update(self.update, sums, cohort.n_clients), {}, sent)
