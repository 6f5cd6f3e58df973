"""Files as strangers have them: alike through CSV, Parquet, pandas and polars, or one line that says what to give."""

import io
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from retract.data import Columns, from_frame, load
from retract.data.columns import USUAL
from retract.errors import DataError

FOUR = Columns(names=("user", "item", "rating", "timestamp"))
READERS = ["file", "parquet", "polars", "pandas"]


def read(reader, folder, text, kind=".csv", separator=",", header=True, columns=USUAL):
    """The data set of a text, as it is or by way of what pandas and polars make of it."""
    if reader == "file":
        path = Path(folder) / f"data{kind}"
        path.write_text(text, newline="")
        return load(path, columns=columns)
    plain = text.removeprefix("\ufeff").encode()
    if reader == "pandas":
        frame = pd.read_csv(io.BytesIO(plain), sep=separator, header=0 if header else None)
        return from_frame(frame.rename(columns=lambda name: str(name).split(":")[0]), columns=columns)
    frame = pl.read_csv(plain, separator=separator, has_header=header, infer_schema_length=None)
    frame = frame.rename(lambda name: name.split(":")[0])
    if reader == "polars":
        return from_frame(frame, columns=columns)
    frame.write_parquet(Path(folder) / "data.parquet")
    return load(Path(folder) / "data.parquet", columns=columns)


def rows_of(data):
    held = data.interactions
    columns = [held.catalog.user_ids[held.users].tolist(), held.catalog.item_ids[held.items].tolist()]
    columns += [column.tolist() for column in (held.ratings, held.timestamps) if column is not None]
    return list(zip(*columns, strict=True))


@pytest.fixture(params=READERS)
def reading(request, tmp_path):
    """One of the readers, called with a text."""
    return lambda text, **how: read(request.param, tmp_path, text, **how)


AMAZON = "A0ZZ0,B012,2.0,1440311298\nA1ZZ1,B036,5.0,1420345524\n"


def test_a_file_without_a_header_says_so_and_takes_names_for_its_columns(reading, tmp_path):
    want = [("A0ZZ0", "B012", 2.0, 1440311298), ("A1ZZ1", "B036", 5.0, 1420345524)]
    assert rows_of(reading(AMAZON, header=False, columns=FOUR)) == want
    (tmp_path / "bare.csv").write_text(AMAZON)
    with pytest.raises(
        DataError, match=r"no header, .* A0ZZ0, B012, .*: name them in their order with --columns user,"
    ):
        load(tmp_path / "bare.csv")
    with pytest.raises(DataError, match=r"no header, .*Columns\(names=\.\.\.\)"):
        reading(AMAZON)  # its first row is taken for a header


def test_columns_that_nobody_reads_are_named_by_a_dash_or_told(reading):
    text = "0\t2010-10-19T23:55:27Z\t30.23\t-97.79\t12\n1\t2010-10-19T23:55:28Z\t30.23\t-97.79\t36\n"
    how = {"kind": ".tsv", "separator": "\t", "header": False}
    data = reading(text, **how, columns=Columns(names=("user", "time", "-", "-", "item")))
    assert rows_of(data) == [("0", "12", 1287532527), ("1", "36", 1287532528)]
    assert not any("not read" in note for note in data.notes)
    told = reading(text, **how, columns=Columns(names=("user", "time", "lat", "lon", "item"))).notes
    assert told[0] == "no column is read as the rating; not read at all: lat, lon (--rating-col names it)"
    with pytest.raises(DataError, match=r"has 5 columns \(.*\), and 4 are named \(user, item, rating, timestamp\)"):
        reading(text, **how, columns=FOUR)


