from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retract.errors import ConfigError, FederationError
from retract.federation import Broadcast, LocalEngine, Update
from retract.federation.privacy import (
    ClientNoise,
    Clip,
    Keyed,
    Secret,
    ServerNoise,
    multiplier_of,
    private_name,
    staged,
)
from retract.federation.privacy.devices import single
from retract.federation.privacy.randomness import normal, shuffled
from retract.federation.privacy.stages import Limits, Place, limits_of, noised, require_sound
from retract.stores.devices import MemoryDevices
from tests.contracts.tasks import TASKS, broadcast, sharing, spec
from tests.federation.privacy.samples import ASKED, SPEC, UNIT, Sums, engine_with, update_of

HUGE = Clip({"items": 1e9, "interactions": 1e9})


def within_three_errors(draws: np.ndarray, deviation: float) -> None:
    """Mean, variance and kurtosis of Gaussian draws of mean 0."""
    n, scaled = draws.size, draws.ravel() / deviation
    assert abs(scaled.mean()) < 3 / n**0.5
    assert abs((scaled**2).mean() - 1) < 3 * (2 / n) ** 0.5
    assert abs((scaled**4).mean() - 3) < 3 * (96 / n) ** 0.5


@pytest.mark.parametrize("source", [Keyed(3), Secret()])
def test_normal_draws_have_the_moments_of_the_normal_distribution(source):
    draws = np.concatenate([normal(source, round, 5, "test", 20_001) for round in range(5)])
    if isinstance(source, Keyed):
        within_three_errors(draws, 1.0)
    else:  # fresh every time: 5 errors, so that one run in a million fails
        assert abs(draws.mean()) < 5 / draws.size**0.5
        assert abs((draws**2).mean() - 1) < 5 * (2 / draws.size) ** 0.5


def test_keyed_draws_come_again_and_secret_ones_do_not():
    for source, again in ((Keyed(1), True), (Secret(), False)):
        first, second = (normal(source, 0, 1, "a", 50) for _ in range(2))
        assert np.array_equal(first, second) is again
    keys = [(0, 1, "a"), (1, 1, "a"), (0, 2, "a"), (0, 1, "b")]
    draws = [normal(Keyed(1), *key, 8) for key in keys] + [normal(Keyed(2), *keys[0], 8)]
    assert len({tuple(draw) for draw in draws}) == 5
    assert np.array_equal(np.sort(shuffled(Keyed(1), 0, 0, "a", 9)), np.arange(9))


@pytest.mark.parametrize("stage", [ServerNoise(1.5), ClientNoise(1.5, floor=4)])
def test_noise_on_a_sum_has_the_moments_that_the_formula_says(stage):
    limits, clients = limits_of([Clip(weights={"table": 4.0, "gram": 2.0}), stage], SPEC), 9
    found = {name: [] for name in SPEC.tensors}
    for round in range(400):
        if isinstance(stage, ServerNoise):
            after = stage.on_sum(SPEC.zeros(), limits, Place(Keyed(7), round, "sums"))
        else:
            parts = [
                stage.on_client(replace(SPEC.zeros(), clients=1), limits, Place(Keyed(7), round, "sums", user))
                for user in range(clients)
            ]
            after = parts[0]
            for part in parts[1:]:
                after = after + part
            after = stage.on_sum(after, limits, Place(Keyed(7), round, "sums"))
        for name, tensor in after.tensors.items():
            upper = np.triu_indices(4) if name == "gram" else ...
            found[name].append(np.asarray(tensor, dtype=float)[upper].ravel())
    for name, bound, share in (("table", 2, 4 / 7), ("gram", 8, 2 / 7), ("count", 100, 1 / 7)):
        deviation = stage.variance(clients) ** 0.5 * bound / share**0.5
        draws = np.concatenate(found[name])
        within_three_errors(
            draws, (deviation**2 + 1 / 12 * (clients if stage.variance(2) > 3 else 1) * (name == "count")) ** 0.5
        )


def test_noise_of_clients_grows_with_who_answers_and_the_servers_does_not():
    assert ClientNoise(2.0, floor=4).variance(4) == 4
    assert ClientNoise(2.0, floor=4).variance(8) == 8
    assert ServerNoise(2.0).variance(1) == ServerNoise(2.0).variance(100) == 4
    assert multiplier_of([Clip(), ClientNoise(3.0), ServerNoise(4.0)], 1) == 5


def test_noise_of_a_symmetric_matrix_is_symmetric_and_on_its_grid():
    after = noised(SPEC.zeros(), limits_of([Clip()], SPEC), 1.0, "test", Place(Keyed(0), 0, "sums"))
    gram = after.tensors["gram"]
    assert np.array_equal(gram, gram.T)
    assert np.array_equal(gram / UNIT, np.rint(gram / UNIT))
    assert len(np.unique(gram)) == 10
    assert after.tensors["count"].dtype == np.int64


def test_a_count_that_noise_would_overflow_is_refused():
    with pytest.raises(FederationError, match="'count' with noise does not fit int64"):
        noised(
            SPEC.zeros(), Limits({}, {"table": 1, "gram": 1, "count": 1e30}), 1.0, "test", Place(Keyed(0), 0, "sums")
        )


