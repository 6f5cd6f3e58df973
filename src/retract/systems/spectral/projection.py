"""The client task of the start's rounds: a user's term of a step of subspace iteration."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.federation import Broadcast, ClientState, Cohort, Reply, TaskSpec, Update
from retract.systems.spectral.config import SpectralConfig


class Projection:
    """x_u ω_u (x_uᵀ C) with ω_u = 1 / (|D_u| + τ), shared and private alike (a `ClientTask`).

    The sum over clients is Xᵀ Ω X C, a step of subspace iteration on the clients' weighted Gram matrix, which nobody
    ever sees; beside it go x_u and ω_u x_u, whose sums tell the items' degrees and how much there is in all. A message
    has rows of the client's own items only, no more of them than a gradient has.
    """

    def __init__(self, spec: TaskSpec) -> None:
        known = {name: value for name, value in spec.settings.items() if name in SpectralConfig.model_fields}
        self.update, self.prior = spec.update, SpectralConfig.model_validate(known).degree_prior

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """A client keeps nothing."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sum; a client's message has its own items' rows."""
        basis, degrees = np.asarray(broadcast.tables["basis"]), cohort.degrees
        shape = (len(cohort), cohort.n_items)
        own = sp.csr_matrix((np.ones(len(cohort.items), dtype=np.float32), cohort.items, cohort.indptr), shape=shape)
        weights = np.where(degrees > 0, 1 / np.maximum(degrees + self.prior, 1e-12), 0).astype(np.float32)
        back = own.T.tocsr()
        sums = {
            "projection": back @ (weights[:, None] * (own @ basis)),
            "degrees": np.bincount(cohort.items, minlength=cohort.n_items).astype(np.int32),
            "weights": back @ weights,
        }
        return Reply(Update(self.update, sums, cohort.n_clients), {}, cohort.items_held * (12 + 4 * basis.shape[1]))