def test_a_header_of_other_names_takes_names_for_its_columns(reading):
    text = "userID\tartistID\tweight\n0\t0\t13883\n1\t2\t400001\n"
    how = {"kind": ".tsv", "separator": "\t"}
    assert rows_of(reading(text, **how)) == [("0", "0"), ("1", "2")]
    assert "not read at all: weight" in reading(text, **how).notes[0]
    want = [("0", "0", 13883), ("1", "2", 400001)]
    assert rows_of(reading(text, **how, columns=Columns(names=("user", "item", "rating")))) == want
    assert rows_of(reading(text, **how, columns=Columns(rating="weight"))) == want


@pytest.mark.parametrize(("header", "is_one"), [("userID,artistID", True), ("who,what", False), ("user,item", True)])
def test_where_columns_are_named_a_first_line_is_a_header_if_it_is_plainly_one(tmp_path, header, is_one):
    (tmp_path / "two.csv").write_text(f"{header}\nu,i\nv,j\n")
    data = load(tmp_path / "two.csv", columns=Columns(names=("user", "item")))
    assert len(data.interactions) == (2 if is_one else 3)
    assert any("line 1 is taken for a header" in note for note in data.notes) == is_one
    (tmp_path / "three.csv").write_text(f"{header},score?\nu,i,3\nv,j,4\n")
    rated = load(tmp_path / "three.csv", columns=Columns(names=("user", "item", "rating")))
    assert rows_of(rated) == [("u", "i", 3), ("v", "j", 4)]  # a word cannot be a rating


def test_quoted_ids_and_ratings_of_zero_are_read_as_they_stand(reading):
    text = '"User-ID","ISBN","Book-Rating"\n"0","000000000X","0"\n"1","000000001X","7"\n"1","000000000X","0"\n'
    data = reading(text)
    assert rows_of(data) == [("0", "000000000X", 0), ("1", "000000000X", 0), ("1", "000000001X", 7)]
    liked = data.likes()
    assert rows_of(liked) == [("1", "000000001X", 7)]
    assert "left out because rated 0 or below, which is no like: 2 of 3" in liked.notes


def test_an_id_with_a_comma_is_one_id(reading):
    assert rows_of(reading('user,item\n1,a\n1,b\n2,"a,b"\n')) == [("1", "a"), ("1", "b"), ("2", "a,b")]


def test_the_latest_of_equal_rows_counts_whatever_their_order(reading):
    lines = ["u,i,5,100", "u,i,1,50", "v,i,3,1", "u,j,4,4"]
    both = [reading("\n".join(["user,item,rating,timestamp", *some])) for some in (lines, lines[::-1])]
    assert rows_of(both[0]) == rows_of(both[1]) == [("u", "i", 5, 100), ("u", "j", 4, 4), ("v", "i", 3, 1)]
    assert [data.notes for data in both] == [both[0].notes] * 2
    assert both[0].notes[0] == "1 duplicate interaction left out: the latest of each counts"
    untimed = [
        reading("\n".join(["user,item,rating", *(line.rpartition(",")[0] for line in some)]))
        for some in (lines, lines[::-1])
    ]
    assert rows_of(untimed[0]) == rows_of(untimed[1]) == [("u", "i", 3), ("u", "j", 4), ("v", "i", 3)]
    assert untimed[0].notes[0] == "1 duplicate interaction left out: the mean of its ratings counts"


def test_what_a_spreadsheet_writes_is_read(reading):
    text = "\ufeffuser;item;rating;timestamp\r\n0;12;2,5;1440311298\r\n0;36;5;1420345524\r\n"
    data = reading(text, separator=";")
    assert rows_of(data) == [("0", "12", 2.5, 1440311298), ("0", "36", 5, 1420345524)]
    assert data.notes[0] == "ratings are read with decimal commas: '2,5' is 2.5"


def test_ids_that_were_floats_are_those_of_whole_numbers(reading):
    text = "user,item,rating\n0.0,12.0,2\n10.0,36.0,5\n"
    assert rows_of(reading(text)) == [("0", "12", 2), ("10", "36", 5)]


