"""Rating metrics: how far predicted ratings are from those given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.evaluation.ranking import batches
from retract.models.recommender import PredictsRatings


@dataclass(frozen=True)
class RatingErrors:
    """Predicted less given ratings of a test part.

    Parameters
    ----------
    errors
        In the order of the test part, shape [n].
    """

    errors: NDArray[np.float64]

    @property
    def rmse(self) -> float:
        """Root mean squared error over all ratings; NaN where there is none."""
        return float(np.sqrt(np.mean(self.errors**2))) if len(self.errors) else float("nan")

    @property
    def mae(self) -> float:
        """Mean absolute error over all ratings; NaN where there is none."""
        return float(np.mean(np.abs(self.errors))) if len(self.errors) else float("nan")


def rating_errors(model: PredictsRatings, history: Interactions, test: Interactions) -> RatingErrors:
    """Predict every rating of `test` from `history`; where the test part has no ratings, none is judged."""
    if test.ratings is None:
        return RatingErrors(np.empty(0))
    users = test.active_users()
    errors = np.zeros(len(test))
    for part in batches(len(users), test.n_items):
        at = np.isin(test.users, users[part])
        said = model.ratings(users[part], history)
        rows = np.searchsorted(users[part], test.users[at])
        errors[at] = said[rows, test.items[at]].astype(np.float64) - test.ratings[at]
    return RatingErrors(errors)
