"""A comparison's outputs: all rows are kept, the verdicts follow the figures, and no name can break a file."""

import io
import math
import re

import polars as pl
import pytest

from retract.report import wording
from retract.report.comparison import finding, headline, to_csv, to_latex, write_comparison
from retract.report.entries import read_blocks
from retract.report.plots_comparison import Mark, frame, plane

HOSTILE = r'<b>&$x_1^2$ 50% {#~\ "[*]'
ABOUT = {
    "data": "ml-1m",
    "users": 6040,
    "seeds": [0, 1],
    "machine": "some_machine & 2 cores",
    "command": "retract compare --data 'a<b'",
    "skipped": [{"system": "exact", "method": "fru", "reason": "it logs <nothing>"}],
}


def reason(gap, half, before):
    """What an audit's verdict comes of, by the rule of `retract.auditing.verdict`."""
    if abs(gap) - half > 0.05:
        return "still there" if gap > 0 else "over-forgot"
    if before - half <= 0:
        return "attack sees nothing"
    return "like the oracle" if abs(gap) + half <= 0.05 else "not enough data"


def row(
    method="own", *, system="fedshare", forget="users:0.1", seed=0, gap=0.0, half=0.02, keeps=1.0, before=0.2, **others
):
    """One audit: the oracle's AUC is 0.55, half the interval of a difference to it 0.02, and its Recall@20 0.2."""
    aucs = {"before": 0.55 + before, "after": 0.55 + gap, "oracle": 0.55}
    recalls = {"before": 0.21, "after": 0.2 * keeps, "oracle": 0.2}
    figures = {
        f"{key}_{name}": value
        for name in aucs
        for key, value in {
            "attack_auc": aucs[name],
            "attack_low": aucs[name] - 0.02,
            "attack_high": aucs[name] + 0.02,
            "rank_mean": 0.3,
            "recall@20": recalls[name],
            "ndcg@20": None if method == "ascent" else 1.3 * recalls[name],
            "sharers_gap": 0.01,
            "relearn_rounds": None if seed else 12,
        }.items()
    }
    judged = {
        "reason": reason(gap, half, before),
        "usefulness": "less useful" if keeps < 0.95 else "more useful" if keeps > 1.05 else "as useful",
        "users_needed": 40 if reason(gap, half, before) == "not enough data" else None,
        "difference": gap,
        "difference_low": gap - half,
        "difference_high": gap + half,
    }
    ways = {"seconds": 2.0, "oracle_seconds": 10.0, "speedup": 5.0, "memory_bytes": 1000, "ks_after": abs(gap)}
    known = {"system": system, "method": method, "forget": forget, "seed": seed, "kind": "unshare"}
    return {**known, **judged, **figures, **ways, "parameter_distance": None, "forgotten": 100, "users": 10, **others}


def many():
    """Two systems, five methods, two forget sets, two seeds; batches on one of the forget sets."""
    gaps = {"own": 0.005, "retrain": 0.0, "naive": 0.2, "finetune": 0.1, "ascent": -0.08}
    return [
        row(
            method,
            system=system,
            forget=forget,
            seed=seed,
            gap=gap + 0.002 * seed,
            memory_bytes=0 if gap else 99,
            **leak,
        )
        for forget, leak in (("users:0.1", {"difference_auc_1": 0.9, "difference_auc_10": 0.7}), ("canary:9", {}))
        for system in ("fedshare", "lightgcn")
        for method, gap in gaps.items()
        for seed in (0, 1)
        if (system, method) != ("lightgcn", "own")
    ]


def only(*rows):
    (block,) = read_blocks(rows)
    return block


def verdict(**changes):
    return only(row(**changes)).entries[0].verdict


@pytest.mark.slow
def test_it_writes_three_files_and_gives_back_the_page(tmp_path):
    out = tmp_path / "deep" / "out"
    assert write_comparison(out, many(), ABOUT) == out / "index.html"
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "rows.csv", "table.tex"]


@pytest.mark.slow
def test_the_page_stands_alone(tmp_path):
    page = write_comparison(tmp_path, many(), ABOUT).read_text()
    assert "<script" not in page
    assert "@import" not in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    assert not re.findall(r"url\((?!#)", page)
    assert page.count("<svg") == 2 * (2 + 2) + 2  # planes, costs, and the leaks of one forget set
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_every_chart_and_table_says_what_it_is(tmp_path):
    page = write_comparison(tmp_path, many(), ABOUT).read_text()
    assert page.count('role="img" aria-label="') == page.count("<svg")
    assert page.count("<table") == page.count("<caption")


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row()],
        [row("naive"), row("retrain")],
        [{"system": "a", "method": "b", "forget": "c", "seed": 0}],
        [row(speedup=None, seconds=None, memory_bytes=None, kind="erase")],
        [row(**{"recall@20_oracle": 0.0, "seconds": 0.0})],
        [row(**{"attack_auc_after": math.nan, "difference_auc_5": None, "difference_auc_7": 0.6})],
    ],
    ids=["none", "one", "references", "bare", "no cost", "zero", "partial"],
)
def test_little_is_enough(rows, tmp_path):
    page = write_comparison(tmp_path, rows, {}).read_text()
    assert not re.search(r"\b(nan|inf|None)\b", page)


