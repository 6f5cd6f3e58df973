from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.errors import ConfigError, FederationError
from retract.federation import TensorSpec, Update, UpdateSpec
from retract.federation.privacy.bounds import bounds_of, clipped, norm_of
from tests.federation.privacy.samples import SPEC, UNIT, update_of


def in_order(count: int) -> np.ndarray:
    return np.arange(count)


def test_what_is_within_its_bounds_stays_as_it_is():
    update = update_of(0)
    after = clipped(update, bounds_of(SPEC, {}), in_order)
    for name, tensor in update.tensors.items():
        assert np.array_equal(after.tensors[name], tensor)


@given(st.integers(0, 1000), st.floats(0.01, 1e6))
def test_after_clipping_no_tensor_is_beyond_its_bound_and_each_is_on_its_grid(seed, scale):
    bounds = {"table": 0.5, "gram": 0.25, "count": 7.0}
    update = update_of(seed)
    tensors = {
        "table": (update.tensors["table"] * np.float32(scale)).astype(np.float32),
        "gram": np.rint(update.tensors["gram"] * scale / UNIT) * UNIT,
        "count": np.asarray(int(update.tensors["count"] * scale)),
    }
    after = clipped(Update(SPEC, tensors, 1), bounds, in_order)
    for name, spec in SPEC.tensors.items():
        assert norm_of(after.tensors[name], spec.layout) <= bounds[name]
        assert after.tensors[name].dtype.name == spec.dtype
    multiples = after.tensors["gram"] / UNIT
    assert np.array_equal(multiples, np.rint(multiples))
    assert np.array_equal(after.tensors["gram"], after.tensors["gram"].T)


def test_a_clipped_tensor_keeps_its_direction_and_ends_at_its_bound():
    update = update_of(3, scale=50)
    after = clipped(update, {"table": 1.5, "gram": 1.0, "count": 1e9}, in_order)
    before, now = (np.asarray(each.tensors["table"], dtype=float).ravel() for each in (update, after))
    assert before @ now / np.linalg.norm(before) / np.linalg.norm(now) == pytest.approx(1)
    assert np.linalg.norm(now) == pytest.approx(1.5, rel=1e-5)
    assert norm_of(after.tensors["gram"], "triangle") == pytest.approx(1.0, rel=1e-5)
    assert after.tensors["count"] == update.tensors["count"]


def test_of_a_vector_of_ones_as_many_stay_as_the_bound_allows():
    spec = UpdateSpec({"held": TensorSpec((100,), "int32")})
    after = clipped(Update(spec, {"held": np.ones(100, dtype=np.int32)}, 1), {"held": 5.0}, in_order)
    assert after.tensors["held"].sum() == 25
    many = clipped(Update(spec, {"held": np.full(100, -100, dtype=np.int32)}, 1), {"held": 15.0}, in_order)
    assert norm_of(many.tensors["held"], "dense") <= 15
    assert many.tensors["held"].min() == -2
    assert norm_of(many.tensors["held"], "dense") > 14.9


def test_the_norm_of_a_symmetric_matrix_is_that_of_its_upper_triangle():
    matrix = np.array([[1.0, 2.0], [2.0, 3.0]])
    assert norm_of(matrix, "triangle") == pytest.approx(np.sqrt(1 + 4 + 9))


def test_an_update_of_nothing_is_clipped_to_nothing():
    after = clipped(replace(SPEC.zeros(), clients=1), bounds_of(SPEC, {}), in_order)
    assert not any(np.any(tensor) for tensor in after.tensors.values())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    update = update_of(0)
    table = update.tensors["table"].copy()
    table[2, 1] = value
    with pytest.raises(FederationError, match=r"'table'.*not finite"):
        clipped(Update(SPEC, {**update.tensors, "table": table}, 1), bounds_of(SPEC, {}), in_order)


def test_a_sum_of_several_clients_is_not_clipped():
    with pytest.raises(FederationError, match="2 clients"):
        clipped(update_of(0) + update_of(1), bounds_of(SPEC, {}), in_order)


def test_the_bound_is_the_tasks_or_the_given_one_and_of_both_the_smaller():
    assert bounds_of(SPEC, {"table": 1.0, "gram": 9.0}) == {"table": 1.0, "gram": 8.0, "count": 100.0}
    unbound = UpdateSpec({"free": TensorSpec((3,))})
    assert bounds_of(unbound, {"free": 3.0}) == {"free": 3.0}
    with pytest.raises(ConfigError, match="'free' has no L2 bound"):
        bounds_of(unbound, {})
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ConfigError, match="must be positive and finite"):
            bounds_of(unbound, {"free": wrong})
