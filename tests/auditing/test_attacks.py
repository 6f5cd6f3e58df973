"""Attacks against answers known beforehand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract import streams
from retract.auditing.attacks import (
    ATTACKS,
    SCORE,
    AttackType,
    LearnedAttack,
    attack_names,
    attack_type,
    auc,
    look,
    mean_score,
    run_attack,
)
from retract.auditing.targets import _matched, choose_targets
from retract.data import Interactions
from retract.errors import ConfigError
from tests.samples import numbered_catalog, random_interactions

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=20)


class Memory:
    """Scores a pair 1 where it was told of it, else a little noise."""

    def __init__(self, told: Interactions, seed: int = 0) -> None:
        noise = np.random.default_rng(seed).normal(0, 0.1, (told.n_users, told.n_items))
        self.table = (noise + told.csr().toarray()).astype(np.float32)

    def scores(self, users, history):
        return self.table[users]


@given(SCORES, SCORES)
def test_auc_is_the_part_of_pairs_in_order_ties_half(members, others):
    n = min(len(members), len(others))
    a, b = np.array(members[:n], dtype=float), np.array(others[:n], dtype=float)
    slow = np.mean([1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b])
    assert auc(a, b, np.arange(n)).value == pytest.approx(slow)


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says_and_is_wider_where_users_are_few():
    draw = np.random.default_rng(0)
    inside, widths = 0, {1: 0.0, 10: 0.0}
    for _ in range(300):
        for per_user in widths:
            shift = np.repeat(draw.normal(0, 1, 200 // per_user), per_user)  # pairs of a user rise and fall together
            a, b = shift + draw.normal(0, 0.3, 200), draw.normal(0, 1, 200)
            found = auc(a, b, np.repeat(np.arange(200 // per_user), per_user))
            widths[per_user] += found.high - found.low
            inside += per_user == 1 and found.low <= 0.5 <= found.high
    assert 0.91 <= inside / 300 <= 0.99
    assert widths[10] > 1.5 * widths[1]


def test_one_user_alone_gives_no_interval():
    found = auc(np.array([3.0, 2.0]), np.array([1.0, 2.5]), np.array([4, 4]))
    assert (found.value, found.low, found.high) == (0.75, 0.0, 1.0)


def test_nothing_to_attack_is_a_guess():
    none = np.empty(0)
    assert auc(none, none, np.empty(0, dtype=np.int64)).value == 0.5


def test_others_are_untouched_of_like_popularity_and_each_taken_once():
    held, test = random_interactions(3, 40, 60, 0.2), random_interactions(4, 40, 60, 0.02)
    test = Interactions.of(held.catalog, test.users, test.items) - held
    forget = held.of_users(np.arange(10))
    targets = choose_targets(forget, held, test, 0)
    others = Interactions.of(held.catalog, targets.users, targets.others)
    assert len(others) == len(targets.members)
    assert not len(others & (held | test))
    popularity = (held - forget).item_degrees()
    apart = popularity[targets.members.items] - popularity[targets.others]
    assert abs(apart.mean()) < 1 < popularity.std()


def test_the_match_is_the_nearest_free_item_and_who_comes_first_takes_it():
    """Beside the fast search, the rule itself: distance by distance, side by side, pair by pair."""
    held = random_interactions(7, 12, 25, 0.4)
    members, popularity = held.of_users([0, 3, 5]), held.item_degrees()
    order = np.lexsort((streams.bits(0, 0, np.arange(25), "popularity ties"), popularity)).tolist()
    side = 1 - 2 * streams.below(2, 0, 0, members.users, "nearer side", members.items)
    slow, taken = np.full(len(members), -1), set(zip(held.users.tolist(), held.items.tolist(), strict=True))
    for distance, sign in product(range(1, 14), (1, -1)):
        for pair, (user, item) in enumerate(zip(members.users.tolist(), members.items.tolist(), strict=True)):
            at = order.index(item) + sign * side[pair] * distance
            if slow[pair] < 0 and 0 <= at < 25 and (user, order[at]) not in taken:
                slow[pair] = order[at]
                taken.add((user, order[at]))
    assert _matched(members, held, popularity, 0).tolist() == slow.tolist()


def test_of_users_who_keep_nothing_half_is_known_and_half_is_attacked():
    held = random_interactions(3, 40, 60, 0.3)
    targets = choose_targets(held.of_users([0, 1]), held, Interactions.empty(held.catalog), 0)
    told = targets.known.of_users([0, 1])
    assert len(told) + len(targets.members) <= len(held.of_users([0, 1]))
    assert len(told) > 0
    assert len(targets.members) > 0
    assert not len(told & targets.members)


def test_a_user_who_has_touched_everything_has_no_match_and_is_left_out():
    catalog = numbered_catalog(2, 4)
    held = Interactions.of(catalog, [0, 0, 0, 0, 1], [0, 1, 2, 3, 0])
    targets = choose_targets(held.of_users([0]), held, Interactions.empty(catalog), 0)
    assert len(targets.members) == 0


def test_what_is_seen_of_a_model_is_the_standardised_score_and_the_place_of_each_pair():
    held = random_interactions(5, 20, 30, 0.3)
    forget = held.of_users([2, 3])
    targets = choose_targets(forget, held, Interactions.empty(held.catalog), 0)
    model = Memory(held)
    seen = look({"memory": model}, targets)
    for n, (user, item, other) in enumerate(zip(targets.users, targets.members.items, targets.others, strict=True)):
        scores = model.table[user].astype(np.float64)
        for side, chosen in enumerate((item, other)):
            assert seen.scores[side, 0, n] == pytest.approx((scores[chosen] - scores.mean()) / scores.std(), abs=1e-6)
            assert seen.ranks[side, 0, n] == pytest.approx((scores > scores[chosen]).sum() / (len(scores) - 1))
    assert auc(*seen.scores[:, 0], targets.users).value > 0.99


def test_the_learned_attack_finds_memory_that_taste_hides():
    """Scores differ by taste ten times as much as by membership; only the difference from a shadow model shows it."""
    draw = np.random.default_rng(1)

    def world(member: bool, n: int = 400):
        taste = draw.normal(0, 10, (2, 1, n))
        told = np.stack([np.full((1, n), float(member)), np.zeros((1, n))])
        return taste + told + draw.normal(0, 0.5, taste.shape), taste + draw.normal(0, 0.5, taste.shape)

    attack = LearnedAttack([world(True), world(True)])
    users = np.arange(400)
    assert auc(*world(True)[0][:, 0], users).value < 0.6
    assert auc(*attack.scores(*world(True)), users).value > 0.8
    assert auc(*attack.scores(*world(False)), users).value == pytest.approx(0.5, abs=0.05)


def test_the_mean_score_is_over_the_pairs_named():
    held = random_interactions(5, 20, 30, 0.3)
    model = Memory(held)
    users, items = np.array([3, 1, 3]), np.array([2, 5, 2])
    expected = (1 / (1 + np.exp(-model.table[[3, 1, 3], [2, 5, 2]]))).mean()
    assert mean_score(model, users, items, held) == pytest.approx(float(expected), abs=1e-6)


def seen_of(model: Memory, held: Interactions, forget: Interactions):
    targets = choose_targets(forget, held, Interactions.empty(held.catalog), 0)
    return targets, look({"memory": model, "noise": Memory(held - forget, 5)}, targets)


def test_our_own_attacks_are_found_by_name_and_read_the_first_view():
    held = random_interactions(5, 20, 30, 0.3)
    targets, seen = seen_of(Memory(held), held, held.of_users([2, 3]))
    assert attack_names()[:3] == list(ATTACKS) == ["score", "rank", "learned"]
    for name, values in (("score", seen.scores[:, 0]), ("rank", -seen.ranks[:, 0])):
        found = run_attack(attack_type(name), targets, seen, None)
        assert np.array_equal(found, values)
        assert found is not None
        assert auc(*found, targets.users).value > 0.9
    assert run_attack(attack_type("learned"), targets, seen, None) is None  # there are no shadow models


def test_an_attack_of_another_package_is_found_by_its_name_and_reads_whatever_is_seen(install):
    install("retract.attacks", second="tests.auditing.plugged:SECOND")
    held = random_interactions(5, 20, 30, 0.3)
    targets, seen = seen_of(Memory(held), held, held.of_users([2, 3]))
    assert attack_names() == [*ATTACKS, "second"]
    assert np.array_equal(run_attack(attack_type("second"), targets, seen, None), seen.scores[:, 1])


@pytest.mark.parametrize(
    "gives", [lambda n: np.zeros(n), lambda n: np.zeros((2, n + 1)), lambda n: np.full((2, n), np.nan)]
)
def test_an_attack_that_gives_no_score_for_every_pair_is_refused(gives):
    held = random_interactions(5, 20, 30, 0.3)
    targets, seen = seen_of(Memory(held), held, held.of_users([2, 3]))
    broken = AttackType("broken", lambda: lambda targets, seen, shadows: gives(len(targets.users)))
    with pytest.raises(ConfigError, match="attack 'broken' gave"):
        run_attack(broken, targets, seen, None)


def test_what_is_no_attack_is_refused_and_our_own_names_are_not_taken(install):
    room = "tests.auditing.plugged"
    install("retract.attacks", second=f"{room}:SecondView", score=f"{room}:SECOND", gone=f"{room}:GONE")
    assert attack_type("score") is SCORE
    with pytest.raises(ConfigError, match="'second' is plugged in as type: it must be an AttackType"):
        attack_type("second")
    with pytest.raises(ConfigError, match=r"'gone' is plugged in as .* and cannot be loaded"):
        attack_type("gone")
    with pytest.raises(ConfigError, match="unknown attack 'magic'; known attacks: gone, learned, rank, score, second"):
        attack_type("magic")
