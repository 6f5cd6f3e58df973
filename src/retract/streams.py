"""Counter-based random streams: the value depends on its key alone, never on who asked first.

A draw is a hash of (seed, round, user, purpose, counter). So a user gets the same negatives, the same noise and the
same start whether it is trained alone on its own device or beside thousands of others in one vectorised cohort.

The mixer is SplitMix64 (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, OOPSLA 2014). It is a
statistical generator, not a cryptographic one: nothing secret may rest on it.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WORD = 2**64 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, in place on a fresh array."""
    z = z + _GOLDEN
    z ^= z >> np.uint64(30)
    z *= _MIX_A
    z ^= z >> np.uint64(27)
    z *= _MIX_B
    z ^= z >> np.uint64(31)
    return z


def bits(seed: int, round: int, user: ArrayLike, purpose: str, counter: ArrayLike = 0) -> NDArray[np.uint64]:
    """64 uniform bits for every (user, counter), which broadcast against each other.

    Parameters
    ----------
    seed, round
        Any integers, also negative.
    user, counter
        Integers or arrays of them, of shapes that broadcast.
    purpose
        What the draw is for ("negatives", "start"): two purposes never share a stream.
    """
    # Unspread, seed 0 in round 1 would be seed 1 in round 0. Multiples of the golden ratio keep far apart.
    key = np.array([int(seed) * int(_GOLDEN) & _WORD], dtype=np.uint64)
    for part in (int(round) & _WORD, zlib.crc32(purpose.encode())):
        key = _mix(key ^ np.uint64(part))
    users = np.atleast_1d(np.asarray(user)).astype(np.uint64)
    counters = np.atleast_1d(np.asarray(counter)).astype(np.uint64)
    return _mix(_mix(key ^ users) ^ counters)


def uniform(seed: int, round: int, user: ArrayLike, purpose: str, counter: ArrayLike = 0) -> NDArray[np.float64]:
    """Uniform draws in [0, 1) with 53 random bits; keys as in `bits`."""
    return (bits(seed, round, user, purpose, counter) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(
    bound: ArrayLike, seed: int, round: int, user: ArrayLike, purpose: str, counter: ArrayLike = 0
) -> NDArray[np.int64]:
    """Uniform integers in [0, bound), 0 where the bound is 0; keys as in `bits`.

    The bias is below 2^-32 for bounds below 2^21.
    """
    draw: NDArray[np.float64] = uniform(seed, round, user, purpose, counter) * np.asarray(bound)
    return draw.astype(np.int64)


def normal(seed: int, round: int, user: ArrayLike, purpose: str, width: int) -> NDArray[np.float32]:
    """Standard normal rows, shape [len(user), width], by Box-Muller over the keyed uniforms."""
    half = (width + 1) // 2
    users = np.atleast_1d(np.asarray(user))[:, None]
    first = 1.0 - uniform(seed, round, users, purpose, np.arange(half))  # in (0, 1]: its logarithm is finite
    second = uniform(seed, round, users, purpose, np.arange(half, 2 * half))
    radius = np.sqrt(-2.0 * np.log(first))
    angle = 2 * np.pi * second
    rows: NDArray[np.float64] = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return rows[:, :width].astype(np.float32)
