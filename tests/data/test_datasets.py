"""Data sets by name, plugged-in ones too, and from whatever a caller holds."""

import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp

from retract import plugins
from retract.data import Columns, Dataset, Interactions, from_frame, load, to_dataset
from retract.errors import ConfigError, DataError
from tests.samples import numbered_catalog

FRAME = pl.DataFrame({"user": [2, 1, 1], "item": [7, 7, 8], "rating": [5.0, 4.0, 3.0]})
WANT = from_frame(FRAME)
MATRIX = sp.csr_matrix(np.array([[4.0, 3.0], [5.0, 0.0]]))


def plugged_in():
    return Dataset("plugged", WANT.interactions, None, ("of another package",))


@pytest.fixture
def plugged(monkeypatch):
    """Data sets of an installed package; the groups that installed packages were searched for."""
    searched = []
    module = SimpleNamespace(good=plugged_in, list=lambda: [1, 2])
    monkeypatch.setitem(sys.modules, "a_package_of_others", module)
    known = {
        name: EntryPoint(name, f"a_package_of_others:{attribute}", "retract.datasets")
        for name, attribute in {"plugged": "good", "movielens-small": "good", "odd": "list", "gone": "none"}.items()
    }

    def search(group):
        searched.append(group)
        return known

    monkeypatch.setattr(plugins, "_of_others", search)
    return searched


@pytest.mark.usefixtures("plugged")
def test_a_plugged_in_data_set_is_loaded_by_its_name():
    assert load("plugged").notes == ("of another package",)
    assert to_dataset("plugged").interactions == WANT.interactions
    with pytest.raises(DataError, match="columns of plugged are known: leave --user-col and its like out"):
        load("plugged", columns=Columns(user="who"))


@pytest.mark.usefixtures("plugged")
def test_a_name_that_nobody_has_is_answered_with_those_that_are_known():
    with pytest.raises(DataError, match=r"no such file: pluged; .*data set: movielens-small, gone, odd, plugged$"):
        load("pluged")


@pytest.mark.usefixtures("plugged")
def test_a_plugged_in_data_set_that_is_none_is_refused():
    with pytest.raises(DataError, match=r"data set 'odd' is plugged in and gave a list: it must return a Dataset"):
        load("odd")
    with pytest.raises(ConfigError, match=r"data set 'gone' is plugged in as .*:none and cannot be loaded"):
        load("gone")


def test_a_name_goes_before_a_folder_but_not_before_a_file_that_can_be_read(plugged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugged").mkdir()
    FRAME.write_csv("own.csv")
    assert load("own.csv").interactions == WANT.interactions
    assert load(tmp_path / "own.csv").name == "own"
    assert not plugged  # it costs milliseconds
    assert load("plugged").name == "plugged"
    assert set(plugged) == {"retract.datasets"}
    with pytest.raises(DataError, match="plugged is a folder without data: give a file"):
        load(tmp_path / "plugged")


def test_our_own_name_cannot_be_taken_by_others(plugged, monkeypatch):
    monkeypatch.setattr("retract.data.demo.movielens_small", lambda: WANT)
    assert load("movielens-small") is WANT
    assert not plugged


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        FRAME.lazy(),
        pd.DataFrame(FRAME.to_dict(as_series=False)),
        type("OwnFrame", (pd.DataFrame,), {})(FRAME.to_dict(as_series=False)),
        WANT,
        WANT.interactions,
    ],
    ids=["polars", "lazy", "pandas", "inherits", "data set", "interactions"],
)
def test_whatever_holds_interactions_becomes_a_data_set(data):
    made = to_dataset(data)
    assert made.interactions == WANT.interactions
    assert made.interactions.ratings.tolist() == [4, 3, 5]
    assert made.notes == WANT.notes == ("1 user has a single interaction: it is never held out",)


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array])
def test_a_csr_matrix_becomes_a_data_set_and_stays_as_it_was(make):
    matrix = make(MATRIX)
    assert to_dataset(matrix).interactions.ratings.tolist() == [4, 3, 5]
    assert (matrix != MATRIX).nnz == 0


def test_a_path_or_its_text_becomes_a_data_set_with_the_columns_that_are_named(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("who,item\n1,7\n2,7\n")
    for source in (path, str(path)):
        made = to_dataset(source, columns=Columns(user="who"))
        assert (made.name, len(made.interactions)) == ("own", 2)
    assert to_dataset(pl.read_csv(path), columns=Columns(user="who")).interactions.n_users == 2


@pytest.mark.parametrize(
    ("data", "columns", "message"),
    [
        (None, {}, "NoneType is no data to learn from: give a data set, interactions, a path or a name, a pandas or"),
        ([[1, 2]], {}, "list is no data to learn from"),
        (np.eye(2), {}, "ndarray is no data to learn from: .* or a SciPy CSR matrix of users x items"),
        (FRAME["user"], {}, "Series is no data to learn from"),
        (MATRIX.tocoo(), {}, "expected a SciPy CSR matrix of users x items, got coo_matrix: convert it first"),
        (Interactions.empty(numbered_catalog(2, 2)), {}, "there are no interactions: there is nothing to learn from"),
        (WANT, {"user": "who"}, "Dataset has no columns to choose: leave columns out"),
        (MATRIX, {"user": "who"}, "csr_matrix has no columns to choose"),
    ],
)
def test_what_holds_none_is_refused_in_one_line(data, columns, message):
    with pytest.raises(DataError, match=message):
        to_dataset(data, columns=Columns(**columns))
