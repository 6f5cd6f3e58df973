"""Bad input: one clear line with what, which value, where, and what to do."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp

from retract.data import Columns, from_csr, from_frame, load
from retract.errors import DataError

RUBBISH = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()


def assert_refused(message, call, *arguments, **options):
    with pytest.raises(DataError) as refused:
        call(*arguments, **options)
    line = str(refused.value)
    assert re.search(message, line), line
    assert line.isprintable()
    assert len(line) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r" is empty: write the interactions into it, or give another file"),
        (b"\n ,\n", r" is empty"),
        (b"user,item\n", r" has a header but no rows: there is nothing to learn from"),
        (b"user,item\n\n , \n", r" has a header but no rows"),
        (b"a,item\n1,2\n", r"no user column; columns seen: a, item; name it with --user-col"),
        (b"user;it\n1;2\n", r"no item column; columns seen: user, it; name it with --item-col .*name all columns with"),
        (b"uid,user_id,item\n1,1,2\n", r"could be the user: uid, user_id; choose one with --user-col"),
        (
            b"user,item,score,rating\n1,1,2,3\n",
            r"could be the rating: score, rating; choose one with --rating-col",
        ),
        (b"user,item,rating\na,b,4\nb,c,five\n", r"line 3, column 'rating': 'five' is not a finite number: correct"),
        (b'user,item,rating\n"a\nz",b,4.0\n\nb,c,"3,5"\n', r"line 5, column 'rating': '3,5' is not a finite"),
        (b"user,item,rating\na,b," + b"z" * 9999, r"line 2, column 'rating': 'z{59}… is not a finite number"),
        (b'user,item,rating\na,b,4\n"c\nd",e,x\n', r"line 3, column 'rating': 'x' is not a finite number"),
        (b"user,item,stars\na,b,NaN\n", r"line 2, column 'stars': 'NaN' is not a finite number"),
        (b"user,item,rating\na,b,-inf\n", r"line 2, column 'rating': '-inf' is not a finite number"),
        (b"user,item,rating\na,b,\n", r"line 2, column 'rating': the rating is missing: correct or remove"),
        (b"user,item,time\na,b,noon\n", r"line 2, column 'time': 'noon' is not a time: give seconds since 1970, or"),
        (b"user,item\na,b\n ,c\n", r"line 3, column 'user': the user id is missing: fill it in or remove"),
        (b"user,item\na\n", r"line 2, column 'item': the item id is missing"),
        (b"user,item\na,b\nb,c,d\n", r"line 3: 3 fields where the header has 2: correct it"),
        (b"user,item,x\na,b,1\nb,c,1,2\n", r"line 3: 4 fields where the header has 3"),
        (b'user,item\na,b\nb,"c\n', r"after line 2: unexpected end of data: correct the quotes"),
        (b"user,item\n" + b"a" * 501 + b",b\n", r"line 2, .*over 500 characters long: is a quote not closed"),
        (b"user,item,fold\na,b,train\na,c,valid\n", r"line 3, column 'fold': 'valid' is not a fold: write"),
        (b"user,item,fold\na,b,train\n", r"column 'fold': no row is 'test': mark some so"),
        (b"user,item,shared\na,b,1\na,c,maybe\n", r"line 3, column 'shared': 'maybe' does not say whether this is"),
        (b"user,item,share\na,b,0.5\n", r"line 2, column 'share': '0\.5' does not say .* shared: write true or false"),
        (b"user,item,Is Shared\na,b,\n", r"line 2, column 'Is Shared': the value is missing: write true or false"),
        (
            b"user,item,share,shared\na,b,1,1\n",
            r"could be the shared: share, shared; choose one with --shared-col",
        ),
        ("user,item\nä,b\n".encode("latin-1"), r" is not utf-8 text: say how it is encoded \(--encoding latin-1,"),
        ("user,item\na,b\n".encode("utf-16-le"), r" is not utf-8 text"),
        (RUBBISH, r" is not utf-8 text"),
        (b"\0\1\2" * 900, r" is not utf-8 text"),
        (b"\2\1\2" * 900, r"no user column; columns seen: '\\x02\\x01"),
        (b'"who\n?",item\n1,2\n', r"no user column; columns seen: 'who\\n\?', item"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_refused(tmp_path, content, message):
    (tmp_path / "data.csv").write_bytes(content)
    assert_refused(r"data\.csv.*" + message, load, tmp_path / "data.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.parquet", b"", r"data\.parquet is empty"),
        (
            "data.xlsx",
            b"PK",
            r"data\.xlsx: unknown kind of file '\.xlsx'; known: \.csv, \.tsv, \.txt, \.parquet, \.inter",
        ),
        ("data", b"user,item\n1,2\n", r"data: unknown kind of file 'data'; known: \.csv"),
        ("data.inter", b"user_id:token\tx:float\n1\t2\n", r"no item column; columns seen: user_id, x; name"),
        ("ratings.dat", b"1::2::3::4\n1::3::3\n", r"line 2, column 'timestamp': the timestamp is missing"),
        ("ratings.dat", b"1::2::3::4\n1::3::3::4::5\n", r"line 2, column 'timestamp': '4::5' is not a time"),
        ("ratings.dat", b"1,2,3,4\n", r"line 1: 1 field where user::item::rating::timestamp was expected"),
        ("u.data", b"1\t2\t3\n", r"line 1: 3 fields where user<tab>item<tab>rating<tab>timestamp was expected"),
        ("data.inter", RUBBISH, r"data\.inter is not utf-8 text"),
        ("ratings.dat", RUBBISH, r"ratings\.dat is not utf-8 text"),
        ("data.parquet", RUBBISH, r"data\.parquet is no readable Parquet file, it is damaged or of another kind"),
        ("data.parquet", b"PAR1" + RUBBISH + b"PAR1", r"data\.parquet is no readable Parquet file"),
    ],
)
def test_a_file_of_another_kind_that_cannot_be_used_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert_refused(message, load, tmp_path / name)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "data.csv").write_text("user,item\n1,2\n")
    (tmp_path / "folder").mkdir()
    assert_refused(r"no such file: .*none\.csv; check the path", load, tmp_path / "none.csv")
    assert_refused(r"no such file: movielens; .* or name a known data set: movielens-small$", load, "movielens")
    assert_refused(r"cannot be read: File name too long", load, str(tmp_path / ("n" * 300 + ".csv")))
    assert_refused(r" is a folder without data: give a file, or a folder of Parquet", load, tmp_path / "folder")
    assert_refused(r"cannot be read: Not a directory", load, tmp_path / "data.csv" / "data.csv")


def test_a_parquet_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "data.parquet"
    pl.DataFrame({"user": range(1000), "item": range(1000)}).write_parquet(path)
    for size in (5, path.stat().st_size // 2, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:size])
        assert_refused(r"is no readable Parquet file", load, path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(user="who"), r"no column 'who'; columns seen: user, item, Item, x; correct --user-col"),
        (Columns(user="ITEM"), r"2 columns are called 'ITEM': rename all but one"),
        (Columns(user="x", item="x"), r"column 'x' cannot play two roles: give --item-col or .* another one"),
    ],
)
def test_a_named_column_that_cannot_be_it_is_refused(columns, message):
    frame = pl.DataFrame({"user": [1], "item": [2], "Item": [3], "x": [4]})
    assert_refused(message, from_frame, frame, columns=columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [], "item": []}, r"frame has no rows: there is nothing to learn from"),
        ({"user": [1, None]}, r"frame, row 2, column 'user': the user id is missing"),
        ({"user": ["a", "a\0"]}, r"row 2, column 'user': the user id holds a NUL character: remove it"),
        ({"user": [1.0, 2.5]}, r"row 2, column 'user': 2\.5 is no user id: ids must be text or whole numbers"),
        ({"user": [1.0, np.inf]}, r"row 2, column 'user': inf is no user id"),
        ({"user": [1.0, 1e20]}, r"row 2, column 'user': 1e\+20 is no user id"),
        ({"user": [True, False]}, r"column 'user' holds Boolean: ids must be text or whole numbers"),
        ({"rating": [1.0, np.nan]}, r"row 2, column 'rating': (nan is not a finite number|the rating is missing)"),
        ({"rating": [1.0, 1e300]}, r"row 2, column 'rating': 1e\+300 is not a finite number"),
        ({"rating": ["4", "five"]}, r"row 2, column 'rating': 'five' is not a finite number"),
        ({"timestamp": [1, None]}, r"row 2, column 'timestamp': (the timestamp is missing|nan is not a time)"),
        ({"fold": [0, 1]}, r"column 'fold' holds Int64: folds must be 'train' or 'test'"),
        ({"shared": [True, None]}, r"row 2, column 'shared': the value is missing: write true or false"),
        ({"shared": [0, 2]}, r"row 2, column 'shared': 2 does not say whether this is shared: write true or false"),
        ({"shared": ["yes", "0"]}, r"row 1, column 'shared': 'yes' does not say whether this is shared"),
    ],
)
@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame])
def test_a_frame_that_cannot_be_used_is_refused(make, columns, message):
    full = {"user": [1, 2], "item": [1, 2], **columns}
    assert_refused(message, from_frame, make(full))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1], [2]], r"column 'rating' holds List\(Int64\): ratings must be finite numbers"),
        (pl.Series([1, 2]).cast(pl.Duration), r"column 'rating' holds Duration.*: ratings must be finite numbers"),
    ],
)
def test_a_column_of_a_wrong_kind_is_refused_as_a_whole(column, message):
    assert_refused(message, from_frame, pl.DataFrame({"user": [1, 2], "item": [1, 2], "rating": column}))


def test_a_column_of_lists_does_not_say_what_is_shared():
    frame = pl.DataFrame({"user": [1, 2], "item": [1, 2], "shared": [[True], [False]]})
    assert_refused(r"column 'shared' holds List\(Boolean\): true or false must say whether", from_frame, frame)


def test_odd_pandas_columns_are_refused_too():
    periods = pd.DataFrame({"user": [1], "item": [1], "time": pd.period_range("2020", periods=1, freq="Q")})
    assert_refused(r"row 1, column 'time': '2020Q1' is not a time", from_frame, periods)
    gaps = pd.DataFrame({"user": pd.array([1, None], dtype="Int64"), "item": [1, 2]})
    assert_refused(r"row 2, column 'user': the user id is missing", from_frame, gaps)
    gaps = pd.DataFrame({"user": [1, 2], "item": [1, 2], "shared": pd.array([True, None], dtype="boolean")})
    assert_refused(r"row 2, column 'shared': the value is missing", from_frame, gaps)
    assert_refused(r"frame: expected a pandas or polars data frame, got dict", from_frame, {"user": [1]})


@pytest.mark.parametrize(
    ("matrix", "ids", "message"),
    [
        (np.eye(2), {}, r"expected a SciPy CSR matrix of users x items, got ndarray: convert it first"),
        (sp.coo_matrix(np.eye(2)), {}, r"got coo_matrix: convert it first"),
        (sp.csr_matrix((2, 2)), {}, r"the matrix has no entry: there is nothing to learn from"),
        (sp.csr_matrix([[1, np.nan]]), {}, r"the matrix holds nan in row 0, column 1: ratings must be finite numbers"),
        (sp.csr_matrix([[1e300]]), {}, r"the matrix holds 1e\+300 in row 0, column 0"),
        (sp.csr_matrix([[1j]]), {}, r"the matrix holds complex128: ratings must be finite numbers"),
        (sp.csr_matrix(np.eye(2)), {"user_ids": ["a"]}, r"the matrix has 2 users, user_ids has shape \(1,\)"),
        (sp.csr_matrix(np.eye(2)), {"item_ids": ["a", "a"]}, r"item_ids holds 'a' twice: ids must be unique"),
        (sp.csr_matrix(np.eye(2)), {"item_ids": ["a", ""]}, r"item_ids holds an empty id at position 1: fill it in"),
    ],
)
def test_a_matrix_that_cannot_be_used_is_refused(matrix, ids, message):
    assert_refused(message, from_csr, matrix, **ids)


@pytest.mark.parametrize(
    ("users", "items", "notes"),
    [
        ([1, 1, 2, 2], [1, 2, 1, 2], ()),
        ([1, 1, 1, 2, 2], [1, 1, 2, 1, 2], ("1 duplicate interaction left out: each counts once",)),
        ([1, 1, 2], [1, 2, 1], ("1 user has a single interaction: it is never held out",)),
        ([1, 2], [1, 2], ("2 users have a single interaction: they are never held out",)),
        ([1, 1], [1, 2], ("there is only one user: learning from others and unlearning need at least two",)),
    ],
)
def test_what_is_odd_but_usable_is_loaded_and_noted(users, items, notes):
    data = from_frame(pl.DataFrame({"user": users, "item": items}))
    assert data.notes == notes
    assert len(data.interactions) == len(set(zip(users, items, strict=True)))
