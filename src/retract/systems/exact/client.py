"""Exact beside the user's data: a user's term of the sums, and the recommendations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.federation import Broadcast, ClientState, Cohort, Kept, Reply, TaskMakers, TaskSpec, Update
from retract.models.gram import user_weights, weighted_gram
from retract.models.recommender import Recommender
from retract.systems.base import Published
from retract.systems.exact.config import TERM, ExactConfig
from retract.systems.exact.reading import recommender_of


class Term:
    """A user's term ω_u x_u x_uᵀ of the Gram matrix (a `ClientTask`): what a client adds to a sum, and nothing else.

    Sums of terms are exact, so the law holds to the last bit, and a secure sum over integers can carry it.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.update, self.config = spec.update, ExactConfig.model_validate(spec.settings)

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """A client keeps nothing."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sum; a client's message is the triangle of its term."""
        shape = (len(cohort), cohort.n_items)
        rows = sp.csr_matrix((np.ones(len(cohort.items)), cohort.items, cohort.indptr), shape=shape)
        gram = weighted_gram(rows, user_weights(cohort.degrees, self.config.ease_exponent))
        sent = cohort.degrees * (cohort.degrees + 1) // 2 * 12
        return Reply(Update(self.update, {"gram": gram.toarray()}, len(cohort)), {}, sent)


class ExactDevice:
    """A device reads the rows of its own items, and keeps nothing (a `DeviceSide`)."""

    def __init__(self, config: ExactConfig) -> None:
        self.config = config

    @property
    def tasks(self) -> TaskMakers:
        """A user's term of the sums."""
        return {TERM: Term}

    def reader(self, model: Published, kept: Kept) -> Recommender:
        """The one reading of the one table."""
        assert isinstance(model.config, ExactConfig)
        return recommender_of(model.tables, model.config)

    def views(self, model: Published, kept: Kept) -> Mapping[str, Recommender]:
        """Nothing beyond what the server has."""
        return {}
