"""Ids are written in one way, and what can be no id is refused with its value and place."""

import re

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import from_frame, load
from retract.data.ids import normal_id
from retract.errors import DataError


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (42, "42"),
        (42.0, "42"),
        ("42.0", "42"),
        (" 42.00 ", "42"),
        ("42.", "42"),
        ("-7.0", "-7"),
        ("0.0", "0"),
        ("007", "007"),
        ("007.0", "007.0"),
        ("4.2", "4.2"),
        (" u 0 ", "u 0"),
        ("v1.0", "v1.0"),
    ],
)
def test_there_is_one_way_to_write_an_id(value, want):
    assert normal_id(value) == want


texts = st.text(st.sampled_from("0123456789.- \txé"), min_size=1, max_size=6).filter(lambda text: text.strip())


@given(st.lists(texts, min_size=1, max_size=20))
def test_every_row_gets_the_normal_form_of_its_id(ids):
    frame = pl.DataFrame({"user": ids, "item": [f"i{row}" for row in range(len(ids))]})
    for made in (frame, pd.DataFrame(frame.to_dict(as_series=False))):
        held = from_frame(made).interactions
        by_item = dict(zip(held.items.tolist(), held.catalog.user_ids[held.users].tolist(), strict=True))
        places = [held.catalog.item(f"i{row}") for row in range(len(ids))]
        assert [by_item[place] for place in places] == [normal_id(text) for text in ids]


@pytest.mark.parametrize("word", ["NaN", "nan", "null", "NULL", "None", "NA", "<NA>", " null "])
@pytest.mark.parametrize("role", ["user", "item"])
def test_text_that_says_that_an_id_is_missing_is_none(tmp_path, word, role):
    other = {"user": "item", "item": "user"}[role]
    frame = pl.DataFrame({role: ["a", word, word], other: ["1", "2", "3"]})
    line = rf"row 2, column '{role}': '{word}' says that the {role} id is missing: fill it in or remove the row"
    frame.write_parquet(tmp_path / "data.parquet")
    frame.write_csv(tmp_path / "data.csv")
    with pytest.raises(DataError, match=line):
        from_frame(frame)
    with pytest.raises(DataError, match=line):
        load(tmp_path / "data.parquet")
    with pytest.raises(DataError, match=line.replace("row 2", "line 3").replace(word, word.strip())):
        load(tmp_path / "data.csv")
    assert from_frame(pl.DataFrame({role: ["Nana", "na", "nullified"], other: ["1", "2", "3"]})).notes[0][0] == "3"


@pytest.mark.parametrize("value", ["1.23457E+12", "1e+16", "1.0e16", "9007199254740994.0"])
def test_a_number_whose_digits_are_lost_is_no_id(value):
    with pytest.raises(
        DataError, match=rf"row 1, column 'user': '{re.escape(value)}' is (a number cut|no user id: from)"
    ):
        from_frame(pl.DataFrame({"user": [value, "b"], "item": ["1", "2"]}))


@pytest.mark.parametrize("value", ["1e5", "12E3", "5e10", "9007199254740993", "A1E+2"])
def test_an_id_that_only_looks_like_such_a_number_stays(value):
    data = from_frame(pl.DataFrame({"user": [value, "b"], "item": ["1", "2"]}))
    assert value in data.interactions.catalog.user_ids.tolist()


@pytest.mark.parametrize(
    ("ids", "note"),
    [
        (["42", "42.0", "x"], "user ids that are written in several ways and read as one: 2, such as '42' and '42.0'"),
        (["7", "007", "8"], "user ids that differ in leading zeros alone and stay apart: 2, such as '007' and '7'"),
        (
            ["Bob", "bob", "Al"],
            "user ids that differ in upper and lower case alone and stay apart: 2, such as 'Bob' and 'bob'",
        ),
        (
            ["J\ufffdrg", "Al", "x"],
            "user ids with characters that were lost (\ufffd): another encoding may help 1, such as 'J\ufffdrg'",
        ),
        (["30.23", "12", "x"], "user ids that are fractions: is this the right column? 1, such as '30.23'"),
    ],
)
def test_suspicious_ids_are_noted_and_kept(ids, note):
    data = from_frame(pl.DataFrame({"user": ids, "item": ["1", "2", "3"]}))
    assert data.notes[0] == note
    assert data.interactions.n_users == len({normal_id(one) for one in ids})
    assert (
        from_frame(pl.DataFrame({"user": ["7", "Bob", "x1"], "item": ["1", "2", "3"]})).notes[0].startswith("3 users")
    )
