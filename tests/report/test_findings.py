"""The sentences follow the figures, good or bad."""

import math

import pytest

from retract.report import findings, wording
from retract.report.facts import Accuracy, Costs, Group, Level, Spent, Trace, Trio


def levels(*ndcg: float) -> tuple[Level, ...]:
    ratios = [n / (len(ndcg) - 1) for n in range(len(ndcg))]
    return tuple(Level(ratio, Accuracy(value, value), (), 1.0) for ratio, value in zip(ratios, ndcg, strict=True))


@pytest.mark.parametrize(
    ("ndcg", "says"),
    [
        ((0.30, 0.31, 0.33), "1.10 times as much. At no step does it fall"),
        ((0.30, 0.28, 0.33), "It falls from 0\u202f% to 50\u202f%."),
        ((0.30, 0.30, 0.301), "hardly any difference"),
    ],
)
def test_sharing(ndcg, says):
    assert says in findings.sharing(levels(*ndcg))


@pytest.mark.parametrize(
    ("before", "after", "oracle", "says", "closed"),
    [
        (0.10, 0.19, 0.20, "unlearning closed 90\u202f% of it", 0.9),
        (0.10, 0.22, 0.20, "overshot: it went 20\u202f% further", 1.2),
        (0.10, 0.05, 0.20, "moved the wrong way: it grew by 50\u202f%", -0.5),
        (0.10, 0.30, 0.102, "too small to speak of closing it", math.nan),
    ],
)
def test_closing(before, after, oracle, says, closed):
    trace = Trace(Trio((before,), (after,), (oracle,)))
    assert says in findings.closing(trace)
    assert findings.closed_part(trace) == pytest.approx(closed, nan_ok=True)


def test_keeping_leaves_out_groups_without_anything_to_compare():
    fine, empty = Accuracy(0.2, 0.3), Accuracy(math.nan, math.nan)
    groups = (
        Group("All users", 9, Trio(fine, Accuracy(0.1, 0.3), fine)),
        Group("Nobody", 0, Trio(empty, empty, empty)),
    )
    assert findings.keeping(groups) == "After unlearning, Recall@20 is 0.500 of the oracle’s for all users."


@pytest.mark.parametrize(("unlearning", "says"), [(1.0, "10 times faster"), (20.0, "2 times slower")])
def test_timing(unlearning, says):
    assert says in findings.timing(Costs(Spent(unlearning, 1, 1), Spent(10.0, 1, 1), 5, 1000))


@pytest.mark.parametrize(
    ("number", "reads"),
    [(0, "0\u202fbytes"), (999, "999\u202fbytes"), (21_746_944, "21.7\u202fMB"), (4.11e9, "4.11\u202fGB")],
)
def test_sizes(number, reads):
    assert wording.size(number) == reads
