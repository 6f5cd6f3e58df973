"""Where the draws of privacy stages come from: a key in simulations, the operating system on real machines."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retract import streams

SERVER = -1
"""Stands for the server where a draw is keyed by a user."""


class Randomness(Protocol):
    """A source of uniform words. Who makes a stage run hands one in, so that nobody takes a weak one by default."""

    def words(self, round: int, user: int, purpose: str, count: int) -> NDArray[np.uint64]:
        """So many uniform 64-bit words, shape [count]."""
        ...


class Keyed:
    """Draws keyed by (seed, round, user, purpose): for simulations and tests alone.

    Whoever knows the seed can take the noise away again. And two trainings with one seed draw the same noise, so the
    difference of their models, as before and after an erasure, is free of it. No promise rests on such noise.

    Parameters
    ----------
    seed
        The simulation's.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def words(self, round: int, user: int, purpose: str, count: int) -> NDArray[np.uint64]:
        """The same words for the same key."""
        return streams.bits(self.seed, round, user, purpose, np.arange(count))


class Secret:
    """Draws of the operating system's cryptographic generator: for real devices and servers. No draw comes again."""

    def words(self, round: int, user: int, purpose: str, count: int) -> NDArray[np.uint64]:
        """Fresh words, whatever the key."""
        return np.frombuffer(os.urandom(8 * count), dtype="<u8").astype(np.uint64)


def normal(source: Randomness, round: int, user: int, purpose: str, count: int) -> NDArray[np.float64]:
    """Independent standard normal values, float64, shape [count].

    By Box and Muller (*A note on the generation of random normal deviates*, 1958), from uniforms of 53 bits. Values are
    floating-point numbers, not the real ones that the Gaussian mechanism is proven for; see Mironov, *On significance
    of the least significant bits for differential privacy*, CCS 2012. Where a sum has a grid they are rounded to it.
    """
    half = (count + 1) // 2
    uniform = (source.words(round, user, purpose, 2 * half) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(1.0 - uniform[:half]))  # of (0, 1]: its logarithm is finite
    angle = 2 * np.pi * uniform[half:]
    found: NDArray[np.float64] = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return found


def shuffled(source: Randomness, round: int, user: int, purpose: str, count: int) -> NDArray[np.int64]:
    """The numbers below `count` in a random order, int64."""
    return np.argsort(source.words(round, user, purpose, count), kind="stable").astype(np.int64)
