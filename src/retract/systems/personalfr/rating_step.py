"""PersonalFR's client task for ratings: what a user's own posterior says of the decoder."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.federation import Broadcast, ClientState, Cohort, Reply, TaskSpec, Update
from retract.systems.personalfr.config import bytes_sent
from retract.systems.personalfr.solving import RatingDecoder


class RatingStep:
    """The gradient of the marginal likelihood of a user's ratings, its vector integrated out (a `ClientTask`).

    With the posterior N(m, S) of p_u, of `RatingDecoder`, and e_i = r_ui - μ - b_i - ⟨(q_i, 1), m⟩:

        of q_i:  e_i m - S (q_i, 1), all but the bias's entry;      of b_i:  e_i

    both times σ². It is the expectation step of EM with the maximisation left to the server, so that a message has rows
    of the client's own items only, no larger than a gradient. Beside them go |D_u| (m mᵀ + S), h_u h_uᵀ and h_u mᵀ: the
    server's step has its shape of the first, and C of the others. A client keeps nothing.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.update = spec.update

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """Nothing is kept."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sums; a client's message has its own items' rows."""
        decoder = RatingDecoder.among(broadcast.tables)
        ahead, left, read = decoder.ahead, decoder.left(cohort), decoder.read(cohort)
        degrees, d = cohort.degrees, decoder.items.shape[1]
        means, gradient, spread = np.zeros((len(cohort), d + 1)), np.zeros_like(ahead), np.zeros((d + 1, d + 1))
        for users, posterior in decoder.posteriors(cohort):
            means[users] = posterior.mean
            spread += np.tensordot(degrees[users].astype(float), posterior.covariance, 1)
            for place, covariance in zip(range(users.start, users.stop), posterior.covariance, strict=True):
                own = cohort.items[cohort.indptr[place] : cohort.indptr[place + 1]]
                gradient[own] -= ahead[own] @ covariance
        error = left - (ahead[cohort.items] * means[cohort.rows]).sum(axis=1)
        places = sp.csr_matrix((error, cohort.items, cohort.indptr), shape=(len(cohort), cohort.n_items))
        gradient += places.T @ means
        spread += (degrees[:, None] * means).T @ means
        sums = {
            "gradient": gradient[:, :d].astype(np.float32),
            "bias": np.bincount(cohort.items, error, cohort.n_items).astype(np.float32),
            "holders": np.bincount(cohort.items, minlength=cohort.n_items).astype(np.int32),
            "spread": spread[:d, :d].astype(np.float32),
            "links": (read.T @ read).astype(np.float32),
            "linked": (read.T @ means).astype(np.float32),
        }
        sent = bytes_sent(self.update, {"items": cohort.items_held})
        return Reply(Update(self.update, sums, cohort.n_clients), {}, sent)
