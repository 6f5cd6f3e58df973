from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from retract.auditing.attacks import AUC, auc
from retract.auditing.verdict import Difference, Evidence, Verdict, difference, judged, relative, useful


def attack(seed: int, n_users: int = 40, lead: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Scores of members and others, and users of some pairs each, whose pairs go together."""
    draw = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), draw.integers(1, 6, n_users))
    scores = draw.normal(size=(2, len(users))) + draw.normal(size=n_users)[users]
    scores[0] += lead
    return scores, users


def slow_auc(scores: np.ndarray) -> float:
    members, others = scores
    wins = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    return float(wins.mean())


@given(st.integers(0, 200))
def test_a_difference_is_that_of_the_two_aucs_and_turns_its_sign_with_its_sides(seed: int) -> None:
    one, users = attack(seed)
    other = np.random.default_rng(seed).normal(size=one.shape).round(1)
    there, back = difference(one, other, users), difference(other, one, users)
    assert there.value == pytest.approx(slow_auc(one) - slow_auc(other))
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))


def test_beside_guessing_the_interval_is_that_of_the_auc_with_students_quantile() -> None:
    one, users = attack(3)
    gap, alone = difference(one, np.zeros_like(one), users), auc(one[0], one[1], users)
    assert gap.value == pytest.approx(alone.value - 0.5)
    wider = student.ppf(0.95, len(np.unique(users)) - 1) / 1.96
    assert gap.half == pytest.approx(wider * (alone.high - alone.low) / 2)


@pytest.mark.slow
def test_the_interval_is_as_wide_as_resampling_users_makes_it() -> None:
    one, users = attack(5, n_users=150)
    other = one + np.random.default_rng(6).normal(size=one.shape)
    draw, rows = np.random.default_rng(7), [np.flatnonzero(users == user) for user in range(150)]
    resampled = []
    for _ in range(400):
        at = np.concatenate([rows[user] for user in draw.integers(0, 150, 150)])
        resampled.append(slow_auc(one[:, at]) - slow_auc(other[:, at]))
    assert difference(one, other, users).half == pytest.approx(1.645 * np.std(resampled), rel=0.15)


def test_what_both_attacks_find_alike_about_a_user_cancels() -> None:
    one, users = attack(8, n_users=400)
    nearly = one + 1e-3 * np.random.default_rng(9).normal(size=one.shape)
    alone = auc(one[0], one[1], users)
    assert difference(one, nearly, users).half < 0.1 * (alone.high - alone.low)


@given(st.integers(2, 60))
def test_that_few_users_agree_is_no_certainty_and_fewer_users_never_make_it_easier(n_users: int) -> None:
    one, users = attack(8, n_users=n_users)
    gap = difference(one, one.copy(), users)
    assert (gap.value, gap.low, gap.high) == (0, -1 / n_users, 1 / n_users)
    assert gap.within(0.05) == (n_users >= 20)


def test_from_one_user_nothing_can_be_told() -> None:
    one, _ = attack(1, n_users=9)
    gap = difference(one, np.zeros_like(one), np.zeros(one.shape[1], dtype=np.int64))
    assert (gap.low, gap.high) == (-1, 1)
    said = verdict(gap, gap, users=1)
    assert (said.word, said.reason, said.users_needed) == ("cannot be told", "not enough data", None)
    assert said.text == (
        "Cannot be told: a single user withdrew, and the AUC of a single user may be anything from 0 to 1. "
        "The attack has AUC 0.55 (0.50–0.60), beside 0.53 (0.49–0.57) in a model trained without the data."
    )


SEEN = Difference(0.3, 0.25, 0.35)
SAYS = "AUC 0.55 (0.50–0.60), beside 0.53 (0.49–0.57) in a model trained without the data"


def verdict(
    after: Difference, before: Difference = SEEN, users: int = 50, parameters: tuple[float, float] | None = None
) -> Verdict:
    """Of made-up attacks with these differences."""
    found = AUC(0.83, 0.80, 0.86), AUC(0.55, 0.50, 0.60), AUC(0.53, 0.49, 0.57)
    return judged(Evidence(*found, after, before, users, parameters=parameters))


@pytest.mark.parametrize(
    ("after", "before", "word", "reason"),
    [
        (Difference(0.01, -0.02, 0.04), SEEN, "forgotten", "like the oracle"),
        (Difference(0.0, -0.05, 0.05), SEEN, "forgotten", "like the oracle"),
        (Difference(0.0, -0.051, 0.05), SEEN, "cannot be told", "not enough data"),
        (Difference(0.3, 0.25, 0.35), SEEN, "not yet", "still there"),
        (Difference(-0.2, -0.26, -0.14), SEEN, "not yet", "over-forgot"),
        (Difference(0.04, 0.0, 0.08), SEEN, "cannot be told", "not enough data"),
        (Difference(0.0, -0.01, 0.01), Difference(0.02, -0.05, 0.09), "cannot be told", "attack sees nothing"),
        (Difference(0.0, -0.01, 0.01), Difference(0.03, 0.02, 0.04), "cannot be told", "attack sees nothing"),
        (Difference(0.3, 0.2, 0.4), Difference(0.0, -0.3, 0.3), "not yet", "still there"),
    ],
)
def test_the_rule_goes_by_whole_intervals_and_asks_whether_the_attack_sees_at_all(
    after: Difference, before: Difference, word: str, reason: str
) -> None:
    said = verdict(after, before)
    assert (said.word, said.reason) == (word, reason)
    assert said.text.lower().startswith(word)
    assert SAYS in said.text or "AUC 0.83 (0.80–0.86), beside 0.53 (0.49–0.57)" in said.text


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ((1e-3, 1e-13), "same parameters"),
        ((0.0, 0.0), "same parameters"),
        ((1e-3, 1e-5), "not enough data"),
        ((1e-7, 1e-7), "not enough data"),  # one user of very many: doing nothing is as near
        (None, "not enough data"),
    ],
)
def test_the_parameters_of_the_oracle_decide_alone_even_for_a_single_user(
    parameters: tuple[float, float] | None, reason: str
) -> None:
    said = verdict(Difference(0.0, -1, 1), Difference(0.0, -1, 1), users=1, parameters=parameters)
    assert said.reason == reason


def test_equal_parameters_are_no_excuse_for_what_an_attack_finds_elsewhere() -> None:
    assert verdict(Difference(0.3, 0.25, 0.35), parameters=(1e-3, 0.0)).word == "not yet"


def test_the_distance_to_the_oracle_is_told() -> None:
    said = verdict(Difference(0.0, -0.1, 0.1), parameters=(1e-3, 3e-13)).text
    assert said.startswith("Forgotten: the parameters are those of a model trained without the data, to 3e-13.")


def test_it_says_how_many_users_would_do() -> None:
    undecided = verdict(Difference(0.01, -0.07, 0.09))
    assert undecided.users_needed == 200  # half the interval must shrink from 0.08 to 0.04: four times the users
    assert "About 200 users who withdraw would probably do instead of 50" in undecided.text
    blind = verdict(Difference(0.0, -0.1, 0.1), Difference(0.1, -0.1, 0.3))
    assert blind.users_needed == 200
    hopeless = verdict(Difference(0.05, -0.05, 0.15))
    assert hopeless.users_needed is None


def test_without_an_oracle_nothing_can_be_judged_but_that_scores_did_not_move() -> None:
    def alone(before: tuple[float, float], after: tuple[float, float], moved: float | None) -> Verdict:
        return judged(Evidence(AUC(0.6, *before), AUC(0.6, *after), None, None, None, 50, moved=moved))

    still = alone((0.7, 0.8), (0.7, 0.8), 0.0)
    assert (still.word, still.reason) == ("not yet", "scores as before")
    for before, after, why in (
        ((0.7, 0.8), (0.7, 0.8), "like such items anyway"),
        ((0.7, 0.8), (0.45, 0.55), "pushed them down without forgetting"),
        ((0.45, 0.55), (0.45, 0.55), "even before"),
    ):
        for moved in (0.5, None):
            said = alone(before, after, moved)
            assert (said.word, said.reason) == ("cannot be told", "no oracle")
            assert said.text.startswith("Cannot be told without a model trained without the data: add --oracle.")
            assert why in said.text


def test_usefulness_is_judged_from_both_sides_and_by_users() -> None:
    draw = np.random.default_rng(0)
    oracle = draw.uniform(0, 1, 2000)
    for factor, says in ((1.0, "as useful"), (0.8, "less useful"), (1.1, "more useful"), (1.04, "as useful")):
        assert useful(relative(factor * oracle, oracle)) == says
    noisy = draw.permutation(oracle)
    assert useful(relative(noisy[:15], oracle[:15])) == "not enough data"
    assert useful(relative(np.zeros(0), np.zeros(0))) == useful(relative(oracle, 0 * oracle)) == "not measured"
