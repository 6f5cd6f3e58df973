"""Readers: the same interactions from every kind of file, frame and matrix."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Columns, from_csr, from_frame, load
from retract.errors import DataError

ROWS = pl.DataFrame(
    {
        "user": [10, 9, 10, 9, 2],
        "item": [3, 20, 20, 3, 3],
        "rating": [4.0, 3.5, 1.0, 5.0, 2.0],
        "timestamp": [50, 40, 30, 20, 10],
    }
)
WANT = sorted(ROWS.iter_rows())  # catalog order: all ids are numbers


def rows_of(data):
    held = data.interactions
    users, items = held.catalog.user_ids[held.users], held.catalog.item_ids[held.items]
    return [
        (int(user), int(item), rating, time)
        for user, item, rating, time in zip(users, items, held.ratings.tolist(), held.timestamps.tolist(), strict=True)
    ]


def delimited(separator, header=None):
    lines = [separator.join(map(str, row)) for row in ROWS.iter_rows()]
    return "\n".join([separator.join(header), *lines] if header else lines) + "\n"


FILES = {
    "plain.csv": delimited(",", ROWS.columns),
    "ratings.csv": delimited(",", ["userId", "movieId", "rating", "timestamp"]),
    "WINDOWS.CSV": "\ufeff" + delimited(",", ["User ID", "Item-ID", "Rating", "TIME"]).replace("\n", "\r\n"),
    "quoted.csv": delimited(",", ['"user"', '"item"', "rating", "timestamp"]).replace("10,3,", '"10"," 3 ",'),
    "blank lines.csv": "\n" + delimited(",", ROWS.columns).replace("\n", "\n\n , \n"),
    "tabs.tsv": delimited("\t", ["visitorid", "asin", "stars", "unixReviewTime"]),
    "ml.inter": delimited("\t", ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]),
    "ratings.dat": delimited("::"),
    "u.data": delimited("\t"),
    "[odd] *name?.csv": delimited(",", ROWS.columns),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_text_file_gives_the_same_interactions(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], newline="")
    data = load(tmp_path / name)
    assert rows_of(data) == WANT
    assert data.name == name.rpartition(".")[0]
    assert (data.is_test, data.notes[:1]) == (
        None,
        ("1 user has a single interaction: it is never held out",),
    )


@pytest.mark.parametrize("name", ["plain.parquet", "[odd] *name?.parquet"])
def test_a_parquet_file_gives_the_same_interactions(tmp_path, name):
    ROWS.with_columns(extra=pl.lit("unused")).write_parquet(tmp_path / name)
    assert rows_of(load(str(tmp_path / name))) == WANT


@pytest.mark.parametrize(
    "frame",
    [
        ROWS,
        ROWS.lazy(),
        ROWS.cast({"user": pl.String, "item": pl.Int8, "rating": pl.Decimal(5, 2), "timestamp": pl.Float64}),
        ROWS.cast(pl.String).with_columns(pl.col("item").cast(pl.Categorical)),
        ROWS.with_columns(pl.from_epoch("timestamp", "s")),
        pd.DataFrame(ROWS.to_dict(as_series=False)),
        pd.DataFrame(ROWS.to_dict(as_series=False), dtype=object),
        pd.DataFrame(ROWS.to_dict(as_series=False)).astype({"user": float, "item": "category", "rating": "Float64"}),
        pd.DataFrame(ROWS.to_dict(as_series=False)).assign(
            timestamp=pd.to_datetime(ROWS["timestamp"], unit="s", utc=True)
        ),
    ],
    ids=["polars", "lazy", "other types", "text", "times", "pandas", "objects", "pandas types", "pandas times"],
)
def test_every_kind_of_frame_gives_the_same_interactions(frame):
    assert rows_of(from_frame(frame)) == WANT


@pytest.mark.slow
@given(st.permutations(range(len(ROWS))))
def test_the_order_of_the_rows_does_not_matter(order):
    assert from_frame(ROWS[order]).interactions == from_frame(ROWS).interactions
    assert rows_of(from_frame(ROWS[order])) == WANT


@pytest.mark.parametrize(
    ("ids", "want"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["07", "7", "b"], ["07", "7", "b"]),
    ],
)
def test_ids_stay_text_in_numeric_order_where_all_are_numbers_else_by_character(ids, want):
    held = from_frame(pl.DataFrame({"user": ids, "item": ids})).interactions
    assert held.catalog.user_ids.tolist() == held.catalog.item_ids.tolist() == want
    assert held.ratings is held.timestamps is held.catalog.titles is None


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array])
def test_a_sparse_matrix_is_ratings_unless_all_are_one_and_zeros_that_it_stores_are_ratings_too(make):
    matrix = make(np.array([[0, 2.5, 0], [0, 0, 0], [1, 0, 4]]))
    matrix.data[1] = 0
    held = from_csr(matrix, item_ids=["c", "b", "a"]).interactions
    assert (held.users.tolist(), held.items.tolist(), held.ratings.tolist()) == ([0, 2, 2], [1, 0, 2], [2.5, 0, 4])
    assert (held.catalog.user_ids.tolist(), held.catalog.item_ids.tolist()) == (["0", "1", "2"], ["c", "b", "a"])
    assert from_csr(make(np.eye(3, dtype=bool))).interactions.ratings is None
    assert matrix.nnz == 3


def test_named_columns_win_over_the_usual_names_and_exact_spelling_over_case(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("user,who,item,Score,score\nx,1,7,4,0\nx,2,7,5,0\n")
    held = load(path, columns=Columns(user="WHO", rating="Score")).interactions
    assert (held.catalog.user_ids.tolist(), held.ratings.tolist()) == (["1", "2"], [4, 5])


def test_the_columns_fold_is_kept_whatever_the_seed():
    folds = ["train", "Test ", "TRAIN", "train", "test"]
    data = from_frame(ROWS.with_columns(fold=pl.Series(folds)))
    assert data.split() == data.split(seed=3, test=0.9)
    train, test = data.split()
    assert test.catalog.user_ids[test.users].tolist() == ["2", "9"]
    assert test.catalog.item_ids[test.items].tolist() == ["3", "20"]
    assert train | test == data.interactions
    assert "1 user has interactions to test on but none to train on" in data.notes


def test_an_item_that_nobody_touches_in_train_stays_in_the_catalog():
    data = from_frame(pl.DataFrame({"user": [1, 2, 2], "item": [5, 5, 6], "fold": ["train", "train", "test"]}))
    train, test = data.split()
    assert train.item_degrees().tolist() == [2, 0]
    assert test.catalog.item_ids[test.items].tolist() == ["6"]


def test_a_pair_in_train_and_in_test_is_refused_with_its_place():
    frame = pl.DataFrame({"user": [1, 2, 2, 2], "item": [5, 5, 6, 6], "fold": ["train", "test", "train", "test"]})
    message = "frame, row 4, column 'fold': item 6 of user 2 is in train and in test: keep it in one of them"
    with pytest.raises(DataError, match=message):
        from_frame(frame)


SHARED = {
    "truth": [True, False, False, True, False],
    "numbers": [1, 0, 0, 1, 0],
    "floats": [1.0, 0.0, 0.0, 1.0, 0.0],
    "text": ["true", "False", " 0", "TRUE", "0"],
}


def nullable(rows):
    """A pandas frame of the types that know missing values."""
    return pd.DataFrame(rows).convert_dtypes()


@pytest.mark.parametrize("values", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, nullable])
def test_the_column_shared_says_of_each_interaction_whether_it_is_shared(make, values):
    data = from_frame(make({**ROWS.to_dict(as_series=False), "shared": values}))
    held = data.interactions
    ids = held.catalog.user_ids[held.users], held.catalog.item_ids[held.items]
    said = dict(zip(zip(*(column.tolist() for column in ids), strict=True), data.is_shared.tolist(), strict=True))
    assert said == {("2", "3"): False, ("9", "3"): True, ("9", "20"): False, ("10", "3"): True, ("10", "20"): False}
    assert data.is_shared.dtype == bool
    assert data.is_test is None


def test_a_file_says_in_a_column_of_any_name_what_is_shared(tmp_path):
    (tmp_path / "usual.csv").write_text("user,item,is_shared\n2,1,true\n1,1,0\n")
    (tmp_path / "named.csv").write_text("user,item,share,mine\n2,1,9,1\n1,1,9,FALSE\n")
    for path, columns in (("usual.csv", Columns()), ("named.csv", Columns(shared="Mine"))):
        assert load(tmp_path / path, columns=columns).is_shared.tolist() == [False, True]
    assert from_frame(ROWS).is_shared is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), min_size=1, max_size=30), st.randoms())
def test_of_duplicates_the_latest_says_whether_it_is_shared_as_it_gives_the_rating(rows, random):
    users, items, shared = zip(*rows, strict=True)
    times = random.sample(range(99), len(rows))
    columns = {"user": users, "item": items, "shared": shared, "rating": shared, "timestamp": times}
    data = from_frame(pl.DataFrame(columns))
    assert data.is_shared.tolist() == data.interactions.ratings.tolist()


def test_of_duplicates_that_contradict_each_other_in_what_is_shared_none_is_taken():
    rows = {"user": [1, 2, 1, 1, 1], "item": [5, 5, 5, 5, 5], "shared": [1, 1, 1, 0, 1]}
    line = (
        r"row 4, column 'shared': item 5 of user 1 is shared by one row and not by another \(row 1\) of the same time"
    )
    for more in ({}, {"timestamp": [7, 7, 7, 7, 7]}):
        with pytest.raises(DataError, match=line):
            from_frame(pl.DataFrame({**rows, **more}))
    later = from_frame(pl.DataFrame({**rows, "timestamp": [7, 7, 7, 8, 7]}))
    assert later.is_shared.tolist() == [False, True]


def test_what_is_shared_and_what_is_tested_are_told_side_by_side():
    frame = pl.DataFrame(
        {"user": [2, 2, 1], "item": [5, 6, 5], "fold": ["test", "train", "train"], "shared": [1, 1, 0]}
    )
    data = from_frame(frame)
    assert (data.is_test.tolist(), data.is_shared.tolist()) == ([False, True, False], [False, True, True])


def test_titles_are_the_items_and_do_not_depend_on_the_order_of_rows():
    frame = pl.DataFrame({"user": [1, 2, 1, 2], "item": [5, 5, 6, 7], "title": ["Zorro ", "Alien", "", None]})
    for rows in (frame, frame.reverse()):
        catalog = from_frame(rows).interactions.catalog
        assert [catalog.title(code) for code in range(3)] == ["Alien", "6", "7"]
