"""What is measured of a model, and who is left without a shared interaction by a withdrawal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions, Sharing
from retract.evaluation.ranking import evaluate
from retract.evaluation.rating import rating_errors
from retract.models.recommender import FallsBack, PredictsRatings, Recommender
from retract.stores.held import Held

K = 20
"""Length of the lists that the metrics judge."""
Metrics = Mapping[str, float | None]


def measure(model: Recommender, history: Interactions, test: Interactions, k: int = K) -> dict[str, float | None]:
    """Mean Recall@k and NDCG@k over the tested users, and of who predicts ratings RMSE and MAE; None where nobody is.

    A catalog of fewer than k items gives the same figures: no list can be longer than the catalog.
    """
    found = evaluate(model, history, test, k=k)
    metrics = dict(zip((f"recall@{k}", f"ndcg@{k}"), found.mean().values(), strict=True))
    if isinstance(model, PredictsRatings):
        judged = rating_errors(model, history, test)
        metrics |= {"rmse": judged.rmse, "mae": judged.mae}
    return {name: None if np.isnan(value) else round(value, 6) for name, value in metrics.items()}


def measured(model: Recommender, held: Held, test: Interactions, wanted: bool = True) -> dict[str, float | None]:
    """The metrics of a model on its own data; None each where they are not wanted."""
    return measure(model, held.interactions, test if wanted else Interactions.empty(held.catalog))


@dataclass(frozen=True)
class Measured:
    """Metrics, and how many held-out interactions they are of."""

    metrics: Metrics
    on: int

    @classmethod
    def of(cls, held: Held) -> Measured:
        """Those of a model on what was held out of it."""
        return cls(measured(held.recommender(), held, held.test), len(held.test))

    @classmethod
    def before(cls, held: Held) -> Measured:
        """Those that were kept with a model."""
        return cls(held.metrics or {}, len(held.test))


@dataclass(frozen=True, eq=False)
class Isolated:
    """Users and items that have lost their last shared interaction.

    Parameters
    ----------
    users
        Codes of those who still hold something, ascending; who holds nothing is no user any more.
    items
        Codes, ascending.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]

    def notes(self, model: Recommender) -> tuple[str, ...]:
        """What to tell people of it, where the model then falls back on something."""
        if not isinstance(model, FallsBack):
            return ()
        unknown = int((~model.known[self.users]).sum())
        told = {
            f"users who share nothing any more, whose lists go by {model.fallback} from now on": unknown,
            "items that nobody shares any more, of which the model knows nothing now": len(self.items),
        }
        return tuple(f"{text}: {count:,}" for text, count in told.items() if count)


def isolated(before: Sharing, after: Sharing) -> Isolated:
    """What a withdrawal left without a shared interaction."""
    held, left = before.shared, after.shared
    users = np.setdiff1d(held.users, left.users)
    return Isolated(np.intersect1d(users, after.everything.users), np.setdiff1d(held.items, left.items))
