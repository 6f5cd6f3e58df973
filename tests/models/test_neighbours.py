"""The large-catalog form of the Gram matrix, against a dense matrix and a sort: the same entries to the last bit."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from retract.models import neighbours, retained
from retract.models.gram import UNIT, rows, user_weights, weighted_gram
from retract.models.neighbours import Neighbours
from retract.models.retained import Retained
from tests.samples import random_interactions

SEEDS = st.integers(0, 10_000)
SIZES = st.integers(1, 5)
SLACKS = st.integers(0, 6)
EXPONENTS = st.sampled_from([0.0, 0.5, 1.0])


def retained_of(held: np.ndarray, exponent: float) -> Retained:
    matrix = sp.csr_matrix(held.astype(float))
    return Retained(matrix, user_weights(np.diff(matrix.indptr), exponent))


def dense_gram(held: np.ndarray, exponent: float) -> np.ndarray:
    gram = held.T.astype(float) @ (user_weights(held.sum(axis=1), exponent)[:, None] * held)
    np.fill_diagonal(gram, 0)
    return gram


def change_between(before: np.ndarray, after: np.ndarray, exponent: float) -> sp.csr_matrix:
    users = np.flatnonzero((before != after).any(axis=1))
    terms = np.concatenate([before[users], after[users]])
    weights = user_weights(terms.sum(axis=1), exponent) * np.repeat([-1.0, 1.0], len(users))
    return weighted_gram(sp.csr_matrix(terms.astype(float)), weights)


def first_of(row: np.ndarray, count: int) -> list[tuple[int, float]]:
    order = sorted(range(len(row)), key=lambda item: (-row[item], item))
    return [(item, float(row[item])) for item in order if row[item]][:count]


def assert_serves(table: Neighbours, gram: np.ndarray) -> None:
    """What it serves are the first m; what it lists besides are the next ones; a complete list has all."""
    ids, values = table.lists(np.arange(table.n_items))
    assert ids.shape == values.shape == (len(gram), table.m)
    parts = table.tables
    ends = np.cumsum(parts["lengths"])
    for item, row in enumerate(gram):
        want = first_of(row, table.m)
        assert ids[item].tolist() == [one for one, _ in want] + [-1] * (table.m - len(want))
        assert values[item].tolist() == [value for _, value in want] + [0] * (table.m - len(want))
        own = slice(ends[item] - parts["lengths"][item], ends[item])
        assert list(zip(parts["ids"][own], parts["values"][own], strict=True)) == first_of(row, ends[item] - own.start)
        assert not parts["complete"][item] or np.count_nonzero(row) == parts["lengths"][item]
        assert parts["complete"][item] or parts["lengths"][item] >= table.m


def next_of(held: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Some users take away or add some, some take away all."""
    after = held.copy()
    for user in draw.choice(len(held), draw.integers(1, 4), replace=False):
        kind = draw.integers(3)
        some = draw.random(held.shape[1]) < draw.choice([0.1, 0.5])
        after[user] = (held[user] & ~some, held[user] | some, np.zeros_like(some))[kind]
    return after


@given(SEEDS, SIZES, SLACKS, EXPONENTS)
def test_from_nothing_it_lists_the_largest_of_every_row(seed, m, slack, exponent):
    held = rows(random_interactions(seed, n_users=20)).toarray() > 0
    assert_serves(Neighbours.made(retained_of(held, exponent), m, slack), dense_gram(held, exponent))


@given(SEEDS, SIZES, SLACKS, EXPONENTS)
def test_after_any_history_it_is_what_it_would_be_from_nothing(seed, m, slack, exponent):
    draw = np.random.default_rng(seed)
    held = draw.random((14, 18)) < 0.35
    table = Neighbours.made(retained_of(held, exponent), m, slack)
    for _ in range(8):
        before, held = held, next_of(held, draw)
        old, old_gram = table, dense_gram(before, exponent)
        table = table.changed(change_between(before, held, exponent), retained_of(held, exponent))
        assert_serves(table, dense_gram(held, exponent))
        assert_serves(old, old_gram)  # its readers see no change


@given(SEEDS, SIZES, SLACKS, EXPONENTS)
def test_users_who_go_leave_what_any_other_change_leaves(seed, m, slack, exponent):
    draw = np.random.default_rng(seed)
    held = draw.random((14, 18)) < 0.35
    table = other = Neighbours.made(retained_of(held, exponent), m, slack)
    for _ in range(6):
        before, held = held, held.copy()
        users = np.flatnonzero(held.any(axis=1) & (draw.random(14) < 0.25))
        held[users] = False
        kept, going = retained_of(held, exponent), sp.csr_matrix(before[users].astype(float))
        table = table.without(going, user_weights(np.diff(going.indptr), exponent), kept)
        other = other.changed(change_between(before, held, exponent), kept)
        assert_serves(table, dense_gram(held, exponent))
        for name, found in other.tables.items():
            np.testing.assert_array_equal(table.tables[name], found)


