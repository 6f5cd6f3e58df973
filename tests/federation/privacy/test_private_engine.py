from __future__ import annotations

import numpy as np
import pytest

from retract.errors import ConfigError, FederationError, PrivacyError
from retract.federation import Broadcast, Engine, TaskSpec, TensorSpec, UpdateSpec, sample_clients
from retract.federation.privacy import (
    Accountant,
    ClientNoise,
    Clip,
    Keyed,
    NormBound,
    PrivateEngine,
    RobustEngine,
    SecureEngine,
    SecureSums,
    ServerNoise,
    Shrink,
    Spending,
    Step,
    TrimmedMean,
    epsilon_of,
    staged,
)
from retract.federation.privacy.shrinking import shrunk
from retract.federation.privacy.stages import Place, limits_of
from tests.federation.privacy.samples import SPEC, Sums, engine_with, run


def private(stages, *, budget=1e6, participation=1.0, dropout=0.0, around=None, n_users=40):
    devices = engine_with(n_users, staged({"sums": Sums}, stages, Keyed(5)), dropout)
    inner: Engine = around(devices) if around else devices
    return PrivateEngine(inner, stages, Accountant(budget, 1e-5), Keyed(6), participation=participation)


CLIP = Clip({"table": 0.5, "gram": 0.5, "count": 3})


def test_the_sum_is_that_of_clipped_updates_with_the_servers_noise():
    engine = private([CLIP, ServerNoise(2.0)])
    found = run(engine, round=4)
    clipped = run(engine_with(tasks={"sums": staged({"sums": Sums}, [CLIP], Keyed(5))["sums " + CLIP.label]}), round=4)
    wanted = ServerNoise(2.0).on_sum(clipped.update, limits_of([CLIP], SPEC), Place(Keyed(6), 4, "sums"))
    for name in SPEC.tensors:
        assert np.array_equal(found.update.tensors[name], wanted.tensors[name])
        assert not np.array_equal(found.update.tensors[name], clipped.update.tensors[name])
    assert found.update.spec == SPEC


def test_on_the_sum_stages_run_from_last_to_first():
    noise = ServerNoise(0.01)
    plain, shrunken = (run(private(stages)).update for stages in ([CLIP, noise], [CLIP, Shrink(noise), noise]))
    limits = limits_of([CLIP], SPEC)
    wanted = shrunk(plain.tensors["gram"], 0.01 * limits.scales["gram"])
    assert np.array_equal(shrunken.tensors["gram"], wanted)
    assert not np.array_equal(wanted, plain.tensors["gram"])


def test_every_client_draws_noise_of_its_own():
    stages = [CLIP, ClientNoise(1.0)]
    clipped = run(private([CLIP, ServerNoise(1e-3)])).update.tensors["table"]
    noise = run(private(stages)).update.tensors["table"] - clipped
    clients, scale = 38, limits_of(stages, SPEC).scales["table"]
    assert 0.7 < noise.std() / scale / clients**0.5 < 1.3  # as one and the same noise it would be 6 times as much


def test_every_round_is_spent_and_the_one_beyond_the_budget_reaches_no_device():
    engine = private([CLIP, ServerNoise(2.0)], budget=6)
    rounds = max(n for n in range(1, 20) if epsilon_of(Spending(((Step(2.0), n),)), 1e-5) <= 6)
    for round in range(rounds):
        run(engine, round=round)
    with pytest.raises(PrivacyError, match="beyond the budget of 6"):
        run(engine, round=rounds)
    assert rounds == engine.traffic.rounds > 1
    assert engine.accountant.epsilon <= 6
    assert engine.accountant.spending == Spending(((Step(2.0), rounds),))


def test_a_round_that_fails_stays_spent():
    engine = private([CLIP, ServerNoise(2.0)])
    with pytest.raises(ConfigError, match="no client takes part"):
        run(engine, users=engine.users[:0])
    before = engine.accountant.epsilon
    engine.engine.tasks = {}
    with pytest.raises(FederationError, match="do not know task"):
        run(engine)
    assert engine.accountant.epsilon > before


def test_devices_that_do_not_clip_as_the_server_accounts_are_refused():
    stages = [CLIP, ServerNoise(1.0)]
    for tasks in ({"sums": Sums}, staged({"sums": Sums}, [Clip({"table": 50.0})], Keyed(0))):
        engine = PrivateEngine(engine_with(tasks=tasks), stages, Accountant(100, 1e-5), Keyed(0))
        with pytest.raises(FederationError, match="do not know task"):
            run(engine)


