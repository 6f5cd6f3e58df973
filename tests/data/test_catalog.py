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
        (lambda: NUMBERS.items(["a", "aa"]), "unknown item 'aa'; nearest known ids: a, b"),
        (lambda: NUMBERS.item(7), "unknown item '7'; nearest known ids: b, a"),
    ],
)
def test_an_unknown_item_is_answered_with_the_nearest_known_ones(ask, message):
    with pytest.raises(UnknownIdError) as refused:
        ask()
    assert str(refused.value) == message
    assert isinstance(refused.value, DataError)


@pytest.mark.parametrize(
    ("name", "near"), [(41, ["40", "5", "1"]), ("-3", ["1", "5", "40"]), ("4o", ["40", "5", "100"])]
)
def test_an_unknown_user_is_answered_without_the_ids_of_others(name, near):
    with pytest.raises(UnknownIdError) as refused:
        NUMBERS.user(name)
    assert str(refused.value) == f"unknown user '{name}'"
    assert refused.value.near() == near  # for who may see them


def test_where_everybody_was_erased_the_model_knows_nobody():
    with pytest.raises(UnknownIdError, match="unknown user '5': the model knows nobody, for all users were erased"):
        NUMBERS.without_users(np.arange(NUMBERS.n_users)).user("5")


def test_text_ids_are_near_by_their_spelling():
    assert nearest_ids("alise", ["bob", "alice", "carol", "alina"], n=2) == ["alice", "alina"]