def test_ratings_below_zero_are_read_and_are_no_likes(reading):
    data = reading("user,item,rating\n0,12,-1\n0,36,2\n1,12,0\n")
    assert rows_of(data) == [("0", "12", -1), ("0", "36", 2), ("1", "12", 0)]
    assert rows_of(data.likes()) == [("0", "36", 2)]
    assert rows_of(data.at_least(0)) == [("0", "36", 2), ("1", "12", 0)]


def test_a_typed_header_separated_by_blanks_is_read(reading):
    text = "user_id:token item_id:token rating:float timestamp:float\n0 12 2.0 1440311298.0\n1 36 5.0 1420345524.0\n"
    data = reading(text, kind=".inter", separator=" ")
    assert rows_of(data) == [("0", "12", 2, 1440311298), ("1", "36", 5, 1420345524)]


def test_iso_times_are_read(reading):
    data = reading("user,item,timestamp\n0,12,2014-05-13 16:53:20\n1,36,2014-05-13 16:53:21\n")
    assert data.interactions.timestamps.tolist() == [1400000000, 1400000001]


def test_a_user_with_every_item_is_read(reading):
    assert (
        len(reading("user,item\n" + "".join(f"all,{item}\none,{item // 2}\n" for item in range(4))).interactions) == 6
    )


def test_decimal_ids_without_a_fraction_are_whole_numbers(tmp_path):
    frame = pl.DataFrame({"user": ["9", "12345678901234567890"], "item": ["1.00", "2.00"]})
    frame = frame.cast({"user": pl.Decimal(20, 0), "item": pl.Decimal(10, 2)})
    frame.write_parquet(tmp_path / "decimal.parquet")
    for data in (from_frame(frame), load(tmp_path / "decimal.parquet")):
        assert rows_of(data) == [("9", "1"), ("12345678901234567890", "2")]
    with pytest.raises(DataError, match=r"row 1, column 'item': Decimal\('1\.5'\) is no item id"):
        from_frame(frame.with_columns(item=pl.Series(["1.5", "2"]).cast(pl.Decimal(10, 1))))


@pytest.mark.parametrize("bits", [24, 53])
@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame])
def test_floats_that_stand_for_several_ids_are_refused_and_the_value_is_named(tmp_path, bits, make):
    kind = {24: "float32", 53: "float64"}[bits]
    whole = pd.Series([1, 2**bits - 1], dtype=kind)
    assert from_frame(pd.DataFrame({"user": whole, "item": whole})).interactions.catalog.user_ids[1] == str(2**bits - 1)
    users = pd.Series([1, 2**bits + 2], dtype=kind).to_numpy()
    frame = make({"user": users, "item": [1, 2]})
    line = rf"row 2, column 'user': {2**bits + 2}\.0 is no user id: from 2\^{bits} on a float stands for several"
    with pytest.raises(DataError, match=line):
        from_frame(frame)
    pl.DataFrame({"user": users, "item": [1, 2]}).write_parquet(tmp_path / "floats.parquet")
    with pytest.raises(DataError, match=line):
        load(tmp_path / "floats.parquet")


@pytest.mark.parametrize("reader", READERS)
def test_a_header_that_is_repeated_among_the_rows_is_left_out_and_told(reader, tmp_path):
    text = "user,item,rating\nu,i,5\nuser,item,rating\nv,i,3\nuser,item,rating\n"
    data = read(reader, tmp_path, text)
    assert rows_of(data) == [("u", "i", 5), ("v", "i", 3)]
    assert (
        data.notes[0]
        == f"the header is repeated in {'line 3' if reader == 'file' else 'row 2'} and 1 more, which is left out"
    )
    with pytest.raises(DataError, match=r"(line 4|row 3), column 'rating': 'five' is not a finite"):
        read(reader, tmp_path, text.replace("v,i,3", "v,i,five"))
    with pytest.raises(DataError, match="holds its header alone"):
        read(reader, tmp_path, "user,item\nuser,item\n")
