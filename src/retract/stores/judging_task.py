"""The task by which a server learns how good its model is: every client judges its own list, and sums go back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.evaluation.ranking import evaluate
from retract.evaluation.rating import rating_errors
from retract.federation import (
    Broadcast,
    ClientState,
    Cohort,
    Reply,
    TaskSpec,
    TensorSpec,
    Update,
    UpdateSpec,
    payload_bytes,
)
from retract.models.recommender import PredictsRatings, Recommender
from retract.stores.measuring import K

JUDGE = "judge"
"""Its name."""
JUDGED = UpdateSpec(
    {
        "users": TensorSpec((), "int64"),
        "interactions": TensorSpec((), "int64"),
        "recall": TensorSpec((), "float64"),
        "ndcg": TensorSpec((), "float64"),
        "rated": TensorSpec((), "int64"),
        "squares": TensorSpec((), "float64"),
        "absolutes": TensorSpec((), "float64"),
    }
)
"""What clients answer: over how many users and interactions, and the sums of Recall@20, NDCG@20, and of the squared and
absolute errors of predicted ratings."""


class Judge:
    """Judges the published model by what these clients held out of it (a `ClientTask`).

    Parameters
    ----------
    spec
        What was asked for.
    model
        What the devices recommend by.
    history, test
        What they hold, and what they held out.
    """

    def __init__(self, spec: TaskSpec, model: Recommender, history: Interactions, test: Interactions) -> None:
        self.update, self.model, self.history, self.test = spec.update, model, history, test

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """Nothing is kept."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sums."""
        test = self.test.of_users(cohort.users)
        found = evaluate(self.model, self.history, test, k=K)
        errors = np.empty(0)
        if isinstance(self.model, PredictsRatings):
            errors = rating_errors(self.model, self.history, test).errors
        sums = {
            "users": np.asarray(len(found.users), dtype=np.int64),
            "interactions": np.asarray(len(test), dtype=np.int64),
            "recall": np.asarray(found.recall.sum()),
            "ndcg": np.asarray(found.ndcg.sum()),
            "rated": np.asarray(len(errors), dtype=np.int64),
            "squares": np.asarray(np.square(errors).sum()),
            "absolutes": np.asarray(np.abs(errors).sum()),
        }
        update = Update(self.update, sums, cohort.n_clients)
        return Reply(update, {}, np.full(cohort.n_clients, payload_bytes(update), dtype=np.int64))


def metrics_of(sums: Mapping[str, NDArray[np.generic]]) -> dict[str, float | None]:
    """The metrics that `Judge`'s sums give, as `measuring.measure` names them; None where nobody judged."""
    users, rated = int(sums["users"]), int(sums["rated"])
    found: dict[str, float | None] = {
        f"recall@{K}": round(float(sums["recall"]) / users, 6) if users else None,
        f"ndcg@{K}": round(float(sums["ndcg"]) / users, 6) if users else None,
    }
    if rated:
        rmse, mae = float(np.sqrt(sums["squares"] / rated)), float(sums["absolutes"] / rated)  # type: ignore[operator]
        found |= {"rmse": round(rmse, 6), "mae": round(mae, 6)}
    return found
