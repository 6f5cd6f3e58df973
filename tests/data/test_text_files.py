"""Text in any usual separator, encoding and packing gives the same interactions."""

import gzip
import zipfile

import pytest

from retract.data import Columns, load
from retract.errors import DataError

PLAIN = "user,item,rating\nJörg,i1,4\nZoë,i2,2.5\n"
WANT = [("Jörg", "i1", 4.0), ("Zoë", "i2", 2.5)]


def rows_of(data):
    held = data.interactions
    columns = held.catalog.user_ids[held.users], held.catalog.item_ids[held.items], held.ratings
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".txt", ".inter", ".dat", ".data"])
def test_every_usual_separator_is_found(tmp_path, separator, kind):
    (tmp_path / f"data{kind}").write_text(PLAIN.replace(",", separator))
    assert rows_of(load(tmp_path / f"data{kind}")) == WANT
    (tmp_path / f"bare{kind}").write_text(PLAIN.replace(",", separator).partition("\n")[2])
    bare = load(tmp_path / f"bare{kind}", columns=Columns(names=("user", "item", "rating")))
    assert rows_of(bare) == WANT


def test_quotes_are_understood_with_every_separator(tmp_path):
    (tmp_path / "data.csv").write_text('"user";"item";"rating"\n"a;b";"i,1";"4"\n"c";"i2";"5"\n')
    assert rows_of(load(tmp_path / "data.csv")) == [("a;b", "i,1", 4), ("c", "i2", 5)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_tells_by_itself_how_it_is_encoded(tmp_path, encoding):
    (tmp_path / "data.csv").write_bytes(PLAIN.encode(encoding))
    assert rows_of(load(tmp_path / "data.csv")) == WANT
    assert rows_of(load(tmp_path / "data.csv", columns=Columns(encoding=encoding))) == WANT


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be"])
def test_what_does_not_tell_is_read_as_the_caller_says_and_else_refused(tmp_path, encoding):
    path = tmp_path / "data.csv"
    path.write_bytes(PLAIN.encode(encoding))
    assert rows_of(load(path, columns=Columns(encoding=encoding))) == WANT
    with pytest.raises(DataError, match=r"is not utf-8 text: say how it is encoded \(--encoding latin-1, or utf-16-le"):
        load(path)


def test_an_encoding_that_there_is_not_is_refused(tmp_path):
    (tmp_path / "data.csv").write_text(PLAIN)
    with pytest.raises(DataError, match=r"unknown encoding 'latin-17': give one such as utf-8, latin-1 or utf-16"):
        load(tmp_path / "data.csv", columns=Columns(encoding="latin-17"))


def test_packed_text_is_read(tmp_path):
    (tmp_path / "own.csv.gz").write_bytes(gzip.compress(PLAIN.encode()))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("folder/ratings.csv", PLAIN.encode("utf-16"))
        packed.writestr("folder/README", "hello")
        packed.writestr("__MACOSX/folder/._ratings.csv", "\0")
    for name, called in (("own.csv.gz", "own"), ("packed.zip", "packed")):
        data = load(str(tmp_path / name))
        assert rows_of(data) == WANT
        assert data.name == called


def test_a_bad_value_in_packed_text_is_named_with_its_line(tmp_path):
    (tmp_path / "own.csv.gz").write_bytes(gzip.compress(PLAIN.replace("2.5", "x").encode()))
    with pytest.raises(DataError, match=r"own\.csv\.gz, line 3, column 'rating': 'x' is not a finite number"):
        load(tmp_path / "own.csv.gz")


def test_packed_files_that_cannot_be_used_are_refused(tmp_path):
    whole = gzip.compress(PLAIN.encode() * 100)
    (tmp_path / "short.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "plain.csv.gz").write_text(PLAIN)
    (tmp_path / "plain.zip").write_text(PLAIN)
    for name in ("short.csv.gz", "plain.csv.gz", "plain.zip"):
        with pytest.raises(DataError, match=rf"{name} cannot be unpacked: .*: unpack it yourself"):
            load(tmp_path / name)
    for names, line in ((["a.csv", "b.dat"], r"holds several files \(a\.csv, b\.dat\)"), (["x"], r"holds no \.csv, ")):
        with zipfile.ZipFile(tmp_path / "more.zip", "w") as packed:
            for name in names:
                packed.writestr(name, PLAIN)
        with pytest.raises(DataError, match=line + r".*: unpack it, and give the one with the interactions"):
            load(tmp_path / "more.zip")
    (tmp_path / "own.parquet.gz").write_bytes(whole)
    with pytest.raises(DataError, match=r"unknown kind of file '\.gz'"):
        load(tmp_path / "own.parquet.gz")