@pytest.mark.parametrize("stages", [[], [ServerNoise(1)], [ServerNoise(1), Clip()], [Clip(), ServerNoise(1), Clip()]])
def test_stages_that_do_not_begin_with_clipping_are_refused(stages):
    with pytest.raises(ConfigError, match="begin with Clip"):
        require_sound(stages)
    with pytest.raises(ConfigError, match="begin with Clip"):
        staged({"sums": Sums}, stages, Keyed(0))


@pytest.mark.parametrize("wrong", [0, -1, np.inf, np.nan])
def test_a_multiplier_that_is_no_positive_number_is_refused(wrong):
    for kind in (ClientNoise, ServerNoise):
        with pytest.raises(ConfigError, match="must be positive and finite"):
            kind(wrong)
    with pytest.raises(ConfigError, match="at least 1"):
        ClientNoise(1, floor=0)
    with pytest.raises(ConfigError, match="no privacy stage adds noise"):
        multiplier_of([Clip()], 3)


def test_the_shares_of_a_rounds_privacy_add_up_to_one():
    limits = limits_of([Clip(weights={"table": 8.0})], SPEC)
    assert sum((limits.bounds[name] / limits.scales[name]) ** 2 for name in SPEC.tensors) == pytest.approx(1)
    assert limits.scales["table"] == pytest.approx(2 / 0.8**0.5)
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ConfigError, match="the weight of tensor 'table'"):
            Clip(weights={"table": wrong})


def test_a_device_does_nothing_but_its_tasks_in_private():
    engine = engine_with(tasks=staged({"sums": Sums}, [Clip()], Keyed(0)))
    for task in ("sums", private_name("sums", [Clip({"table": 1.0})]), private_name("sums", [Clip(), ClientNoise(1)])):
        with pytest.raises(FederationError, match="do not know task"):
            engine.run(replace(ASKED, task=task), Broadcast(0, {}), engine.users, seed=0)
    assert private_name("sums", [Clip(), ServerNoise(2)]) == private_name("sums", [Clip()])


def test_every_client_is_clipped_by_itself_whoever_is_in_its_cohort():
    stages = [Clip({"table": 0.3, "count": 5.0})]
    found = []
    for interactions in (10**9, 30, 1):
        engine = engine_with(tasks=staged({"sums": Sums}, stages, Keyed(0)))
        engine.cohort_interactions = interactions
        found.append(
            engine.run(replace(ASKED, task=private_name("sums", stages)), Broadcast(0, {}), engine.users, seed=0)
        )
    for result in found[1:]:
        assert np.allclose(result.update.tensors["table"], found[0].update.tensors["table"], atol=1e-6)
        assert np.array_equal(result.update.tensors["gram"], found[0].update.tensors["gram"])
        clipped = sum(min(5, int(update_of(int(user)).tensors["count"])) for user in engine.users)
        assert result.update.tensors["count"] == found[0].update.tensors["count"] == clipped
        assert (result.bytes_up, result.update.clients) == (found[0].bytes_up, len(engine.users))


@pytest.mark.parametrize("clients", [None, 3])
@pytest.mark.parametrize("interactions", [10**6, 7, 1])
def test_stages_that_change_nothing_leave_update_state_journal_and_bytes_as_they_are(clients, interactions):
    engines = [
        LocalEngine(MemoryDevices(sharing(clients)), tasks, cohort_interactions=interactions)
        for tasks in (TASKS, staged({n: m for n, m in TASKS.items() if n != "read"}, [HUGE], Keyed(0)))
    ]
    names = [lambda task: task, lambda task: private_name(task, [HUGE])]
    results = []
    for engine, name in zip(engines, names, strict=True):
        for round, task in enumerate(("count", "write", "count")):
            asked = spec(task)
            results.append(engine.run(replace(asked, task=name(task)), broadcast(round), engine.users, seed=1))
    for plain, private in zip(results[:3], results[3:], strict=True):
        assert np.array_equal(plain.update.tensors["items"], private.update.tensors["items"])
        assert (plain.bytes_up, plain.bytes_down) == (private.bytes_up, private.bytes_down)
        assert plain.update.clients == private.update.clients
    mine, theirs = (engine.devices.kept("a").state for engine in engines)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    journals = [engine.devices.journals["a", 1] for engine in engines]
    columns = [
        sorted(zip(*(np.concatenate([part[n] for part in j]).tolist() for n in ("client", "item")), strict=True))
        for j in journals
    ]
    assert columns[0] == columns[1]


def test_a_single_client_of_a_cohort_is_that_client_alone():
    for dealt in (sharing(), sharing(3)):
        devices = MemoryDevices(dealt)
        whole = next(iter(devices.cohorts(spec("count"), devices.users, 10**6)))
        alone = list(devices.cohorts(spec("count"), devices.users, 1))
        assert whole.n_clients == len(alone)
        for client, wanted in enumerate(alone):
            found = single(whole, client)
            for part in ("users", "indptr", "items", "ratings"):
                assert np.array_equal(getattr(found, part), getattr(wanted, part)), part
            assert found.n_clients == 1


def test_a_message_with_noise_does_not_tell_which_rows_a_client_has():
    update = update_of(1)
    assert (update.tensors["table"] == 0).any()
    after = ClientNoise(1.0).on_client(update, limits_of([Clip()], SPEC), Place(Keyed(0), 0, "sums", 1))
    assert not (after.tensors["table"] == 0).any()
    assert isinstance(after, Update)
