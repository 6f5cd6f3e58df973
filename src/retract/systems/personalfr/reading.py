"""How PersonalFR's closed form is read: a history solved for the user's vector, and that said by the decoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import DataError
from retract.federation import Arrays, Cohort
from retract.models.fold_in import FoldIn
from retract.models.recommender import Recommender, Scores, standardised
from retract.systems.personalfr.config import PersonalFRConfig
from retract.systems.personalfr.solving import RatingDecoder


def touch_decoder(tables: Arrays, config: PersonalFRConfig) -> FoldIn:
    """The decoder of what a user is likely to touch, as it is published."""
    return FoldIn(
        tables["items"],
        tables["support"],
        float(tables["mean_degree"]),
        unobserved=config.unobserved,
        ridge=config.ridge,
        popularity=config.popularity,
        prior=config.degree_prior,
    )


class TasteRecommender:
    """Recommends what a user is likely to touch and to like.

    A list by expected rating alone is one of what hardly anybody touches: ratings are given of what was chosen. So the
    two are standardised per user, and the expected rating is added at the weight `taste`.

    Parameters
    ----------
    tables
        What is published.
    config
        Of the training.
    """

    def __init__(self, tables: Arrays, config: PersonalFRConfig) -> None:
        self.taste, self.touch = config.taste, touch_decoder(tables, config)
        self.ends = float(tables["lowest"]), float(tables["highest"])
        self.rating = RatingDecoder.among(tables)

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        touch, weight = standardised(self.touch.scores(users, history)), np.float32(self.taste)
        return touch + weight * standardised(self.ratings(users, history)) if weight else touch

    def ratings(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Expected ratings within the scale, shape [len(users), n_items].

        Raises
        ------
        DataError
            If the history has no ratings.
        """
        cohort = Cohort.of(history, users)
        if cohort.ratings is None:
            if len(cohort.items):
                raise DataError("the model predicts ratings, and this history has none: give them")
            cohort = Cohort(cohort.users, cohort.indptr, cohort.items, cohort.n_items, np.empty(0, dtype=np.float32))
        return self.rating.ratings(cohort).clip(*self.ends)


def recommender_of(tables: Arrays, config: PersonalFRConfig) -> Recommender:
    """The recommender for a model's feedback; arguments as of `TasteRecommender`."""
    return TasteRecommender(tables, config) if config.feedback == "explicit" else touch_decoder(tables, config)
