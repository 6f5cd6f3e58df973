from __future__ import annotations

import builtins
import json

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st

from retract.errors import ConfigError, MissingExtraError, PrivacyError
from retract.federation.privacy import Accountant, Spending, Step, epsilon_of


def test_epsilon_is_that_of_dp_accounting():
    event = dp_accounting.ComposedDpEvent(
        [
            dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(1.5), 8),
            dp_accounting.SelfComposedDpEvent(
                dp_accounting.PoissonSampledDpEvent(0.25, dp_accounting.GaussianDpEvent(2.0)), 6
            ),
        ]
    )
    accountant = Accountant(1000, 1e-5)
    for _ in range(8):
        accountant.spend(Step(1.5))
    for _ in range(6):
        accountant.spend(Step(2.0, 0.25))
    assert accountant.epsilon == RdpAccountant().compose(event).get_epsilon(1e-5)
    assert accountant.epsilon == epsilon_of(accountant.spending, 1e-5)


def test_nothing_spent_is_epsilon_zero_and_sampling_spends_less():
    assert Accountant(1, 1e-5).epsilon == 0
    whole, sampled = (epsilon_of(Spending().after(Step(2.0, part)), 1e-5) for part in (1.0, 0.1))
    assert 0 < sampled < whole / 2


def test_the_round_that_would_exceed_the_budget_is_refused_and_nothing_is_spent_by_it():
    one = epsilon_of(Spending().after(Step(2.0)), 1e-5)
    accountant = Accountant(one * 1.2, 1e-5)
    accountant.spend(Step(2.0))
    before = accountant.spending, accountant.epsilon
    with pytest.raises(
        PrivacyError, match=r"from 2\.\d+ to 3\.\d+ at delta=1e-05, beyond the budget of 2\.\d+: nothing was sent"
    ):
        accountant.spend(Step(2.0))
    assert (accountant.spending, accountant.epsilon) == before
    accountant.spend(Step(50.0))
    assert accountant.epsilon > before[1]


def test_a_budget_that_is_spent_already_stays_spent_after_a_resume():
    first = Accountant(5, 1e-5)
    for _ in range(3):
        first.spend(Step(3.0))
    kept = json.loads(json.dumps(dict(first.state)))
    second = Accountant(5, 1e-5, Spending.of(kept["spent"]))
    assert second.epsilon == first.epsilon == kept["epsilon"]
    with pytest.raises(PrivacyError, match="beyond the budget"):
        Accountant(first.epsilon, 1e-5, first.spending).spend(Step(3.0))


def test_what_is_spent_is_laid_down_before_the_round_and_where_that_fails_nothing_is_spent():
    laid = []
    accountant = Accountant(10, 1e-5, keep=laid.append)
    accountant.spend(Step(2.0))
    accountant.correct(Step(3.0), Step(2.0))
    assert laid == [Spending(((Step(2.0), 1),)), Spending(((Step(3.0), 1),))]

    def full(spending: Spending) -> None:
        raise OSError("disk full")

    accountant = Accountant(10, 1e-5, keep=full)
    with pytest.raises(OSError, match="disk full"):
        accountant.spend(Step(2.0))
    assert accountant.epsilon == 0


@given(st.lists(st.tuples(st.sampled_from([0.5, 1.0, 7.25]), st.sampled_from([0.1, 1.0])), max_size=12), st.randoms())
def test_spending_survives_json_and_does_not_depend_on_the_order_of_steps(steps, random):
    spending = Spending()
    for step in steps:
        spending = spending.after(Step(*step))
    other = Spending()
    for step in random.sample(steps, len(steps)):
        other = other.after(Step(*step))
    assert spending == other == Spending.of(json.loads(json.dumps(spending.plain)))


@pytest.mark.parametrize(
    "plain", [None, 3, "abc", [[1.0]], [[0.0, 1.0, 1]], [[1.0, 2.0, 1]], [[1, 1, 0]], [[1, 1, 1.5]], {"a": 1}]
)
def test_a_record_of_spending_that_cannot_be_read_is_refused(plain):
    with pytest.raises(PrivacyError, match="cannot be read"):
        Spending.of(plain)


def test_a_step_may_turn_out_to_have_more_noise_and_not_less():
    accountant = Accountant(100, 1e-5)
    accountant.spend(Step(1.0))
    spent = accountant.epsilon
    accountant.correct(Step(2.0), Step(1.0))
    assert accountant.spending == Spending(((Step(2.0), 1),))
    assert accountant.epsilon < spent
    with pytest.raises(PrivacyError, match="less noise"):
        accountant.correct(Step(1.0), Step(2.0))


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0, 1e-5), (-1, 1e-5), (float("inf"), 1e-5), (float("nan"), 0.1), (1, 0), (1, 1)]
)
def test_a_budget_or_a_delta_out_of_range_is_refused(epsilon, delta):
    with pytest.raises(ConfigError):
        Accountant(epsilon, delta)


@pytest.mark.parametrize("step", [(0, 1), (-1, 1), (float("nan"), 1), (1, 0), (1, 1.1), (1, -0.1)])
def test_a_step_out_of_range_is_refused(step):
    with pytest.raises(ConfigError):
        Step(*step)


def test_without_dp_accounting_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name.startswith("dp_accounting"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"retract\[privacy\]"):
        Accountant(1, 1e-5)
