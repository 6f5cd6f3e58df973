from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.errors import ConfigError, FederationError
from retract.federation import TensorSpec, Update, UpdateSpec
from retract.federation.privacy import Buckets, Grid
from retract.federation.privacy.grid import LANES, packed, unpacked
from tests.federation.privacy.samples import SPEC, UNIT, update_of


@given(st.sampled_from(LANES), st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 9))
def test_sums_of_packed_numbers_are_the_packed_sums(bits, seed, count, clients):
    limit = (2 ** (bits - 1) - 1) // clients
    numbers = np.random.default_rng(seed).integers(-limit, limit, size=(clients, count), endpoint=True)
    numbers[:, 0] = limit * (-1) ** seed
    words = np.zeros(-(-count // (64 // bits)), dtype=np.uint64)
    for own in numbers:
        words += packed(own, bits)
    assert np.array_equal(unpacked(words, bits, count), numbers.sum(axis=0))


@pytest.mark.parametrize("bits", LANES)
def test_the_decoded_sum_is_the_sum_of_what_each_client_rounded_to_the_last_bit(bits):
    clients = [update_of(seed) for seed in range(20)]
    grid = Grid(SPEC, 20, bits=bits)
    words = np.zeros(grid.words, dtype=np.uint64)
    for update in clients:
        words += grid.encode(update)
    found = grid.decode(words, 20)
    assert found.clients == 20
    for name in ("gram", "count"):
        assert np.array_equal(found.tensors[name], sum(np.asarray(each.tensors[name]) for each in clients))
    unit = grid.lanes["table"].unit
    multiples = sum(np.rint(np.asarray(each.tensors["table"], dtype=float) / unit) for each in clients)
    assert np.array_equal(found.tensors["table"], (multiples * unit).astype(np.float32))
    assert found.tensors["table"].dtype == np.float32


def test_a_unit_follows_from_the_bound_and_the_number_of_clients():
    for clients in (2, 100, 5000):
        for bits in LANES[1:]:
            lane = Grid(SPEC, clients, bits=bits).lanes["table"]
            assert lane.unit == 2.0 ** round(np.log2(lane.unit))
            if bits < 64:
                assert clients * (2.0 / lane.unit + 1) < 2 ** (bits - 1)
                assert clients * 2.0 / (lane.unit / 2) > 2 ** (bits - 1) - 2 * clients
            assert 2.0 / lane.unit <= 2**52


def test_a_given_unit_is_kept_and_takes_the_fewest_bits_that_hold_the_sum():
    assert Grid(SPEC, 20).lanes["gram"].bits == 64
    assert Grid(SPEC, 20).lanes["count"].bits == 16
    assert Grid(SPEC, 500).lanes["count"].bits == 21
    unbound = UpdateSpec({"count": TensorSpec((), "int64")})
    assert Grid(unbound, 3).lanes["count"].bits == 64


def test_of_a_symmetric_matrix_the_upper_triangle_is_sent():
    spec = UpdateSpec({"gram": SPEC.tensors["gram"]})
    assert Grid(spec, 20).words == 10


def test_what_has_neither_unit_nor_bound_is_refused():
    free = UpdateSpec({"free": TensorSpec((3,))})
    with pytest.raises(ConfigError, match="'free' has no unit and no bound"):
        Grid(free, 3)
    assert Grid(free, 3, bounds={"free": 1.0}, bits=32).words == 2
    with pytest.raises(ConfigError, match="bits is 33"):
        Grid(SPEC, 3, bits=33)


def test_sums_that_may_overflow_are_refused_before_and_values_that_would_after():
    spec = UpdateSpec({"gram": TensorSpec((1, 1), "float64", unit=2.0**-30)})
    with pytest.raises(ConfigError, match=r"more than 2\^63"):
        Grid(spec, 2, bounds={"gram": 2.0**32})
    Grid(spec, 2, bounds={"gram": 2.0**31})
    grid = Grid(spec, 2)
    for value, good in ((2.0**32 - 2.0**-20, True), (2.0**32, False), (-(2.0**32), False)):
        update = Update(spec, {"gram": np.array([[value]])}, 1)
        if good:
            assert grid.decode(grid.encode(update) + grid.encode(update), 2).tensors["gram"] == 2 * value
        else:
            with pytest.raises(FederationError, match="2 clients with as much would overflow 64 bits"):
                grid.encode(update)


def test_a_value_beyond_its_bound_is_refused_where_it_would_overflow():
    grid, update = Grid(SPEC, 20, bits=21), update_of(0)
    table = update.tensors["table"] * np.float32(100)
    with pytest.raises(FederationError, match=r"'table' holds .* would overflow 21 bits"):
        grid.encode(Update(SPEC, {**update.tensors, "table": table}, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf, UNIT / 2])
def test_a_value_that_is_on_no_grid_is_refused(value):
    update, gram = update_of(0), update_of(0).tensors["gram"].copy()
    gram[0, 0] = value
    with pytest.raises(FederationError, match=r"not finite|no whole multiple of its unit"):
        Grid(SPEC, 20).encode(Update(SPEC, {**update.tensors, "gram": gram}, 1))


def test_only_the_update_of_one_client_of_the_task_is_encoded():
    grid = Grid(SPEC, 20)
    other = UpdateSpec({"free": TensorSpec((3,))})
    for wrong in (update_of(0) + update_of(1), SPEC.zeros(), replace(other.zeros(), clients=1)):
        with pytest.raises(FederationError, match="one client, of the task"):
            grid.encode(wrong)


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_rows_alone_in_their_bucket_are_exact_and_others_get_their_buckets_mean():
    buckets = Buckets.head_and_hashed(np.array([3, 7]), 15, 4)
    assert buckets.of_row[[3, 7]].tolist() == [0, 1]
    assert buckets.sizes.tolist() == [1, 1, 4, 3, 3, 3]
    grid, clients = Grid(SPEC, 20, buckets=buckets), [update_of(seed) for seed in range(20)]
    words = sum((grid.encode(update) for update in clients), np.zeros(grid.words, dtype=np.uint64))
    found, wanted = grid.decode(words, 20), clients[0]
    for update in clients[1:]:
        wanted = wanted + update
    mine, theirs = found.tensors["table"], wanted.tensors["table"]
    assert np.allclose(mine[[3, 7]], theirs[[3, 7]], atol=1e-5)
    for bucket in range(2, 6):
        rows = buckets.of_row == bucket
        assert np.allclose(mine[rows], theirs[rows].mean(axis=0), atol=1e-5)
    assert np.array_equal(found.tensors["gram"], wanted.tensors["gram"])
    assert grid.words < Grid(SPEC, 20).words


def test_a_message_in_buckets_is_as_long_whatever_the_client_has():
    buckets = Buckets.head_and_hashed(np.array([0]), 15, 3)
    grid = Grid(SPEC, 20, buckets=buckets)
    assert len(grid.encode(replace(SPEC.zeros(), clients=1))) == len(grid.encode(update_of(0))) == grid.words


def test_buckets_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="buckets are for 14 rows, and tensor 'table' has 15"):
        Grid(SPEC, 20, buckets=Buckets(np.zeros(14, dtype=np.int64)))
    for wrong in ([], [-1, 0], [0, 2]):
        with pytest.raises(ConfigError, match="each must have a row"):
            Buckets(np.array(wrong, dtype=np.int64))


def test_all_rows_may_be_known_and_none_hashed():
    buckets = Buckets.head_and_hashed(np.arange(15), 15, 4)
    assert buckets.sizes.tolist() == [1] * 15
