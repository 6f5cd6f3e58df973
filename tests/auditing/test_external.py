"""The audit of score functions, on models whose memory is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from retract import streams
from retract.auditing.external import audit_scores, evaluate_scores
from retract.auditing.ground import gather
from retract.data import Interactions, split_per_user
from retract.errors import ConfigError, DataError, UnknownIdError
from tests.auditing.worlds import clustered

Function = Callable[[Sequence[Any], Sequence[Any]], np.ndarray]
EVERYTHING = clustered(120, 90).interactions


def withdrawn(n_users: int = 60, everything: Interactions = EVERYTHING) -> tuple[Interactions, Interactions]:
    """A third of what some users hold, and what is left."""
    some = streams.uniform(3, 0, everything.users, "withdrawn", everything.items) < 1 / 3
    forget = everything.where(some & (everything.users < n_users))
    return forget, everything - forget


FORGET, LEFT = withdrawn()


def remembers(learnt: Interactions, by: float = 1.5, seed: int = 0) -> Function:
    """Taste that is the same in all models, noise of this one, and `by` for what it learnt."""
    n_users, n_items = learnt.n_users, learnt.n_items
    taste = np.random.default_rng(99).normal(size=(n_users, n_items))
    table = taste + 0.1 * np.random.default_rng(seed).normal(size=(n_users, n_items))
    table[learnt.users, learnt.items] += by

    def scores(users: Sequence[Any], items: Sequence[Any]) -> np.ndarray:
        rows, columns = ([int(str(name).lstrip("ui")) for name in ids] for ids in (users, items))
        return table[np.ix_(rows, columns)]

    return scores


BEFORE, RETRAINED, ORACLE = remembers(EVERYTHING), remembers(LEFT, seed=1), remembers(LEFT, seed=2)


def test_a_model_left_as_it_was_has_not_forgotten_and_a_retrained_one_has() -> None:
    left_alone = audit_scores(BEFORE, BEFORE, oracle=ORACLE, forget=FORGET, history=LEFT)
    assert left_alone.verdict.word == "not yet"
    assert left_alone.ks_after == left_alone.ks_before > 0.3
    assert left_alone.difference_auc == 0.5
    retrained = audit_scores(BEFORE, RETRAINED, oracle=ORACLE, forget=FORGET, history=LEFT)
    assert retrained.verdict.word == "forgotten"
    assert retrained.after_gap is not None
    assert retrained.after_gap.within(0.05)
    assert retrained.ks_after < 0.1
    assert retrained.difference_auc > 0.9
    assert not retrained.notes


def test_a_model_that_shuns_what_was_withdrawn_has_not_forgotten_either() -> None:
    table = remembers(FORGET, by=-3.0)
    audit = audit_scores(BEFORE, table, oracle=ORACLE, forget=FORGET, history=LEFT)
    assert audit.verdict.word == "not yet"
    assert "shuns" in audit.verdict.text


def test_an_attack_that_sees_nothing_shows_nothing() -> None:
    audit = audit_scores(remembers(EVERYTHING, by=0.0), RETRAINED, oracle=ORACLE, forget=FORGET, history=LEFT)
    assert audit.verdict.word == "cannot be told"
    assert "finds nothing even before" in audit.verdict.text


def test_few_users_give_no_verdict_and_hear_how_many_would_do() -> None:
    forget, left = withdrawn(n_users=6)
    after, oracle = remembers(left, by=1.4, seed=4), remembers(left, by=1.5, seed=5)
    audit = audit_scores(remembers(EVERYTHING, 4), after, oracle=oracle, forget=forget, history=left, margin=0.005)
    assert audit.verdict.word == "cannot be told"
    assert audit.verdict.users_needed is None or audit.verdict.users_needed > 6


def test_without_an_oracle_it_says_no_more_than_it_can() -> None:
    left_alone = audit_scores(BEFORE, BEFORE, forget=FORGET, history=LEFT)
    assert left_alone.verdict.word == "not yet"
    retrained = audit_scores(BEFORE, RETRAINED, forget=FORGET, history=LEFT)
    assert retrained.verdict.word == "cannot be told"
    assert (retrained.oracle, retrained.after_gap, retrained.ks_after) == (None, None, None)
    assert "oracle" in retrained.verdict.text


def test_the_figures_are_those_of_a_slow_reading_of_the_whole_lists() -> None:
    audit = audit_scores(BEFORE, RETRAINED, oracle=ORACLE, forget=FORGET, history=LEFT)
    users, items = EVERYTHING.catalog.user_ids.tolist(), EVERYTHING.catalog.item_ids.tolist()
    targets = gather(FORGET, LEFT, None).targets(0)
    names = targets.members.catalog
    table = BEFORE(users, items)
    lead, places, chances = [], [], []
    for user, member, other in zip(targets.users, targets.members.items, targets.others, strict=True):
        row = table[users.index(names.user_ids[user])]
        one, two = (row[items.index(names.item_ids[item])] for item in (member, other))
        lead.append(((one - row.mean()) / row.std(), (two - row.mean()) / row.std()))
        places.append((row > one).sum() / (len(row) - 1))
        chances.append(1 / (1 + np.exp(-one)))
    members, others = np.array(lead).T
    assert audit.before.attack_auc == pytest.approx((members[:, None] > others).mean())
    assert audit.before.rank_mean == pytest.approx(np.mean(places))
    after = RETRAINED(users, items)
    rows = [users.index(names.user_ids[user]) for user in targets.users]
    columns = [items.index(names.item_ids[item]) for item in targets.members.items]
    now = np.mean(1 / (1 + np.exp(-after[rows, columns])))
    assert audit.after.mi_bf == pytest.approx(np.mean(chances) / now)


def test_only_the_order_within_a_users_list_and_its_distances_count() -> None:
    def stretched(users: Sequence[Any], items: Sequence[Any]) -> np.ndarray:
        factors = np.array([1.0 + int(str(user).lstrip("u")) for user in users])[:, None]
        return 100 * factors * RETRAINED(users, items) + 7 * factors

    plain = audit_scores(BEFORE, RETRAINED, oracle=ORACLE, forget=FORGET, history=LEFT)
    other = audit_scores(BEFORE, stretched, oracle=ORACLE, forget=FORGET, history=LEFT)
    assert other.after.attack_auc == pytest.approx(plain.after.attack_auc)
    assert other.after.rank_mean == pytest.approx(plain.after.rank_mean)
    assert other.verdict.word == plain.verdict.word
    assert plain.after.mi_bf is not None
    assert other.after.mi_bf is None, "σ of scores on other scales compares nothing"


@pytest.mark.parametrize("kind", ["pandas", "polars", "lazy", "csr", "file", "interactions"])
def test_data_comes_in_any_form_and_a_function_is_asked_by_the_ids_that_the_data_has(kind: str, tmp_path: Any) -> None:
    asked: set[type] = set()

    def listening(users: Sequence[Any], items: Sequence[Any]) -> np.ndarray:
        asked.update(type(name) for name in (*users, *items))
        return BEFORE(users, items)

    def told(pairs: Interactions) -> object:
        columns = {"user": pairs.users, "item": pairs.items}
        match kind:
            case "pandas":
                return pd.DataFrame(columns)
            case "polars":
                return pl.DataFrame(columns)
            case "lazy":
                return pl.LazyFrame(columns)
            case "csr":
                return pairs.csr()
            case "file":
                path = tmp_path / f"{len(pairs)}.csv"
                pl.DataFrame(columns).write_csv(path)
                return path
        return pairs

    audit = audit_scores(listening, BEFORE, oracle=ORACLE, forget=told(FORGET), history=told(LEFT))
    assert asked == {str if kind in ("file", "interactions") else int}
    assert audit.verdict.word == "not yet"
    assert audit.forgotten == len(FORGET)


def test_numbers_in_one_source_and_text_in_the_other_are_the_same_ids() -> None:
    forget = pd.DataFrame({"user": FORGET.users, "item": FORGET.items})
    history = pd.DataFrame({"user": LEFT.users.astype(str), "item": LEFT.items.astype(str)})
    asked: list[Any] = []

    def listening(users: Sequence[Any], items: Sequence[Any]) -> np.ndarray:
        asked.extend([*users, *items])
        return BEFORE(users, items)

    assert audit_scores(listening, BEFORE, forget=forget, history=history).users == 60
    assert {type(name) for name in asked} == {int}


def test_without_a_history_others_are_drawn_and_it_says_so() -> None:
    items = EVERYTHING.catalog.item_ids.tolist()
    audit = audit_scores(BEFORE, RETRAINED, oracle=ORACLE, forget=FORGET, items=items)
    assert audit.matched == "random"
    assert "could not be matched by popularity" in audit.notes[0]
    assert audit.attacked == len(FORGET)
    targets = gather(FORGET, None, None, [items]).targets(0)
    pairs = set(zip(targets.users.tolist(), targets.others.tolist(), strict=True))
    assert len(pairs) == len(FORGET), "each once"
    keys = set(zip(targets.members.users.tolist(), targets.members.items.tolist(), strict=True))
    assert not pairs & keys


def test_what_a_model_does_not_know_stands_last_and_is_counted() -> None:
    gone, stranger = FORGET.items[0], FORGET.users[-1]

    def oracle(users: Sequence[Any], items: Sequence[Any]) -> np.ndarray:
        scores = ORACLE(users, items)
        scores[:, [item == f"i{gone}" for item in items]] = np.nan
        scores[[user == f"u{stranger}" for user in users]] = np.nan
        return scores

    audit = audit_scores(BEFORE, RETRAINED, oracle=oracle, forget=FORGET, history=LEFT)
    place = np.flatnonzero((FORGET.items == gone) & (FORGET.users != stranger))
    assert any("does not know 1 of the users" in note for note in audit.notes)
    assert any(f"no score for {len(place)} " in note for note in audit.notes)
    ranks = audit.ranks["oracle"]
    members = gather(FORGET, LEFT, None).targets(0).members
    codes = members.catalog.item_ids[members.items] == f"i{gone}"
    own = members.catalog.user_ids[members.users] == f"u{stranger}"
    assert (ranks[codes & ~own] > 0.99).all()
    assert (ranks[own] == 0.5).all(), "to a stranger all items are alike"


def test_utility_is_measured_where_something_was_held_out() -> None:
    train, test = split_per_user(EVERYTHING, 0.2, 0)
    forget, left = withdrawn(everything=train)
    blind, seeing = remembers(left), remembers(left | test)
    audit = audit_scores(blind, seeing, forget=forget, history=left, test=test)
    assert audit.after.to_json()["recall@20"] > audit.before.to_json()["recall@20"] + 0.2
    heads, rows = audit.table()
    assert heads == ["", "before", "after"]
    assert any("Recall@20" in row[0] for row in rows)
    assert audit_scores(blind, seeing, forget=forget, history=left).after.recall is None


def test_the_result_is_one_json_object() -> None:
    told = audit_scores(BEFORE, RETRAINED, oracle=ORACLE, forget=FORGET, history=LEFT).to_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["verdict"] == "forgotten"
    assert set(told["difference"]) == {"value", "low", "high"}
    for model in ("before", "after", "oracle"):
        assert set(told[model]) >= {"attack_auc", "attack_low", "attack_high", "rank_mean", "mi_bf", "recall@20"}
    assert audit_scores(BEFORE, RETRAINED, forget=FORGET, history=LEFT).to_json()["oracle"] is None


def test_the_same_seed_finds_the_same() -> None:
    one, two = (audit_scores(BEFORE, RETRAINED, forget=FORGET, history=LEFT, seed=4).to_json() for _ in range(2))
    assert one == two


def masked(users: Sequence[Any], items: Sequence[Any]) -> np.ndarray:
    scores = BEFORE(users, items)
    rows, columns = ({name: at for at, name in enumerate(ids)} for ids in (users, items))
    for user, item in zip(EVERYTHING.users, EVERYTHING.items, strict=True):
        if f"u{user}" in rows:
            scores[rows[f"u{user}"], columns[f"i{item}"]] = -np.inf
    return scores


def infinite(users: Sequence[Any], items: Sequence[Any]) -> np.ndarray:
    return np.where(BEFORE(users, items) > 2, np.inf, 0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"before": lambda users, items: np.zeros((2, 3))}, r"before gave scores of shape \(2, 3\) where \(60, 90\)"),
        ({"after": lambda users, items: [["much"]]}, "list, which are no numbers"),
        ({"after": lambda users, items: None}, "shape"),
        ({"after": infinite}, "after gave an infinite score for user u"),
        ({"before": masked}, "before gives -inf to what user u0 was to forget"),
        ({"before": lambda users, items: np.full((len(users), len(items)), np.nan)}, "knows none of the 60 users"),
        ({"history": EVERYTHING}, f"history still holds {len(FORGET)} of the {len(FORGET)} forgotten pairs"),
        ({"forget": Interactions.empty(EVERYTHING.catalog)}, "the forget set is empty"),
        ({"forget": "no-such-file.csv"}, "forget: no such file: no-such-file.csv"),
        ({"margin": 0.0}, "margin is 0.0"),
        ({"history": None, "forget": pd.DataFrame({"user": [1], "item": [2]})}, "give history= or items="),
        ({"history": None, "items": ["i0"], "test": LEFT}, "test= needs history="),
        ({"oracle": 3}, "no way is known to ask int for scores"),
        ({"oracle": "oracle.parquet"}, "oracle.parquet is a file"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"before": BEFORE, "after": RETRAINED, "forget": FORGET, "history": LEFT}
    with pytest.raises((ConfigError, DataError, UnknownIdError), match=message) as refused:
        audit_scores(**{**usual, **given})
    assert "\n" not in str(refused.value)


def test_nothing_to_compare_with_is_refused() -> None:
    with pytest.raises(DataError, match="nothing can be compared"):
        audit_scores(BEFORE, BEFORE, forget=pd.DataFrame({"user": [1], "item": [2]}), items=[2])


@pytest.mark.slow
def test_the_audit_is_imported_without_what_only_some_of_it_needs() -> None:
    rooms = "external, adapters, score_files, standing, verdict"
    heavy = "torch, polars, pandas, matplotlib, jinja2, implicit, lenskit, rectools"
    code = (
        f"from retract.auditing import {rooms}\nimport retract.report.forgetting\nimport sys\n"
        f"assert not set('{heavy}'.split(', ')) & set(sys.modules), set('{heavy}'.split(', ')) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_anybodys_recommender_is_evaluated_by_ids() -> None:
    train, test = split_per_user(EVERYTHING, 0.2, 0)
    seeing, blind = (evaluate_scores(remembers(told, by=9.0), test, history=train, k=5) for told in (test, train))
    assert seeing["ndcg@5"] == pytest.approx(1.0)
    assert blind["ndcg@5"] is not None
    assert blind["ndcg@5"] < 0.3
    forgetful = evaluate_scores(remembers(EVERYTHING, by=9.0), test, k=5)
    assert forgetful["ndcg@5"] is not None
    assert forgetful["ndcg@5"] < 0.9, "without a history what users have crowds the list"
    assert evaluate_scores(BEFORE, Interactions.empty(EVERYTHING.catalog)) == {"recall@20": None, "ndcg@20": None}


def test_an_evaluation_that_could_find_nothing_is_refused() -> None:
    with pytest.raises(
        DataError, match=rf"history holds {len(FORGET)} of the {len(FORGET)} test pairs \(the first: user u0"
    ):
        evaluate_scores(BEFORE, FORGET, history=EVERYTHING)
    with pytest.raises(ConfigError, match="k is 0"):
        evaluate_scores(BEFORE, FORGET, history=LEFT, k=0)
