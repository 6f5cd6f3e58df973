"""The server's side of the start: the leading singular vectors of all interactions, a round a step."""

from __future__ import annotations

import numpy as np

from retract.federation import Broadcast, RoundResult
from retract.models import subspace
from retract.systems.spectral.config import SpectralConfig


class Subspace(subspace.Subspace):
    """Subspace iteration over all that the clients hold, each of its products one round.

    Parameters
    ----------
    n_items
        Items in the catalog.
    config, seed
        Settings, and the key of the start.
    """

    def __init__(self, n_items: int, config: SpectralConfig, seed: int) -> None:
        super().__init__(
            n_items,
            config.dimension,
            seed,
            oversampling=config.oversampling,
            prior=config.degree_prior,
            noise=config.noise,
        )

    def broadcast(self, round: int) -> Broadcast:
        """What the next step multiplies, float32."""
        return Broadcast(round, {"basis": self.asked.astype(np.float32)})

    def apply(self, result: RoundResult) -> None:
        """Take a round's product; where nobody answered, nothing changes."""
        if not result.update.clients:
            return
        names = ("projection", "degrees", "weights")
        product, degrees, mass = (np.asarray(result.update.tensors[name], dtype=np.float64) for name in names)
        self.step(product, degrees, mass, len(result.answered))
