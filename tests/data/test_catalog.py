"""The catalog: ids to codes and back, and an unknown id answered with its neighbours."""

import numpy as np
import pytest

from retract.data import Catalog
from retract.data.catalog import nearest_ids
from retract.errors import DataError, UnknownIdError

NUMBERS = Catalog(np.array(["1", "5", "40", "100"]), np.array(["b", "a"]), np.array(["Bee", "Ay"]))


def test_the_code_of_an_id_is_its_position_whatever_type_it_is_asked_by():
    assert [NUMBERS.user(name) for name in ("1", 5, np.int64(40), np.str_("100"))] == [0, 1, 2, 3]
    assert NUMBERS.items(["a", "b", "a"]).tolist() == [1, 0, 1]
    assert NUMBERS.items([]).dtype == np.int64
    assert (NUMBERS.n_users, NUMBERS.n_items) == (4, 2)


def test_a_title_falls_back_to_the_id():
    assert NUMBERS.title(1) == "Ay"
    assert Catalog(NUMBERS.user_ids, NUMBERS.item_ids).title(1) == "a"


def test_catalogs_are_the_same_where_every_id_has_the_same_code():
    assert NUMBERS.same_as(Catalog(NUMBERS.user_ids.copy(), NUMBERS.item_ids.copy()))
    assert not NUMBERS.same_as(Catalog(NUMBERS.user_ids[::-1], NUMBERS.item_ids))
    assert not NUMBERS.same_as(Catalog(NUMBERS.user_ids, NUMBERS.item_ids[:1]))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: NUMBERS.user(41), "unknown user '41'; nearest known ids: 40, 5, 1"),
        (lambda: NUMBERS.user("-3"), "unknown user '-3'; nearest known ids: 1, 5, 40"),
        (lambda: NUMBERS.user("4o"), "unknown user '4o'; nearest known ids: 40, 5, 100"),
        (lambda: NUMBERS.items(["a", "aa"]), "unknown item 'aa'; nearest known ids: a, b"),
        (lambda: NUMBERS.item(7), "unknown item '7'; nearest known ids: b, a"),
    ],
)
def test_an_unknown_id_is_answered_with_the_nearest_known_ones(ask, message):
    with pytest.raises(UnknownIdError) as refused:
        ask()
    assert str(refused.value) == message
    assert isinstance(refused.value, DataError)


def test_text_ids_are_near_by_their_spelling():
    assert nearest_ids("alise", ["bob", "alice", "carol", "alina"], n=2) == ["alice", "alina"]
