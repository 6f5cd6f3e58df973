"""The private encoder, solved: a user's vector as the ridge solution on its own history, the decoder held fixed.

It costs one small solve and keeps no state, so who joined a minute ago is read exactly like everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retract.federation import Arrays, Cohort

Matrix = NDArray[np.float64]
AT_ONCE = 256
"""Users solved for at once: bounds the memory, never the result."""


class Posterior(NamedTuple):
    """What is known of users' vectors: means, shape [n, d + 1], and covariances, [n, d + 1, d + 1]."""

    mean: Matrix
    covariance: Matrix


@dataclass(frozen=True)
class RatingDecoder:
    """How a user rates: a Gaussian model with a vector for each user, known by its posterior.

        r_ui = μ + b_i + ⟨(q_i, 1), p_u⟩ + ε,      p_u ~ N(Cᵀ h_u, diag(1, …, 1, β)),      ε ~ N(0, σ²)

    The last entry of p_u is the user's bias. h_u = |D_u|^{-1/2} Σ_{i ∈ D_u} x_i, with x_i the first columns of the
    start, says what somebody touched; C, what that tells of taste, as SVD++ does by a table of items (Koren, KDD 2008).
    It is probabilistic PCA with missing values (Tipping and Bishop, 1999; Salakhutdinov and Mnih, NIPS 2007), the mean
    of whose prior is regressed on the history.

    Parameters
    ----------
    items
        The q_i, shape [n_items, d].
    bias
        The b_i, shape [n_items].
    links
        The x_i, shape [n_items, l].
    linked
        C, shape [l, d + 1].
    mean, noise, user_bias
        μ, σ² and β.
    """

    items: Matrix
    bias: Matrix
    links: Matrix
    linked: Matrix
    mean: float
    noise: float
    user_bias: float

    @classmethod
    def among(cls, tables: Arrays) -> RatingDecoder:
        """As it is broadcast and published."""
        one = {name: np.asarray(tables[f"rating.{name}"], dtype=np.float64) for name in ("items", "bias", "linked")}
        numbers = (float(tables[name]) for name in ("mean", "rating.noise", "rating.user_bias"))
        return cls(one["items"], one["bias"], links_of(tables, len(one["linked"])), one["linked"], *numbers)

    @property
    def ahead(self) -> Matrix:
        """(q_i, 1), shape [n_items, d + 1]."""
        return np.pad(self.items, ((0, 0), (0, 1)), constant_values=1.0)

    def read(self, cohort: Cohort) -> Matrix:
        """h_u, shape [len(cohort), l]."""
        found = np.zeros((len(cohort), self.links.shape[1]))
        np.add.at(found, cohort.rows, self.links[cohort.items])
        read: Matrix = found / np.sqrt(np.maximum(cohort.degrees, 1))[:, None]
        return read

    def left(self, cohort: Cohort) -> Matrix:
        """Ratings less μ and the items' biases, beside the cohort's items."""
        assert cohort.ratings is not None
        left: Matrix = cohort.ratings - self.mean - self.bias[cohort.items]
        return left

    def posteriors(self, cohort: Cohort) -> Iterator[tuple[slice, Posterior]]:
        """Those of some users at a time; the prior for who rated nothing."""
        ahead, left = self.ahead, self.left(cohort)
        prior = self.read(cohort) @ self.linked
        precision = np.diag(np.append(np.ones(self.items.shape[1]), 1 / self.user_bias))
        for users, normal in _normal(cohort, ahead):
            seen = _sums(cohort, users, lambda at: left[at] @ ahead[cohort.items[at]])
            seen -= np.einsum("ujk,uk->uj", normal, prior[users])
            covariance = np.linalg.inv(normal / self.noise + precision)
            yield users, Posterior(prior[users] + np.einsum("ujk,uk->uj", covariance, seen) / self.noise, covariance)

    def ratings(self, cohort: Cohort) -> NDArray[np.float32]:
        """Expected ratings, shape [len(cohort), n_items]."""
        means = [posterior.mean for _, posterior in self.posteriors(cohort)]
        users = np.concatenate(means) if means else np.zeros((0, self.items.shape[1] + 1))
        return np.asarray(self.mean + self.bias + users @ self.ahead.T, dtype=np.float32)


def links_of(tables: Arrays, count: int) -> Matrix:
    """The x_i: the first columns of Q, of mean square 1 if all columns were alike; shape [n_items, count]."""
    items = np.asarray(tables["items"][:, :count], dtype=np.float64)
    scaled: Matrix = items * len(items) ** 0.5
    return scaled


def _normal(cohort: Cohort, table: Matrix) -> Iterator[tuple[slice, Matrix]]:
    """Σ_{i ∈ D_u} x_i x_iᵀ of some users at a time, shape [n, d, d]."""
    for begin in range(0, len(cohort), AT_ONCE):
        users = slice(begin, min(begin + AT_ONCE, len(cohort)))
        made = np.empty((users.stop - begin, table.shape[1], table.shape[1]))
        for place in range(begin, users.stop):
            own = table[cohort.items[cohort.indptr[place] : cohort.indptr[place + 1]]]
            np.matmul(own.T, own, out=made[place - begin])
        yield users, made


def _sums(cohort: Cohort, users: slice, of: Callable[[slice], Matrix]) -> Matrix:
    """A vector made of each user's interactions, shape [n, d]."""
    bounds = cohort.indptr
    return np.stack([of(slice(bounds[place], bounds[place + 1])) for place in range(users.start, users.stop)])
