from __future__ import annotations

import numpy as np
import pytest

from retract.errors import ConfigError
from retract.federation import TensorSpec, Update, UpdateSpec
from retract.federation.privacy import ClientNoise, Clip, Keyed, ServerNoise, Shrink, staged
from retract.federation.privacy.shrinking import shrunk
from retract.federation.privacy.stages import Place, limits_of, multiplier_of, require_sound
from tests.federation.privacy.samples import Sums


def signal(n: int = 200) -> np.ndarray:
    left = np.linalg.qr(np.random.default_rng(0).normal(size=(n, 3)))[0]
    return (left * [60.0, 40.0, 25.0]) @ left.T


def noise(n: int = 200) -> np.ndarray:
    drawn = np.random.default_rng(1).normal(size=(n, n))
    return np.triu(drawn) + np.triu(drawn, 1).T


def test_a_shrunk_matrix_is_as_near_to_what_was_there_before_the_noise_as_theory_says():
    error = np.linalg.norm(shrunk(signal() + noise(), 1.0) - signal()) ** 2
    spikes, level = np.array([60.0, 40.0, 25.0]), 200**0.5
    # X - η u uᵀ with η = θ cos², θ a spike and cos² = 1 - (level / θ)²
    theory = (spikes**2 * (1 - (1 - (level / spikes) ** 2) ** 2)).sum()
    assert error == pytest.approx(theory, rel=0.15)
    assert error < 0.1 * np.linalg.norm(noise()) ** 2


def test_where_there_is_only_noise_almost_nothing_is_left():
    assert np.linalg.norm(shrunk(noise(), 1.0)) < 0.1 * np.linalg.norm(noise())


def test_without_noise_a_matrix_stays_and_with_noise_nothing_negative_does():
    assert np.array_equal(shrunk(signal(), 0.0), signal())
    assert np.linalg.eigvalsh(shrunk(noise() - signal(), 1.0)).min() > -1e-9


def test_as_a_stage_it_knows_the_noise_that_is_in_the_sum_and_costs_nothing():
    spec = UpdateSpec(
        {"gram": TensorSpec((200, 200), "float64", "triangle", bound=1.0), "n": TensorSpec((), "int64", bound=1)}
    )
    added = ClientNoise(0.5, floor=2)
    stages = [Clip(), Shrink(added), added]
    assert multiplier_of(stages, 8) == multiplier_of([Clip(), added], 8) == 1
    limits, clean = limits_of(stages, spec), signal()
    update = Update(spec, {"gram": clean, "n": np.asarray(3)}, 8)
    found = Shrink(added).on_sum(update, limits, Place(Keyed(0), 0, "sums"))
    assert np.allclose(found.tensors["gram"], shrunk(clean, 2**0.5))
    assert found.tensors["n"] == 3
    assert Shrink(added).on_client(update, limits, Place(Keyed(0), 0, "sums", 1)) is update


def test_it_must_stand_before_the_noise_that_it_takes_back():
    added = ServerNoise(1.0)
    require_sound([Clip(), Shrink(added), added])
    for wrong in ([Clip(), added, Shrink(added)], [Clip(), Shrink(added), ServerNoise(2.0)]):
        with pytest.raises(ConfigError, match="must stand before it"):
            staged({"sums": Sums}, wrong, Keyed(0))