@pytest.mark.parametrize(("name", "value"), [("SCRATCH", 40), ("retained.BLOCK", 30), ("KEY_BITS", 10)])
def test_neither_the_size_of_blocks_nor_of_keys_matters(name, value, monkeypatch):
    room = retained if name.startswith("retained.") else neighbours
    monkeypatch.setattr(room, name.removeprefix("retained."), value)
    for seed in range(5):
        test_after_any_history_it_is_what_it_would_be_from_nothing.hypothesis.inner_test(seed, 3, 2, 0.5)


def test_histories_drop_entries_and_sum_rows_anew_and_fill_lists():
    summed, listed, complete = [], [], []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        held = draw.random((14, 18)) < 0.2
        table = Neighbours.made(retained_of(held, 0.5), 2, 5)
        for _ in range(8):
            before, held = held, next_of(held, draw)
            table = table.changed(change_between(before, held, 0.5), retained_of(held, 0.5))
            summed.append(table.summed)
            listed.append(table.tables["lengths"].tolist())
            complete.append(table.complete.mean())
    assert 0 in summed
    assert max(summed) > 3
    assert {2, 3, 4, 5, 6, 7} <= set(np.concatenate(listed))
    assert 0 < np.mean(complete) < 1


def test_a_whole_user_who_leaves_changes_lists_without_their_being_summed_anew():
    held = np.random.default_rng(3).random((60, 40)) < 0.5
    table = Neighbours.made(retained_of(held, 1.0), 5, 30)
    after = held.copy()
    after[7] = False
    new = table.changed(change_between(held, after, 1.0), retained_of(after, 1.0))
    assert new.summed == 0
    assert_serves(new, dense_gram(after, 1.0))


def test_nothing_is_left_when_everybody_has_left():
    held = np.random.default_rng(0).random((10, 12)) < 0.4
    gone = np.zeros_like(held)
    table = Neighbours.made(retained_of(held, 1.0), 3, 1)
    table = table.changed(change_between(held, gone, 1.0), retained_of(gone, 1.0))
    assert_serves(table, dense_gram(gone, 1.0))
    assert table.total.nnz == 0
    same = change_between(gone, gone, 1.0)
    assert table.changed(same, retained_of(gone, 1.0)) is table


@given(SEEDS, SIZES, SLACKS)
def test_a_catalog_grows(seed, m, slack):
    draw = np.random.default_rng(seed)
    held = draw.random((14, 18)) < 0.35
    held[:, 12:] = False
    table = Neighbours.made(retained_of(held[:, :12], 0.5), m, slack)
    assert table.over(12) is table
    for n_items in (15, 18):
        table = table.over(n_items)
        assert_serves(table, dense_gram(held[:, :n_items], 0.5))
        before, held = held, held.copy()
        held[:, :n_items] |= draw.random((14, n_items)) < 0.2
        change = change_between(before[:, :n_items], held[:, :n_items], 0.5)
        table = table.changed(change, retained_of(held[:, :n_items], 0.5))
        assert_serves(table, dense_gram(held[:, :n_items], 0.5))


@given(SEEDS, SIZES, SLACKS)
def test_it_comes_back_from_its_tables_and_goes_on(seed, m, slack):
    draw = np.random.default_rng(seed)
    start = draw.random((14, 18)) < 0.35
    held = next_of(start, draw)
    table = Neighbours.made(retained_of(start, 0.5), m, slack)
    table = table.changed(change_between(start, held, 0.5), retained_of(held, 0.5))
    again = Neighbours.read(table.tables)
    assert again.tables.keys() == table.tables.keys()
    for name, part in table.tables.items():
        np.testing.assert_array_equal(again.tables[name], part)
        assert again.tables[name].dtype == part.dtype
    after = next_of(held, draw)
    again = again.changed(change_between(held, after, 0.5), retained_of(after, 0.5))
    assert_serves(again, dense_gram(after, 0.5))


