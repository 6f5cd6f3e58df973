"""Data in parts: one set of interactions, however its rows are dealt among files."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import load
from tests.data.test_bad_input import assert_refused

COLUMNS = ["user", "item", "rating", "timestamp"]


def rows_of(seed, n=300):
    draw = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user": draw.integers(0, 30, n),
            "item": [f"i{item}" for item in draw.integers(0, 40, n)],
            "rating": draw.integers(1, 6, n).astype(float),
            "timestamp": draw.integers(0, 50, n),
        }
    )


def written(folder, parts, ending="parquet"):
    folder.mkdir()
    for number, part in enumerate(parts):
        path = folder / f"part-{number:05}.{ending}"
        if ending == "parquet":
            part.write_parquet(path)
        else:
            part.write_csv(path)
    return folder


def assert_same(found, want):
    one, other = found.interactions, want.interactions
    assert one == other
    np.testing.assert_array_equal(one.ratings, other.ratings)
    np.testing.assert_array_equal(one.timestamps, other.timestamps)
    assert one.duplicates == other.duplicates
    for flags in ("is_test", "is_shared"):
        np.testing.assert_array_equal(getattr(found, flags), getattr(want, flags))
    assert found.notes == want.notes


@given(st.integers(0, 50), st.lists(st.integers(0, 300), max_size=5))
def test_parts_give_what_one_file_gives(tmp_path_factory, seed, cuts):
    folder, rows = tmp_path_factory.mktemp("data"), rows_of(seed)
    rows.write_parquet(folder / "whole.parquet")
    bounds = sorted({0, 300, *cuts})
    parts = [rows[begin:end] for begin, end in pairwise(bounds)]
    written(folder / "parts", [*parts, rows[:0]])  # the last has no rows
    want = load(folder / "whole.parquet")
    for source in (folder / "parts", str(folder / "parts" / "*.parquet")):
        found = load(source)
        assert_same(found, want)
        assert found.name == "parts"


def test_text_parts_with_flags_and_titles_give_what_one_file_gives(tmp_path):
    rows = rows_of(1).unique(["user", "item"], maintain_order=True)
    rows = rows.with_columns(
        fold=pl.Series(["train", "test"])[np.arange(len(rows)) % 2],
        shared=np.arange(len(rows)) % 3 == 0,
        title=pl.col("item") + " the " + pl.col("user").cast(pl.String),
    )
    rows.write_csv(tmp_path / "whole.csv")
    by_fold = rows.sort("fold")
    want, found = load(tmp_path / "whole.csv"), load(written(tmp_path / "parts", [by_fold[:80], by_fold[80:]], "csv"))
    assert_same(found, want)
    np.testing.assert_array_equal(found.interactions.catalog.titles, want.interactions.catalog.titles)
    assert found.is_test is not None
    assert found.is_shared is not None


def test_rows_of_two_parts_that_contradict_each_other_are_refused_with_their_place(tmp_path):
    one, other = (pl.DataFrame({"user": [1], "item": [2], "fold": [fold]}) for fold in ("train", "test"))
    folder = written(tmp_path / "parts", [one, other])
    assert_refused(r"part-00001\.parquet, row 1, column 'fold': item 2 of user 1 is in train and in test", load, folder)
    one, other = (pl.DataFrame({"user": [1], "item": [2], "shared": [shared]}) for shared in (True, False))
    folder = written(tmp_path / "others", [one, other])
    assert_refused(
        r"part-00001\.parquet, row 1, .* by one row and not by another \(.*part-00000\.parquet, row 1\)", load, folder
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"user": [1], "book": [2]},
            r"part-00001\.parquet has the columns user, book, and .*00000\.parquet has user, i",
        ),
        ({"user": ["1"], "item": [2]}, r"00001\.parquet: column 'user' holds text, and whole numbers in .*00000"),
        (
            {"user": [1.0], "item": [2]},
            r"00001\.parquet: column 'user' holds numbers with fractions, and whole numbers in",
        ),
        ({"user": [1], "item": [None]}, r"00001\.parquet, row 1, column 'item': the item id is missing"),
        ({"user": [1], "item": [2], "rating": [3]}, r"00001\.parquet has the columns user, item, rating, and"),
    ],
)
def test_a_part_that_differs_is_refused_by_its_name(tmp_path, other, message):
    first = pl.DataFrame({"user": [1], "item": [2]})
    assert_refused(message, load, written(tmp_path / "parts", [first, pl.DataFrame(other)]))


def test_numbers_of_another_width_are_the_same_numbers(tmp_path):
    narrow = pl.DataFrame({"user": [1, 2], "item": [3, 4]}, schema={"user": pl.Int32, "item": pl.UInt16})
    folder = written(tmp_path / "parts", [narrow, pl.DataFrame({"user": [10], "item": [3]})])
    assert load(folder).interactions.catalog.user_ids.tolist() == ["1", "2", "10"]


def test_parts_that_are_cut_short_missing_or_of_several_kinds_are_refused(tmp_path):
    folder = written(tmp_path / "parts", [rows_of(0), rows_of(1)])
    path = folder / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert_refused(r"part-00001\.parquet is no readable Parquet file", load, folder)
    for number in (0, 2):
        rows_of(number).write_parquet(tmp_path / f"data-{number:05}-of-00003.parquet")
    assert_refused(r"holds 2 files, and their names say that there are 3: bring in", load, f"{tmp_path}/data-*.parquet")
    rows_of(0).write_csv(tmp_path / "some.csv")
    assert_refused(r"holds files of several kinds \(\.csv, \.parquet\)", load, tmp_path)
    assert_refused(r"no file is named as .*none-\*\.csv says", load, f"{tmp_path}/none-*.csv")
    assert_refused(r"have no rows: there is nothing", load, written(tmp_path / "bare", [rows_of(0)[:0]]))
