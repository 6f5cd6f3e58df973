from __future__ import annotations

import os
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.errors import FederationError
from retract.federation.privacy.shamir import PRIME, SHARE, join, split, weights_at_zero


@given(st.binary(min_size=32, max_size=32), st.integers(1, 6))
def test_any_t_shares_give_the_secret_back(secret, threshold):
    shares = split(secret, range(1, 7), threshold, os.urandom)
    for some in combinations(shares, threshold):
        assert join(shares, weights_at_zero(some)) == secret


def test_secrets_at_both_ends_of_their_range_are_shared():
    for secret in (bytes(32), b"\xff" * 32):
        shares = split(secret, [3, 1, 9], 2, os.urandom)
        assert {len(share) for share in shares.values()} == {SHARE}
        assert join(shares, weights_at_zero([9, 3])) == secret


def test_fewer_than_t_shares_fit_every_secret():
    shares = split(bytes(32), [1, 2, 3], 3, os.urandom)
    two = weights_at_zero([1, 2, 3])
    for secret in (0, 12345):
        rest = sum(two[n] * int.from_bytes(shares[n], "little") for n in (1, 2))
        third = (secret - rest) * pow(two[3], -1, PRIME) % PRIME
        assert join({**shares, 3: third.to_bytes(SHARE, "little")}, two) == secret.to_bytes(32, "little")


def test_shares_of_one_secret_are_uniform():
    firsts = np.array([list(split(bytes(32), [1, 2], 2, os.urandom)[1][:32]) for _ in range(400)])
    counts = np.bincount(firsts.ravel(), minlength=256)
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert statistic < 255 + 6 * (2 * 255) ** 0.5


def test_wrong_shares_give_another_value_or_are_refused():
    shares = split(b"\x01" * 32, [1, 2, 3], 2, os.urandom)
    wrong = {**shares, 1: (2).to_bytes(SHARE, "little")}
    assert join(wrong, weights_at_zero([1, 2])) != b"\x01" * 32
    with pytest.raises(FederationError, match="do not belong together"):
        join({1: (2**256 + 5).to_bytes(SHARE, "little")}, {1: 1})


def test_the_modulus_is_a_prime():
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41):  # Miller and Rabin
        powers = [pow(base, odd * 2**k, PRIME) for k in range(twos)]
        assert powers[0] == 1 or PRIME - 1 in powers
