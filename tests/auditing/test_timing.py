"""A time is told when it is known: short ones are repeated."""

from retract.auditing.timing import FEWEST, Timing, steady


def test_what_takes_long_is_not_repeated():
    assert steady(1.5, lambda: 1 / 0) == Timing(1.5)


def test_a_steady_time_is_soon_known_and_the_warm_up_does_not_count():
    found = steady(0.9, lambda: 0.01)
    assert (found.seconds, found.error, found.runs) == (0.01, 0.0, FEWEST)


def test_a_wavering_one_is_repeated_until_the_mean_is_known():
    runs = iter([0.01, 0.03] * 1000)
    found = steady(0.01, lambda: next(runs))
    assert FEWEST < found.runs < 100
    assert found.error is not None
    assert found.error <= 0.1
    assert abs(found.seconds - 0.02) < 0.005


def test_patience_ends():
    runs = iter([0.001, 0.1] * 100_000)
    found = steady(0.01, lambda: next(runs), patience=0.0)
    assert found.runs == FEWEST
    assert found.relative_error is not None
    assert found.relative_error > 0.1