def test_noise_of_clients_is_accounted_by_how_many_answered():
    stages = [CLIP, ClientNoise(1.0, floor=10)]
    engine = private(stages, dropout=0.3)
    found = run(engine)
    answered = len(found.answered)
    assert 10 < answered < 40
    ((step, count),) = engine.accountant.spending.steps
    assert (step.multiplier, count) == (pytest.approx((answered / 10) ** 0.5), 1)


def test_a_sum_with_the_noise_of_too_few_is_refused():
    stages = [CLIP, ClientNoise(1.0, floor=35)]
    with pytest.raises(FederationError, match=r"clients answered and noise of 35 is needed"):
        run(private(stages, dropout=0.3))
    asks = private(stages)
    with pytest.raises(FederationError, match="34 clients are asked"):
        run(asks, users=asks.users[:34])
    assert asks.accountant.epsilon == 0


def test_sampling_counts_for_the_servers_noise_where_the_draw_is_kept_to():
    stages = [CLIP, ServerNoise(1.0)]
    engine = private(stages, participation=0.5)
    users = sample_clients(engine, 0.5, 3, 0)
    assert 0 < len(users) < len(engine.users)
    run(engine, seed=3, users=users)
    assert engine.accountant.spending == Spending(((Step(1.0, 0.5), 1),))
    with pytest.raises(FederationError, match=r"participation=0\.5"):
        run(engine, seed=3, users=users[1:])
    everyone = private([CLIP, ClientNoise(1.0)], participation=0.5)
    run(everyone, seed=3, users=users)
    assert everyone.accountant.spending.steps[0][0].sampling == 1


def test_noise_of_clients_under_a_secure_sum_is_in_the_sum_once():
    stages = [CLIP, ClientNoise(1.0, floor=30)]
    sums = SecureSums(minimum=30, bounds={"table": 20, "gram": 50, "count": 200})
    engine = private(stages, around=lambda inner: SecureEngine(inner, sums))
    plain = private(stages)
    found, wanted = run(engine), run(plain)
    assert np.allclose(found.update.tensors["table"], wanted.update.tensors["table"], atol=1e-4)
    assert np.array_equal(found.update.tensors["gram"], wanted.update.tensors["gram"])
    assert found.update.tensors["count"] == wanted.update.tensors["count"]
    assert engine.accountant.spending == plain.accountant.spending


def test_what_would_void_the_promise_is_refused():
    stages = [CLIP, ServerNoise(1.0)]
    for rule in (TrimmedMean(), NormBound(), NormBound(CLIP.bounds)):
        with pytest.raises(ConfigError, match=f"a sum of {type(rule).__name__} by more than its bound"):
            private(stages, around=lambda inner, rule=rule: RobustEngine(inner, rule))
    fixed = private(stages, around=lambda inner: RobustEngine(inner, NormBound(CLIP.bounds, medians=None)))
    assert np.allclose(run(fixed).update.tensors["table"], run(private(stages)).update.tensors["table"], atol=1e-5)
    with pytest.raises(ConfigError, match="PrivateEngine gives sums only"):
        RobustEngine(private(stages), NormBound())
    with pytest.raises(ConfigError, match="begin with Clip"):
        PrivateEngine(engine_with(), [ServerNoise(1.0)], Accountant(1, 1e-5), Keyed(0))
    with pytest.raises(ConfigError, match="no privacy stage adds noise"):
        PrivateEngine(engine_with(), [CLIP], Accountant(1, 1e-5), Keyed(0))
    with pytest.raises(ConfigError, match=r"must be in \(0, 1\]"):
        private(stages, participation=0)
    careless = PrivateEngine(engine_with(), stages, Accountant(1, 0.03), Keyed(0))
    with pytest.raises(ConfigError, match=r"delta is 0\.03 and 38 clients are asked"):
        run(careless)
    unbound = TaskSpec("tests", "sums", {}, "run", UpdateSpec({"free": TensorSpec((3,))}))
    engine = private(stages)
    with pytest.raises(ConfigError, match="'free' has no L2 bound"):
        engine.run(unbound, Broadcast(0, {}), engine.users, seed=0)
    assert engine.accountant.epsilon == 0
