"""Fold-in: a user's vector as the ridge solution on its own history, the items' vectors held fixed.

It costs one small solve and keeps no state, so who joined a minute ago is read exactly like everybody else.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.models.recommender import Scores

Matrix = NDArray[np.float64]


class FoldIn:
    """What a user touches next: p_u solved from what it touched, against items Q that nobody fits any further.

        p_u = (Σ_{i ∈ D_u} q_i q_iᵀ + a Qᵀ Q + λ √(n_u / n) I)⁻¹ Σ_{i ∈ D_u} t_i q_i,      ŷ_ui = z_i ⟨q_i, p_u⟩

    the user's half-step of implicit ALS (Hu, Koren, Volinsky, ICDM 2008; weights as of Rendle et al., RecSys 2022). Q
    holds the leading vectors of the normalised interactions; t_i ∝ D_i^-b and z_i = D_i^b, with degrees D_i regularised
    and relative to their mean, undo a part of that normalisation (b is ours).

    Parameters
    ----------
    items
        Q, shape [n_items, d].
    support
        Users that hold each item, shape [n_items].
    mean_degree
        n, the mean number of interactions per user.
    unobserved, ridge
        a and λ.
    popularity, prior
        b, and what is added to every degree.
    """

    def __init__(
        self,
        items: NDArray[np.float32],
        support: NDArray[np.int64],
        mean_degree: float,
        *,
        unobserved: float,
        ridge: float,
        popularity: float,
        prior: float,
    ) -> None:
        self.mean_degree, self.ridge = max(mean_degree, 1.0), ridge
        degrees = np.maximum(support, 0.5) + prior
        degrees = degrees / degrees.mean()
        self.read, self.said = degrees**-popularity, degrees**popularity
        self.read = self.read / self.read.mean()
        table = np.asarray(items, dtype=np.float64)
        # In the eigenvectors' basis Qᵀ Q is diagonal, and so is all of the normal matrix but what a user did.
        sizes, turn = np.linalg.eigh(table.T @ table)
        self.items, self.fixed = table @ turn, unobserved * np.maximum(sizes, 0)

    def codes(self, indptr: NDArray[np.int64], items: NDArray[np.int64]) -> Matrix:
        """p_u in the basis of `items`, shape [n, d]; zeros for who touched nothing.

        Parameters
        ----------
        indptr, items
            Where each user's items begin, shape [n + 1], and their codes.
        """
        found = np.zeros((len(indptr) - 1, len(self.fixed)))
        for place, (begin, end) in enumerate(pairwise(indptr.tolist())):
            own = items[begin:end]
            table, wanted = self.items[own], self.read[own]
            diagonal = self.fixed + max(self.ridge * ((end - begin) / self.mean_degree) ** 0.5, 1e-6)
            if len(own) < len(diagonal):  # (A + HᵀH)⁻¹ Hᵀ t = A⁻¹ Hᵀ (I + H A⁻¹ Hᵀ)⁻¹ t
                scaled = table / diagonal
                found[place] = np.linalg.solve(scaled @ table.T + np.eye(len(own)), wanted) @ scaled
            else:
                found[place] = np.linalg.solve(table.T @ table + np.diag(diagonal), wanted @ table)
        return found

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """ŷ, shape [len(users), n_items]."""
        said = self.codes(*history.rows_of(users)) @ self.items.T
        return np.asarray(said * self.said, dtype=np.float32)
