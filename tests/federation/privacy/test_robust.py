from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.poisoning import poisoned
from retract.data import Sharing, load
from retract.errors import ConfigError, FederationError
from retract.evaluation.ranking import evaluate
from retract.federation import Engine, LocalEngine, TensorSpec, Update, UpdateSpec
from retract.federation.privacy import NormBound, RobustEngine, TrimmedMean
from retract.federation.privacy.bounds import norm_of
from retract.federation.privacy.robust import Sent
from retract.stores.devices import MemoryDevices
from retract.stores.local import reader_of
from retract.systems.registry import make_system
from tests.federation.privacy.samples import SPEC, Sums, engine_with, run, update_of


def test_of_an_update_only_the_rows_are_held_that_are_not_zero():
    for seed in range(5):
        update = update_of(seed)
        sent, table = Sent.of(update), update.tensors["table"]
        assert 0 < len(sent.rows["table"]) < 15
        assert np.array_equal(sent.update.tensors["table"], table[sent.rows["table"]])
        assert not np.delete(table, sent.rows["table"], axis=0).any()
        assert sent.rows.keys() == {"table"}
        assert np.array_equal(sent.update.tensors["gram"], update.tensors["gram"])


def test_where_nobody_is_beyond_the_bound_the_sum_is_the_plain_one():
    robust = RobustEngine(engine_with(), NormBound({"table": 2.0, "gram": 8.0, "count": 100.0}))
    found, wanted = run(robust), run(engine_with())
    assert np.allclose(found.update.tensors["table"], wanted.update.tensors["table"], atol=1e-5)
    assert np.array_equal(found.update.tensors["gram"], wanted.update.tensors["gram"])
    assert found.update.tensors["count"] == wanted.update.tensors["count"]
    assert np.array_equal(found.answered, wanted.answered)
    assert (found.bytes_up, found.bytes_down) == (wanted.bytes_up, wanted.bytes_down)
    assert found.update.clients == wanted.update.clients == robust.traffic.updates


@pytest.mark.parametrize("factor", [100, -100])
def test_a_client_moves_a_bounded_sum_by_no_more_than_its_bound(factor):
    bounds = {"table": 2.0, "gram": 8.0, "count": 100.0}
    attackers = np.array([3])
    sums = []
    for by in (1, factor):
        inner = engine_with(tasks=poisoned({"sums": Sums}, attackers, by))
        inner.cohort_interactions = 1
        sums.append(run(RobustEngine(inner, NormBound(bounds))).update)
    for name, bound in bounds.items():
        gap = np.asarray(sums[1].tensors[name], dtype=float) - np.asarray(sums[0].tensors[name], dtype=float)
        assert 0 < norm_of(gap, SPEC.tensors[name].layout) <= 2 * bound


def test_without_a_bound_it_is_twice_the_median_norm():
    updates = [update_of(seed) for seed in range(9)] + [update_of(9, scale=1000)]
    found = NormBound()([Sent.of(each) for each in updates], SPEC, 0)
    norms = [norm_of(each.tensors["table"], "rows") for each in updates]
    bound = 2 * np.median(norms)
    wanted = sum(
        np.asarray(u.tensors["table"], dtype=float) * min(1, bound / n) for u, n in zip(updates, norms, strict=True)
    )
    assert np.allclose(found.tensors["table"], wanted, atol=1e-4)


def test_a_trimmed_mean_drops_both_ends_of_each_coordinate():
    spec = UpdateSpec({"x": TensorSpec((2,), "float64")})
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0], [1e9, -1e9]])
    found = TrimmedMean(0.2)([Sent.of(Update(spec, {"x": row}, 1)) for row in values], spec, 0)
    assert found.tensors["x"].tolist() == [(2 + 3 + 4) / 3 * 5, (10 + 20 + 30) / 3 * 5]
    assert found.clients == 5


def test_of_a_row_only_those_who_send_it_are_counted():
    spec = UpdateSpec({"x": TensorSpec((3, 1), "float64", layout="rows"), "n": TensorSpec((), "int64")})
    rows = {0: [1, 2, 3, 4, 100], 1: [5], 2: []}
    updates = []
    for client in range(8):
        x = np.array([[rows[row][client] if client < len(rows[row]) else 0.0] for row in range(3)])
        updates.append(Sent.of(Update(spec, {"x": x, "n": np.asarray(client)}, 1)))
    found = TrimmedMean(0.2)(updates, spec, 0)
    assert found.tensors["x"].ravel().tolist() == [3.0 * 5, 5.0, 0.0]
    assert found.tensors["n"] == np.rint(np.arange(1, 7).mean() * 8)


def test_a_client_whose_update_does_not_fit_is_left_out_and_if_none_fits_the_reason_is_given():
    class Odd(Sums):
        def __call__(self, broadcast, cohort, state, seed):
            reply = super().__call__(broadcast, cohort, state, seed)
            other = UpdateSpec({"x": TensorSpec((2,))})
            return replace(reply, update=other.zeros()) if cohort.users[0] in self.odd else reply

    class Some(Odd):
        odd = (4, 7)

    class All(Odd):
        odd = range(100)

    found = run(RobustEngine(engine_with(tasks={"sums": Some}), NormBound()))
    assert found.missing.tolist() == [4, 7]
    with pytest.raises(FederationError, match="another update than asked for"):
        run(RobustEngine(engine_with(tasks={"sums": All}), NormBound()))


def test_without_medians_every_tensor_needs_a_bound():
    with pytest.raises(ConfigError, match="'gram' has no bound for its norm"):
        NormBound({"table": 1.0}, medians=None)([Sent.of(update_of(0))], SPEC, 0)


def test_a_client_that_sends_what_is_not_finite_is_left_out():
    inner = engine_with(tasks=poisoned({"sums": Sums}, np.array([2, 5]), np.nan))
    inner.cohort_interactions = 1
    with np.errstate(invalid="ignore"):
        found = run(RobustEngine(inner, NormBound()))
    assert found.missing.tolist() == [2, 5]
    assert found.update.clients == len(inner.users) - 2
    assert np.isfinite(found.update.tensors["table"]).all()


@pytest.mark.parametrize(
    ("kind", "wrong"), [(NormBound, {"medians": 0}), (TrimmedMean, {"trim": 0}), (TrimmedMean, {"trim": 0.5})]
)
def test_settings_out_of_range_are_refused(kind, wrong):
    with pytest.raises(ConfigError):
        kind(**wrong)
    engine = RobustEngine(engine_with(), NormBound())
    with pytest.raises(ConfigError, match="no client takes part"):
        run(engine, users=engine.users[:0])


@pytest.mark.slow
def test_a_norm_bound_holds_against_five_per_cent_that_send_a_hundred_times_their_update():
    train, test = load("movielens-small").split(seed=0)
    system, active = make_system("fedshare"), train.active_users()
    attackers = np.random.default_rng(0).permutation(active)[: round(0.05 * len(active))]

    def recall(factor: float, bounded: bool) -> float:
        devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
        tasks = poisoned(system.device.tasks, attackers, factor)
        engine: Engine = LocalEngine(devices, tasks, cohort_interactions=1)
        if bounded:
            engine = RobustEngine(engine, NormBound())
        model = system.server.train(devices.sharing.shared, engine, seed=0)
        return evaluate(reader_of(system, model, devices), train, test).mean()["recall@20"]

    clean = recall(1, bounded=False)
    assert recall(100, bounded=True) >= 0.97 * clean
    assert recall(100, bounded=False) < 0.9 * clean
