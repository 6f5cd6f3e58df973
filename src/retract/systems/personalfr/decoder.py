"""PersonalFR's decoders on the server: where they start, and the step that fits the one of ratings."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retract.federation import Arrays, Broadcast, Update
from retract.systems.personalfr.config import PersonalFRConfig
from retract.systems.personalfr.facts import Facts

Matrix = NDArray[np.float64]


class Start(NamedTuple):
    """Where decoders start.

    Parameters
    ----------
    items
        Q, float32, shape [n_items, d]: what stands out of the noise, the mean eigenvalue of QᵀQ being 1; or zeros.
    standing
        The part of all columns that stands out.
    """

    items: NDArray[np.float32]
    standing: float


class RatingServer:
    """The server's state in the rounds of ratings.

    An item's vector starts along its row of Q, all of one length: the more columns stand out, the longer, so that each
    has the same variance. A round moves it by a step of EM, which its start holds back like so many ratings:

        q_i += step · (G⁻¹ g_i - k (q_i - q_i⁰)) / (n_i + k)

    where g_i is the sum of the clients' gradients, n_i how many hold the item, and G the mean of m mᵀ + S over all
    ratings: all items share its shape, which saves a matrix an item. Biases move likewise, and C is a ridge regression.

    Parameters
    ----------
    start
        Q, and how much of it stands out.
    facts
        What the census found.
    config
        Settings.
    """

    def __init__(self, start: Start, facts: Facts, config: PersonalFRConfig) -> None:
        self.config, self.start = config, _directions(start.items)
        self.links = min(config.links, config.dimension)
        rated, support = max(int(facts.support.sum()), 1), facts.support.astype(np.float64)
        self.mean = float(facts.mean)
        self.bias: Matrix = (facts.ratings - support * self.mean) / np.maximum(support + config.bias_prior, 1e-12)
        level = self.mean + self.bias
        explained = 2 * level @ facts.ratings - support @ level**2
        variance = max((float(facts.squares) - explained) / rated, 1e-6)
        self.start *= config.taste_length * (start.standing * variance) ** 0.5
        self.items: Matrix = self.start.copy()
        self.noise, self.user_bias = config.taste_noise * variance, config.user_bias * variance
        self.linked: Matrix = np.zeros((self.links, config.dimension + 1))
        self.table, self.answered = start.items, 0

    def broadcast(self, round: int) -> Broadcast:
        """What the clients get: the decoder, and the columns of Q that they are linked by."""
        return Broadcast(round, {"items": self.table[:, : self.links], **self.published})

    @property
    def published(self) -> dict[str, NDArray[Any]]:
        """What it takes to read ratings, beside Q."""
        tables = {"items": self.items, "bias": self.bias, "linked": self.linked}
        numbers = {"noise": np.asarray(self.noise), "user_bias": np.asarray(self.user_bias)}
        named = {f"rating.{name}": table.astype(np.float32) for name, table in {**tables, **numbers}.items()}
        return {**named, "mean": np.asarray(self.mean, dtype=np.float32)}

    def apply(self, update: Update) -> None:
        """One step; where nobody answered, nothing changes."""
        if not update.clients:
            return
        config, sums = self.config, {name: table.astype(np.float64) for name, table in update.tensors.items()}
        holders = sums["holders"]
        shape = sums["spread"] / max(holders.sum(), 1)
        shape += 1e-9 * max(np.trace(shape), 1e-12) * np.eye(len(shape))
        towards = np.linalg.solve(shape, sums["gradient"].T).T - config.start_pull * (self.items - self.start)
        self.items = self.items + config.step * towards / np.maximum(holders + config.start_pull, 1e-12)[:, None]
        back = sums["bias"] - config.bias_prior * self.bias
        self.bias = self.bias + config.step * back / np.maximum(holders + config.bias_prior, 1e-12)
        self.linked = np.linalg.solve(sums["links"] + config.link_ridge * np.eye(self.links), sums["linked"])
        self.answered += 1

    @property
    def kept(self) -> dict[str, NDArray[Any]]:
        """All that the next round reads, beside Q and the facts."""
        tables = {"items": self.items, "bias": self.bias, "linked": self.linked, "answered": np.asarray(self.answered)}
        return {f"moved.{name}": table.copy() for name, table in tables.items()}

    def restore(self, tables: Arrays) -> None:
        """Go back to where `kept` was taken."""
        self.items, self.bias, self.linked = (tables[f"moved.{name}"] for name in ("items", "bias", "linked"))
        self.answered = int(tables["moved.answered"])


def _directions(items: NDArray[np.float32]) -> Matrix:
    """Rows of length 1, zeros where they are zeros."""
    lengths = np.linalg.norm(items.astype(np.float64), axis=1, keepdims=True)
    return np.divide(items, lengths, where=lengths > 0, out=np.zeros(items.shape))
