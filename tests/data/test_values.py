"""Ratings and times as people write them."""

import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import from_frame
from retract.errors import DataError


def held(**columns):
    n = len(next(iter(columns.values())))
    return from_frame(pl.DataFrame({"user": range(n), "item": range(n), **columns}))


def test_decimal_commas_are_read_where_no_rating_has_a_point():
    data = held(rating=["2,5", "-3,25", "4"])
    assert data.interactions.ratings.tolist() == [2.5, -3.25, 4]
    assert data.notes[0] == "ratings are read with decimal commas: '2,5' is 2.5"
    with pytest.raises(DataError, match=r"row 2, column 'rating': '3,5' is not a finite number"):
        held(rating=["2.5", "3,5"])
    assert held(rating=["2.5", "3"]).notes[0].startswith("2 users")


def test_commas_that_may_set_thousands_apart_are_refused():
    with pytest.raises(DataError, match=r"row 2, column 'rating': '1,234' reads in two ways"):
        held(rating=["7", "1,234", "12,500"])
    assert held(rating=["0,123", "1,234"]).interactions.ratings.tolist() == [pytest.approx(0.123), pytest.approx(1.234)]


MOMENT = dt.datetime(2014, 5, 13, 16, 53, 20, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2014-05-13 16:53:20", 1400000000),
        ("2014-05-13T16:53:20.987654", 1400000000),
        ("2014-05-13T16:53:20Z", 1400000000),
        ("2014-05-13 16:53:20 UTC", 1400000000),
        ("2014-05-13T18:53:20+02:00", 1400000000),
        ("2014-05-13T11:23:20-0530", 1400000000),
        ("2014-05-13T16:53", 1400000000 - 20),
        ("2014-05-13", 1400000000 - 53 * 60 - 20 - 16 * 3600),
        ("1969-12-31 23:59:59", -1),
    ],
)
def test_iso_times_are_seconds_since_1970_and_in_utc_where_they_say_no_zone(text, want):
    assert held(timestamp=[text, "2014-05-13T16:53:20Z"]).interactions.timestamps.tolist() == [want, 1400000000]


@given(st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC)))
def test_iso_times_are_those_of_python(moment):
    whole = moment.replace(microsecond=0)
    assert held(timestamp=[moment.isoformat()]).interactions.timestamps.tolist() == [int(whole.timestamp())]


@pytest.mark.parametrize("text", ["13.05.2014", "2014-13-01", "2014-05-13 25:00:00", "yesterday"])
def test_what_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(
        DataError, match=rf"row 2, column 'timestamp': '{text}' is not a time: give seconds since 1970, or"
    ):
        held(timestamp=["2014-05-13", text])
    with pytest.raises(DataError, match=rf"row 2, column 'timestamp': '{text}' is not a time"):
        held(timestamp=["1400000000", text])


@pytest.mark.parametrize(("unit", "parts"), [("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)])
@pytest.mark.parametrize("kind", [pl.Int64, pl.String])
def test_finer_units_than_seconds_are_read_as_such_and_told(unit, parts, kind):
    times = [1400000000 * parts + 7, 1500000000 * parts, 1600000000 * parts]
    data = held(timestamp=pl.Series(times).cast(kind))
    assert data.interactions.timestamps.tolist() == [1400000000, 1500000000, 1600000000]
    assert data.notes[0] == f"timestamps are {unit} since 1970, it seems: they are read as such"


@pytest.mark.parametrize("times", [[1, 2, 3], [0, 0, 0], [1400000000, 1500000000, 1500000000000], [20140513165320] * 3])
def test_all_else_stays_as_it_is(times):
    data = held(timestamp=times)
    assert data.interactions.timestamps.tolist() == times
    assert not any("since 1970" in note for note in data.notes)
