"""The server's side of the start: the leading singular vectors of all interactions, a round a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.federation import Broadcast, RoundResult
from retract.systems.spectral.config import SpectralConfig

Matrix = NDArray[np.float64]
PARTS = ("basis", "weights", "source", "image", "sums")
"""What a checkpoint holds."""


class Leading(NamedTuple):
    """Leading singular vectors, one to a column, their values, and what is to be left of each.

    The shrinkage is 1 - (ν / s_k)², 0 where s_k ≤ ν, s being the singular values and ν the level of noise: the nearer a
    value is to the noise, the less of its vector is signal (compare Gavish and Donoho, IEEE Trans. IT 2017; the form is
    ours).
    """

    vectors: Matrix
    values: Matrix
    shrinkage: Matrix


class Subspace:
    """The server's side of subspace iteration on M = W Xᵀ Ω X W, over all that the clients hold.

    W = (D_i + τ)^{-1/2} over the items' degrees, Ω = 1 / (D_u + τ) over the users': the normalised graph, its degrees
    regularised (Chaudhuri, Chung, Tsiatas, COLT 2012), for the leading vectors of a sparse graph sit on its small
    components otherwise. The iteration is the randomised one (Halko, Martinsson, Tropp, SIAM Review 2011, algorithm
    4.4), its start keyed; each of its products with M is one round. The vectors are read off the last product by
    Nyström's formula (algorithm 5.5 there), which takes no further round.

    Parameters
    ----------
    n_items
        Items in the catalog.
    config, seed
        Settings, and the key of the start.
    """

    def __init__(self, n_items: int, config: SpectralConfig, seed: int) -> None:
        self.config, width = config, min(config.dimension + config.oversampling, n_items)
        self.basis: Matrix = streams.normal(seed, 0, np.arange(n_items), "subspace", width).astype(np.float64)
        # At first the basis is sent as it is: it stands for another one, W^{-1} times it, which is as random.
        self.weights = np.ones(n_items)
        self.source, self.image = self.basis, np.zeros((n_items, width))
        self.sums = np.zeros(3)

    @property
    def width(self) -> int:
        """Columns of the basis."""
        return self.basis.shape[1]

    def broadcast(self, round: int) -> Broadcast:
        """C = W times an orthonormal basis, float32."""
        return Broadcast(round, {"basis": (self.weights[:, None] * self.basis).astype(np.float32)})

    def apply(self, result: RoundResult) -> None:
        """Take a product with M; where nobody answered, nothing changes."""
        if not result.update.clients:
            return
        degrees = np.asarray(result.update.tensors["degrees"], dtype=np.float64)
        product = np.asarray(result.update.tensors["projection"], dtype=np.float64)
        weights = np.where(degrees > 0, np.maximum(degrees + self.config.degree_prior, 1e-12) ** -0.5, 0)
        known, first = weights[:, None] > 0, not self.image.any()
        self.source = np.divide(self.basis, weights[:, None], where=known, out=0 * self.basis) if first else self.basis
        self.image = (weights if first else self.weights)[:, None] * product
        self.basis, self.weights = np.linalg.qr(self.image)[0], weights
        mass = np.asarray(result.update.tensors["weights"], dtype=np.float64)
        effective = min(mass.sum(), (degrees * weights**2).sum())
        self.sums = np.array([mass @ weights**2, effective, min(len(result.answered), int(known.sum()))])

    def leading(self) -> Leading:
        """The leading singular vectors, with their values, as far as the rank goes and no more than d of them."""
        if not self.image.any():
            return Leading(np.zeros((len(self.basis), 0)), np.zeros(0), np.zeros(0))
        inner = self.source.T @ self.image
        values, vectors = np.linalg.eigh((inner + inner.T) / 2)
        stands = values > 1e-7 * values[-1]
        left, found, _ = np.linalg.svd((self.image @ vectors[:, stands]) * values[stands] ** -0.5, full_matrices=False)
        rank = min(self.config.dimension, int((found > 1e-4 * found[0]).sum()))
        left, found = left[:, :rank], found[:rank]
        left *= np.where(left[np.abs(left).argmax(axis=0), np.arange(rank)] < 0, -1, 1)
        return Leading(left, found, np.maximum(1 - (self._noise(found) / found) ** 2, 0))

    def table(self, deviation: float) -> NDArray[np.float32]:
        """Q's start, shape [n_items, d]: column k is √n_items · deviation times the k-th vector, shrunk; others: 0."""
        found = self.leading()
        table = np.zeros((len(found.vectors), self.config.dimension), dtype=np.float32)
        table[:, : len(found.values)] = found.vectors * found.shrinkage * (len(table) ** 0.5 * deviation)
        return table

    def _noise(self, found: Matrix) -> float:
        """ν: `noise` times the root mean square of the singular values beyond those that were found.

        Their squares add up to what is left of tr M. How many there are is told by the regularised degrees,
        Σ D / (D + τ) over users or items: one whose degree is small against τ hardly counts as a dimension. The leading
        vector stays in any case.
        """
        energy, effective, full = self.sums
        beyond = max(effective - len(found), (full - len(found)) / 4, 1)
        level = (max(energy - (found**2).sum(), 0) / beyond) ** 0.5
        return float(min(self.config.noise * level, 0.8 * found[0]))

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """Copies of all that the next step reads."""
        return {f"subspace.{name}": getattr(self, name).copy() for name in PARTS}

    def restore(self, tables: Mapping[str, NDArray[Any]]) -> None:
        """Go back to where `tables` were taken."""
        for name in PARTS:
            setattr(self, name, tables[f"subspace.{name}"])
