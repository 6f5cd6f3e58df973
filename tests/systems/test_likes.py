"""What a system learns from a data set: ratings, or what people like."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from retract.data import Dataset, from_csr, from_frame, to_dataset
from retract.errors import DataError
from retract.systems.likes import suited_to
from retract.systems.registry import system_names, system_type
from tests.samples import random_interactions

ROWS = pl.DataFrame(
    {
        "user": ["a", "a", "b", "b", "c", "c"],
        "item": ["x", "y", "x", "z", "y", "w"],
        "rating": [5.0, 0.0, 3.0, -1.0, 0.0, -2.0],
        "fold": ["train", "test", "train", "train", "train", "test"],
        "shared": [1, 1, 0, 1, 1, 1],
        "title": ["X", "Y", "X", "Z", "Y", "W"],
    }
)


def pairs_of(data):
    held = data.interactions
    return list(zip(held.catalog.user_ids[held.users], held.catalog.item_ids[held.items], strict=True))


@pytest.mark.parametrize("system", system_names())
def test_all_but_who_learns_ratings_leave_out_what_is_no_like(system):
    data = from_frame(ROWS.drop("fold"))
    learnt = suited_to(system_type(system), data)
    if system == "personalfr":
        assert learnt is data  # what lies below 0 is no "not rated"
    else:
        assert pairs_of(learnt) == [("a", "x"), ("b", "x")]
        assert "left out because rated 0 or below, which is no like: 4 of 6" in learnt.notes
        assert suited_to(system_type(system), learnt) is learnt


def test_who_learns_ratings_is_told_of_zeros_that_may_mean_not_rated():
    kind, data = system_type("personalfr"), from_frame(ROWS.filter(pl.col("rating") >= 0))
    learnt = suited_to(kind, data)
    assert learnt.interactions is data.interactions
    assert learnt.notes[-1].startswith("ratings of 0, the lowest, are learnt as values: 2; if 0 means not rated, --at-")
    above = data.at_least(1)
    assert suited_to(kind, above) is above


@pytest.mark.parametrize("system", ["exact", "personalfr"])
def test_what_has_no_ratings_is_learnt_as_it_is(system):
    data = to_dataset(random_interactions(0))
    assert suited_to(system_type(system), data) is data


def test_what_is_left_out_leaves_no_trace_and_all_else_keeps_its_part():
    left = from_frame(ROWS.filter(~pl.col("user").eq("c"))).at_least(0)
    filtered = from_frame(ROWS.filter(~pl.col("user").eq("c") & (pl.col("rating") >= 0)))
    for got, want in ((left, filtered), (from_frame(ROWS.drop("fold")).likes(), filtered.likes())):
        catalogs = got.interactions.catalog, want.interactions.catalog
        assert catalogs[0].same_as(catalogs[1])
        assert catalogs[0].titles.tolist() == catalogs[1].titles.tolist()
        assert got.interactions == want.interactions
        assert got.is_shared.tolist() == want.is_shared.tolist()
    assert left.is_test.tolist() == filtered.is_test.tolist() == [False, True, False]


def test_notes_of_others_stay_and_those_on_testing_are_made_anew():
    data = from_frame(ROWS.drop("fold"))
    told = Dataset("own", data.interactions, None, ("of another package",)).at_least(3)
    assert told.notes == (
        "left out because rated below 3: 4 of 6",
        "of another package",
        "2 users have a single interaction: they are never held out",
    )


def test_a_matrix_and_a_frame_are_under_one_rule():
    matrix = sp.csr_matrix(np.array([[5.0, 1, 0], [3, 0, 2]]))
    matrix.data[[1, 3]] = 0
    frame = pl.DataFrame({"user": [0, 0, 1, 1], "item": [0, 1, 0, 2], "rating": [5.0, 0, 3, 0]})
    one, other = from_csr(matrix), from_frame(frame)
    assert pairs_of(one) == pairs_of(other) == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "2")]
    for least in (lambda data: data.likes(), lambda data: data.at_least(4)):
        assert pairs_of(least(one)) == pairs_of(least(other))


def test_where_nothing_would_be_left_or_there_are_no_ratings_it_is_said():
    zeros = from_frame(ROWS.with_columns(rating=pl.lit(0.0)).drop("fold"))
    with pytest.raises(
        DataError, match=r"all 6 interactions are rated 0 or below, .*without them: --columns user,item,-"
    ):
        zeros.likes()
    with pytest.raises(DataError, match="all 6 interactions are rated below 6"):
        from_frame(ROWS).at_least(6)
    with pytest.raises(DataError, match="frame has no ratings: leave --at-least-rating, at_least_rating= out"):
        to_dataset(ROWS.select("user", "item"), at_least_rating=3)