@pytest.mark.slow
def test_names_are_text_whatever_they_hold(tmp_path):
    rows = [row(method, system=HOSTILE, forget=HOSTILE, difference_auc_2=0.7) for method in (HOSTILE, "naive")]
    about = {"data": HOSTILE, "skipped": [{"system": HOSTILE, "method": HOSTILE, "reason": HOSTILE}]}
    page = write_comparison(tmp_path, rows, about).read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_rows_round_trip_through_csv():
    rows = [*many(), row("own", forget='a "b", c\nd', extra=HOSTILE)]
    read = pl.read_csv(io.StringIO(to_csv(rows)), infer_schema_length=None)
    assert read.columns[:4] == ["system", "method", "forget", "seed"]
    assert [name for name in read.columns if name.startswith("difference_auc")] == [
        "difference_auc_1",
        "difference_auc_10",
    ]
    for written, back in zip(rows, read.iter_rows(named=True), strict=True):
        assert {key: value for key, value in back.items() if value is not None} == {
            key: value for key, value in written.items() if value is not None
        }


def test_the_columns_do_not_depend_on_the_order_of_the_rows():
    rows = many()
    assert to_csv(rows).splitlines()[0] == to_csv(rows[::-1]).splitlines()[0]


@pytest.mark.parametrize("name", ["fedshare", HOSTILE, "two\nlines % not a comment"])
def test_the_latex_table_is_well_formed(name):
    table = to_latex(
        read_blocks([row(system=name, forget=name), row("naive", system=name, forget=name, seed=1)]), ABOUT
    )
    bare = re.sub(r"\\[\\&%$#_{}]", lambda found: "\n" if found[0] == r"\\" else "", table)
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert bare.count("%") == 1  # the first line's comment
    body = bare[bare.index("\\toprule") : bare.index("\\bottomrule")]
    assert {line.count("&") for line in body.splitlines() if "&" in line} == {9}
    assert not set("±→−×\u202f") & set(table)


def test_the_latex_table_has_means_deviations_and_the_oracle():
    table = to_latex(read_blocks([row(seed=0, gap=0.00), row(seed=1, gap=0.01)]), ABOUT)
    assert r"0.750\,$\pm$\,0.000 $\to$ 0.555\,$\pm$\,0.007 & +0.005 ($-$0.020 to +0.030)" in table
    assert "fedshare & own (a)" in table
    assert "fedshare & oracle & 0.550" in table


def test_from_one_seed_every_auc_of_the_latex_table_has_its_interval():
    table = to_latex(read_blocks([row(gap=0.01)]), ABOUT)
    assert r"0.75 (0.73--0.77) $\to$ 0.56 (0.54--0.58) & +0.010 ($-$0.010 to +0.030)" in table
    assert "oracle & 0.55 (0.53--0.57)" in table


@pytest.mark.parametrize(
    ("changes", "mark"),
    [({}, "a"), ({"keeps": 0.8}, "f"), ({"gap": 0.2}, "n"), ({"half": 0.06}, "u"), ({"before": 0.01}, "u")],
)
def test_the_latex_table_marks_each_method_by_its_verdict(changes, mark):
    assert f"own ({mark}) &" in to_latex(read_blocks([row(**changes)]), ABOUT)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gap": 0.03}, "acceptable: like the oracle"),
        ({"gap": 0.031}, "not enough data to say: about 40 users would do"),
        ({"gap": 0.071}, "not like it: still there"),
        ({"gap": -0.071}, "not like it: over-forgot"),
        ({"keeps": 0.94}, "like the oracle; loses accuracy"),
        ({"keeps": 1.1}, "like the oracle; more accurate than the oracle, which is no likeness either"),
        ({"usefulness": "not enough data"}, "like the oracle; not enough data on its accuracy"),
        ({"speedup": 0.2}, "like the oracle; 5 times slower than retraining"),
        ({"speedup": 0.7}, "acceptable: like the oracle"),
        ({"before": 0.01}, "cannot be told: the attack finds nothing even before"),
        ({"gap": 0.08, "before": 0.01}, "not like it: still there"),
        ({"reason": "same parameters"}, "acceptable: same as the oracle"),
        ({"gap": 0.1, "method": "naive"}, "reference"),
        ({"reason": None}, "not measured"),
    ],
)
def test_the_verdict_follows_the_figures(changes, says):
    assert verdict(**changes) == says


@pytest.mark.parametrize("half", [0.1, 0.3, 0.9])
def test_fewer_users_make_nothing_easier(half):
    """With 15 users the oracle's interval is so wide that a gap of 0.085 lies within half of it."""
    assert verdict(gap=0.085, half=half).startswith(("not enough data", "cannot be told"))


def test_gaps_of_opposite_signs_do_not_cancel():
    block = only(row(seed=0, gap=0.1), row(seed=1, gap=-0.1))
    assert block.entries[0].verdict == "not like it: differs by seed"