@given(SEEDS, SIZES, SLACKS)
def test_what_is_served_alone_tells_nothing_of_former_changes(seed, m, slack):
    draw = np.random.default_rng(seed)
    held = draw.random((14, 18)) < 0.35
    table = Neighbours.made(retained_of(held, 0.5), m, slack)
    for _ in range(3):
        before, held = held, next_of(held, draw)
        table = table.changed(change_between(before, held, 0.5), retained_of(held, 0.5))
    fresh = Neighbours.made(retained_of(held, 0.5), m, slack).served_only().tables
    for name, part in table.served_only().tables.items():
        np.testing.assert_array_equal(fresh[name], part)
    after = next_of(held, draw)
    again = table.served_only().changed(change_between(held, after, 0.5), retained_of(after, 0.5))
    assert_serves(again, dense_gram(after, 0.5))


def test_scores_are_sums_over_the_served_lists_for_few_users_and_for_many():
    draw = np.random.default_rng(1)
    held = draw.random((60, 30)) < 0.3
    table = Neighbours.made(retained_of(held, 0.5), 4, 2)
    served = np.zeros((30, 30))
    for item, row in enumerate(dense_gram(held, 0.5)):
        for other, value in first_of(row, 4):
            served[item, other] = value
    users = sp.csr_matrix(held * draw.random((60, 30)))
    many = table.of(users)
    np.testing.assert_allclose(many, users.toarray() @ served, rtol=1e-12)
    np.testing.assert_allclose(table.of(users[:7]), many[:7], rtol=1e-12)
    assert table.of(users[:1]).dtype == np.float64
    assert table.of(users[:0]).shape == (0, 30)
    np.testing.assert_array_equal(table.total.toarray(), served)


def summed(retained, items):
    rows = np.empty((len(items), retained.matrix.shape[1]))
    for own, sums in retained.sum_rows(items, lambda sums, _: sums):
        rows[np.searchsorted(items, own)] = sums
    return rows


def test_a_row_sum_is_the_same_with_the_transposed_matrix_at_hand_and_without():
    held = np.random.default_rng(2).random((50, 200)) < 0.1
    plain = retained_of(held, 1.0)
    given_it = Retained(plain.matrix, plain.weights, sp.csr_matrix(plain.matrix.T.tocsr()))
    items = np.array([3, 77, 78, 199])
    found = [summed(one, items) for one in (plain, given_it)]
    gram = held.T.astype(float) @ (plain.weights[:, None] * held)
    np.testing.assert_array_equal(found, [gram[items]] * 2)
    assert plain.transposed is None


def test_equal_sums_at_the_end_of_a_list_go_to_the_lower_items():
    held = np.ones((4, 9), dtype=bool)
    table = Neighbours.made(retained_of(held, 0.0), 3, 1)
    assert table.lists(np.array([0, 8]))[0].tolist() == [[1, 2, 3], [0, 1, 2]]
    after = held.copy()
    after[0, 1] = False
    table = table.changed(change_between(held, after, 0.0), retained_of(after, 0.0))
    assert table.lists(np.array([0, 8]))[0].tolist() == [[2, 3, 4], [0, 2, 3]]
    assert (table.lists(np.array([0]))[1] / UNIT == 4 * 2**30).all()


def test_rows_that_change_are_summed_as_if_all_had_been_laid_out_anew():
    draw, held = np.random.default_rng(3), np.random.default_rng(2).random((30, 40)) < 0.2
    kept, weights = retained_of(held[:20, :30], 0.5), partial(user_weights, exponent=0.5)
    before = held[:20, :30].copy()
    for step in range(6):
        n_items = 30 + 2 * step
        users = np.unique(draw.integers(0, 20 + step, 4))
        now = held[:, :n_items] & (draw.random((30, n_items)) < draw.choice([0.0, 0.6, 1.0], (30, 1)))
        larger = np.zeros((max(len(before), 20 + step), n_items), dtype=bool)
        larger[: len(before), : before.shape[1]] = before
        larger[users] = now[users]
        rows = sp.csr_matrix(larger[users].astype(float))
        old, kept = kept, kept.changed(users, rows, weights(np.diff(rows.indptr)))
        kept = kept.indexed() if step % 2 else kept
        for one, held_by in ((old, before), (kept, larger)):
            items = np.arange(0, held_by.shape[1], 3)
            gram = held_by.T.astype(float) @ (weights(held_by.sum(1))[:, None] * held_by)
            np.testing.assert_array_equal(summed(one, items), gram[items])
        before = larger


def test_what_has_gone_does_not_lie_beside_a_model_for_ever():
    held = np.ones((300, 4), dtype=bool)
    kept, nothing = retained_of(held, 1.0), sp.csr_matrix((1, 4))
    for user in range(4):
        assert not kept.is_patchwork
        kept = kept.changed(np.array([user]), nothing, np.zeros(1))
        assert kept.changed(np.array([user]), nothing, np.zeros(1)).gone == kept.gone == 4 * (user + 1)
    assert kept.is_patchwork
