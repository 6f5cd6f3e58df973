"""Shamir's secret sharing (*How to share a secret*, CACM 1979) over the field of the integers modulo a prime.

It is the one primitive written here, for no library that we use has it. It is arithmetic, not a cipher: t - 1 shares
hold no information about the secret, whatever the attacker can compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from retract.errors import FederationError

PRIME = 2**256 + 297
"""The least prime above 2^256: every 32 bytes are an element of the field."""
SECRET, SHARE = 32, 33
"""Bytes of a secret and of a share."""


def split(secret: bytes, holders: Iterable[int], threshold: int, draw: Callable[[int], bytes]) -> dict[int, bytes]:
    """A share for every holder; any `threshold` of them give the secret back, and fewer say nothing.

    A share is the value at the holder's own number of a polynomial of degree t - 1 with random coefficients, whose
    value at 0 is the secret.

    Parameters
    ----------
    secret
        32 bytes.
    holders
        Their numbers, from 1 and each once.
    threshold
        t.
    draw
        Gives so many random bytes; `os.urandom`, but for tests.
    """
    numbers = list(holders)
    assert len(secret) == SECRET
    assert len(set(numbers)) == len(numbers) >= threshold >= 1
    assert min(numbers) >= 1
    # 64 bytes modulo the prime are uniform but for 2^-255.
    rest = [int.from_bytes(draw(64), "little") % PRIME for _ in range(threshold - 1)]
    coefficients = [int.from_bytes(secret, "little"), *rest]
    return {number: _value(coefficients, number).to_bytes(SHARE, "little") for number in numbers}


def _value(coefficients: Sequence[int], at: int) -> int:
    """The polynomial's value, by Horner's rule."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * at + coefficient) % PRIME
    return value


def weights_at_zero(numbers: Sequence[int]) -> dict[int, int]:
    """Lagrange's weights: Σ weight · share is the polynomial's value at 0, for any t holders' numbers."""
    found = {}
    for mine in numbers:
        above, below = 1, 1
        for other in numbers:
            if other != mine:
                above, below = above * other % PRIME, below * (other - mine) % PRIME
        found[mine] = above * pow(below, -1, PRIME) % PRIME
    return found


def join(shares: Mapping[int, bytes], weights: Mapping[int, int]) -> bytes:
    """The secret of some shares.

    Parameters
    ----------
    shares
        By holder's number; those in `weights` are read.
    weights
        Of `weights_at_zero` over t of the holders.

    Raises
    ------
    FederationError
        If the shares are not of one secret.
    """
    value = sum(weight * int.from_bytes(shares[number], "little") for number, weight in weights.items()) % PRIME
    if value >= 2 ** (8 * SECRET):
        raise FederationError(
            "shares of a secret do not belong together: a client sent a wrong one; run the round again"
        )
    return value.to_bytes(SECRET, "little")