def test_every_seed_must_be_like_the_oracle_and_one_that_is_not_tells():
    assert only(row(seed=0), row(seed=1, gap=0.1)).entries[0].verdict == "not like it: differs by seed"
    assert only(row(seed=0, half=0.06), row(seed=1, gap=0.1)).entries[0].verdict == "not like it: still there"
    assert only(row(seed=0), row(seed=1, half=0.06)).entries[0].verdict.startswith("not enough data to say")


def test_the_headline_names_who_alone_is_acceptable_and_its_cost():
    rows = [row("own", gap=0.01, forget=f) for f in "ab"] + [
        row("finetune", gap=0.1, speedup=50.0, forget=f) for f in "ab"
    ]
    assert headline(read_blocks(rows)) == (
        "fedshare/own forgets as retraining does on all 2 forget sets, 5 times faster than retraining"
    )


def test_the_headline_names_no_winner_where_none_can_be_told():
    two = [row("own", gap=0.001), row("scif", gap=0.02, seconds=1.9)]
    assert headline(read_blocks(two)) == (
        "fedshare/own and fedshare/scif forget as retraining does; which of them is best this comparison cannot tell"
    )
    quick = [row("own", gap=0.001), row("scif", gap=0.02, seconds=0.1)]
    assert headline(read_blocks(quick)).endswith("forget as retraining does; fedshare/scif takes least time")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([row(gap=0.1), row("finetune", gap=0.2)], "No method is shown to be acceptable: 2 not like retraining"),
        (
            [row(gap=0.1), row("finetune", half=0.06), row("scif", keeps=1.1)],
            "1 not like retraining; 1 like it in the attack but not in all else; 1 cannot be told",
        ),
        ([row(gap=0.0, before=0.01)], "the attack cannot tell doing nothing from retraining"),
        ([row(half=0.06), row("finetune", half=0.06)], "No verdict: there is not enough data"),
        ([row("naive"), row("retrain")], "Only the two ends were run"),
        ([], "Nothing could be compared"),
    ],
)
def test_the_headline_is_honest(rows, says):
    assert says in headline(read_blocks(rows))


def test_a_finding_tells_of_all_that_are_acceptable_and_of_all_that_are_not():
    slow, fast = row("own", gap=0.001), row("scif", gap=0.01, seconds=0.05, speedup=200.0)
    said = finding(only(slow, fast, row("ascent", gap=-0.1), row("finetune", half=0.06)))
    assert said[0].startswith("Acceptable: fedshare/own, with attack AUC +0.001 (−0.019 to +0.021) off")
    assert "fedshare/scif, with" in said[0]
    assert "50.0\u202fms, 200 times faster than retraining" in said[0]
    assert said[1] == "Not like the oracle: fedshare/ascent (over-forgot)."
    assert said[2] == "Not to be told: fedshare/finetune (not enough data to say: about 40 users would do)."


def test_the_fastest_is_marked_where_it_is_clear():
    block = only(row("own"), row("scif", gap=0.01, seconds=0.05), row("ascent", gap=-0.1, seconds=0.01))
    assert [block.marks(entry) for entry in block.entries] == [[], ["fastest acceptable"], []]
    block = only(row("own"), row("scif", gap=0.01, seconds=1.5))
    assert [block.marks(entry) for entry in block.entries] == [[], []]


def test_a_time_is_never_told_with_a_deviation_that_says_nothing():
    entry = only(row(seconds=0.001), row(seed=1, seconds=0.009)).entries[0]
    assert entry.of("seconds").show(wording.seconds, relative=True) == "1.00\u202fms to 9.00\u202fms"
    entry = only(row(seconds=0.009), row(seed=1, seconds=0.010)).entries[0]
    assert entry.of("seconds").show(wording.seconds, relative=True) == "9.50\u202fms\u202f±\u202f7\u202f%"


def test_what_some_seeds_lack_is_told():
    entry = only(row(seed=0), row(seed=1), row(seed=2)).entries[0]
    assert entry.of("relearn_rounds_after").show(wording.metric) == "12.0000 (1 of 3)"
    assert entry.of("seconds").show(wording.seconds) == "2.00\u202fs\u202f±\u202f0\u202fs"


@pytest.mark.slow
def test_labels_overlap_neither_each_other_nor_the_edge():
    names = ("own", "retrain", "naive", "finetune", "ascent", "fru", "scif", "a name of a method that is too long")
    marks = [Mark(name, "after", (0.001 * n, 0.01), (1 + 0.001 * n, 0.01)) for n, name in enumerate(names)]
    svg = plane(marks, (-0.02, 0.02), frame(marks, [(-0.02, 0.02)]), "plane")
    places = re.findall(r'<text style="[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>([a-z …]+)</text>', svg)
    found = [
        (float(x), float(y), 5.5 * len(name) / 2) for x, y, name in places if name.startswith((*names[:-1], "a name"))
    ]
    assert len(found) == len(names)
    assert all(half <= x <= 380 - half and 20 < y < 290 for x, y, half in found)
    for place, (x, y, half) in enumerate(found):
        assert not any(abs(x - x2) < half + half2 and abs(y - y2) < 9 for x2, y2, half2 in found[place + 1 :])
