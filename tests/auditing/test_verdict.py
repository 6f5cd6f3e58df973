from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from retract.auditing.attacks import auc
from retract.auditing.verdict import Difference, difference, with_oracle, without_oracle


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
    wider = student.ppf(0.975, len(np.unique(users)) - 1) / 1.96
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
    assert difference(one, other, users).half == pytest.approx(1.96 * np.std(resampled), rel=0.15)


def test_what_both_attacks_find_alike_about_a_user_cancels() -> None:
    one, users = attack(8)
    nearly = one + 1e-3 * np.random.default_rng(9).normal(size=one.shape)
    alone = auc(one[0], one[1], users)
    assert difference(one, nearly, users).half < 0.1 * (alone.high - alone.low)
    assert difference(one, one.copy(), users) == Difference(0.0, 0.0, 0.0)


def test_from_one_user_nothing_can_be_told() -> None:
    one, _ = attack(1, n_users=9)
    gap = difference(one, np.zeros_like(one), np.zeros(one.shape[1], dtype=np.int64))
    assert (gap.low, gap.high) == (-1, 1)
    said = with_oracle(gap, gap, 1, 0.05)
    assert (said.word, said.users_needed) == ("cannot be told", None)


SEEN = Difference(0.3, 0.25, 0.35)


@pytest.mark.parametrize(
    ("after", "before", "word", "why"),
    [
        (Difference(0.01, -0.02, 0.04), SEEN, "forgotten", "like the retrained model"),
        (Difference(0.0, 0.0, 0.0), SEEN, "forgotten", "before it was +0.300"),
        (Difference(0.3, 0.25, 0.35), SEEN, "not forgotten", "still stands out"),
        (Difference(-0.2, -0.26, -0.14), SEEN, "not forgotten", "shuns"),
        (Difference(0.04, 0.0, 0.08), SEEN, "cannot be told", "neither within"),
        (Difference(0.0, -0.01, 0.01), Difference(0.02, -0.05, 0.09), "cannot be told", "even the model before"),
        (Difference(0.0, -0.01, 0.01), Difference(0.03, 0.02, 0.04), "cannot be told", "even the model before"),
        (Difference(0.3, 0.2, 0.4), Difference(0.0, -0.3, 0.3), "not forgotten", "still stands out"),
    ],
)
def test_the_rule_goes_by_whole_intervals_and_asks_whether_the_attack_sees_at_all(
    after: Difference, before: Difference, word: str, why: str
) -> None:
    said = with_oracle(after, before, 50, 0.05)
    assert said.word == word
    assert why in said.text


def test_it_says_how_many_users_would_do() -> None:
    undecided = with_oracle(Difference(0.01, -0.07, 0.09), SEEN, 50, 0.05)
    assert undecided.users_needed == 200  # half the interval must shrink from 0.08 to 0.04: four times the users
    assert "About 200 users" in undecided.text
    blind = with_oracle(Difference(0.0, -0.1, 0.1), Difference(0.1, -0.1, 0.3), 50, 0.05)
    assert blind.users_needed == 200
    hopeless = with_oracle(Difference(0.05, -0.05, 0.15), SEEN, 50, 0.05)
    assert hopeless.users_needed is None


def test_without_an_oracle_only_scores_that_did_not_move_are_a_verdict() -> None:
    assert without_oracle((0.7, 0.8), (0.7, 0.8), moved=0.0).word == "not forgotten"
    for before, after, why in (
        ((0.7, 0.8), (0.7, 0.8), "like such items anyway"),
        ((0.7, 0.8), (0.45, 0.55), "pushed them down without forgetting"),
        ((0.45, 0.55), (0.45, 0.55), "even before"),
    ):
        said = without_oracle(before, after, moved=0.5)
        assert said.word == "cannot be told"
        assert why in said.text
        assert "oracle" in said.text
