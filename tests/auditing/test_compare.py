"""The comparison: resumable, the same in parallel, and never a mixture."""

import json
import os
from itertools import product

import polars as pl
import pytest

from retract.auditing import compare as comparison
from retract.auditing.compare import Plan, about, compare, named
from retract.data import load
from retract.errors import ConfigError, FolderError
from retract.report.comparison import write_comparison
from retract.threads import cores
from tests.auditing.worlds import clustered

TIMED = {
    "seconds",
    "oracle_seconds",
    "speedup",
    "train_seconds",
    "prepare_seconds",
    "threads",
    "seconds_error",
    "timings",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    held = clustered(60, 60).interactions
    path = tmp_path_factory.mktemp("data") / "clustered.csv"
    pl.DataFrame({"user": held.users, "item": held.items}).write_csv(path)
    return str(path)


def plan(data, **changes):
    fields = {"systems": ("exact",), "methods": ("own", "naive"), "forget": ("users:0.2", "canary:40"), "seeds": (0,)}
    return Plan(data=data, settings={"exact": {"form": "ease", "ridge": "5"}}, **{**fields, **changes})


def untimed(rows):
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


@pytest.mark.slow
def test_there_is_a_row_for_every_combination_with_all_the_figures(data, tmp_path):
    rows = compare(plan(data, seeds=(0, 1), batches=(1, 4)), tmp_path / "out", jobs=1)
    assert [(row["seed"], row["forget"], row["method"]) for row in rows] == list(
        product((0, 1), ("users:0.2", "canary:40"), ("own", "naive"))
    )
    for row in rows:
        assert {"attack_auc_before", "attack_auc_after", "attack_auc_oracle", "recall@20_after", "ks_after"} <= set(row)
        assert {"parameter_distance", "speedup", "memory_bytes", "bytes_sent", "difference_auc_1"} <= set(row)
    assert all(row["parameter_distance"] <= 1e-9 for row in rows if row["method"] == "own")


@pytest.mark.slow
def test_processes_beside_each_other_measure_what_one_does(data, tmp_path):
    one = compare(plan(data), tmp_path / "one", jobs=1)
    two = compare(plan(data), tmp_path / "two", jobs=2)
    assert untimed(one) == untimed(two)


@pytest.mark.slow
def test_attacks_of_other_packages_have_columns_and_are_found_by_processes_of_their_own(data, tmp_path, install):
    install("retract.attacks", second="tests.auditing.plugged:SECOND")
    mine = plan(data, attacks=("second",))
    rows = compare(mine, tmp_path / "out", jobs=2)
    assert all(row["attack_second_auc_before"] == row["score_auc_before"] for row in rows)
    usual = compare(plan(data), tmp_path / "usual", jobs=1)
    extra = {f"attack_second_auc_{model}" for model in ("before", "after", "oracle")}
    assert [{name: value for name, value in row.items() if name not in extra} for row in untimed(rows)] == untimed(
        usual
    )
    with pytest.raises(FolderError, match="other data or settings"):
        compare(plan(data), tmp_path / "out", jobs=1)
    page = write_comparison(tmp_path / "page", rows, {}).read_text()
    assert "AUC of attack second" in page
    assert "AUC of attack second" not in write_comparison(tmp_path / "page", usual, {}).read_text()


@pytest.mark.slow
def test_processes_beside_each_other_share_the_threads_and_leave_the_environment(data, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    assert {row["threads"] for row in compare(plan(data), tmp_path / "one", jobs=1)} == {7}
    beside = {row["threads"] for row in compare(plan(data), tmp_path / "two", jobs=2)}
    assert beside == {max(1, cores() // 2)}
    assert dict(os.environ) == before


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_where_it_was(data, tmp_path, monkeypatch):
    out, ran = tmp_path / "out", []
    whole = compare(plan(data), out, jobs=1)
    part = next((out / "rows").glob("*users*"))
    lines = part.read_text().splitlines()
    part.write_text(lines[0] + "\n" + lines[1][:40])  # killed while the second row was written
    measure = comparison._measure

    def counted(plan, cell, methods, out):
        ran.append((cell.forget, methods))
        return measure(plan, cell, methods, out)

    monkeypatch.setattr(comparison, "_measure", counted)
    assert untimed(compare(plan(data), out, jobs=1)) == untimed(whole)
    assert ran == [("users:0.2", ("naive",))]
    ran.clear()
    assert len(compare(plan(data, seeds=(0, 1), methods=("own", "naive", "retrain")), out, jobs=1)) == 12
    assert [methods for _, methods in ran] == [("retrain",), ("retrain",), *[("own", "naive", "retrain")] * 2]


def test_a_smaller_plan_takes_its_rows_from_a_larger_one(data, tmp_path):
    compare(plan(data, forget=("users:0.2",)), tmp_path / "out", jobs=1)
    rows = compare(plan(data, forget=("users:0.2",), methods=("naive",)), tmp_path / "out", jobs=1)
    assert [row["method"] for row in rows] == ["naive"]


def test_rows_of_other_data_or_settings_never_mix(data, tmp_path):
    out = tmp_path / "out"
    compare(plan(data, forget=("users:0.2",)), out, jobs=1)
    with pytest.raises(FolderError, match="other data or settings"):
        compare(plan(data, share=0.25), out, jobs=1)
    assert len(compare(plan(data, forget=("users:0.2",), share=0.25), out, jobs=1, force=True)) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    with pytest.raises(FolderError, match="holds files and no comparison"):
        compare(plan(data), tmp_path / "mine", jobs=1, force=True)


def test_forget_sets_from_files_of_like_names_never_mix(data, tmp_path):
    sets = []
    for name, user in (("a b.csv", 1), ("a_b.csv", 2)):
        held = comparison.Cell("exact", {}, "users:0.5", "unshare", 1.0, 0).drawn(comparison.load(data))[0].shared
        mine = held.of_users([held.catalog.user(user)])
        pl.DataFrame({"user": user, "item": held.catalog.item_ids[mine.items]}).write_csv(tmp_path / name)
        sets.append(f"file:{tmp_path / name}")
    found = compare(plan(data, forget=tuple(sets), share=1.0, methods=("own",)), tmp_path / "out", jobs=1)
    assert [row["forget"] for row in found] == sets


def test_methods_that_do_not_fit_are_left_out_and_said_so(data, tmp_path):
    mixed = plan(data, methods=("own", "fru"))
    assert mixed.fitting("exact") == ("own",)
    assert [(one["system"], one["method"]) for one in mixed.skipped()] == [("exact", "fru")]
    with pytest.raises(ConfigError, match="none of fru fits any of exact"):
        plan(data, methods=("fru",))


def test_an_empty_forget_set_shows_before_anything_is_trained(data, tmp_path):
    with pytest.raises(ConfigError, match="too few to hide in"):
        compare(plan(data, forget=("canary:99999",)), tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


def test_systems_and_methods_are_told_apart_by_their_names():
    assert named(["exact", "naive", "fedshare", "exact"]) == (("exact", "fedshare"), ("naive",))
    with pytest.raises(ConfigError, match="unknown system 'exat'"):
        named(["exat"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0.0}, "share is 0"),
        ({"forget": ("users",)}, "none of"),
        ({"forget": ()}, "no forget set"),
        ({"systems": ()}, "no system"),
        ({"systems": ("lightgcn",)}, "not among the systems"),
        ({"methods": ("own", "magic")}, "unknown method 'magic'"),
        ({"attacks": ("magic",)}, "unknown attack 'magic'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(data, changes, message):
    with pytest.raises(ConfigError, match=message):
        plan(data, **changes)


def test_rows_can_be_written_as_json(data, tmp_path):
    rows = compare(plan(data), tmp_path / "out", jobs=1)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_a_column_says_what_is_shared_unless_a_share_is_given(data, tmp_path):
    rows = pl.read_csv(data)
    said = rows.with_columns(shared=pl.col("item") % 3 == 0)
    said.write_csv(tmp_path / "said.csv")
    for share, told in ((None, None), (0.25, 0.25)):
        (cell,) = plan(str(tmp_path / "said.csv"), forget=("users:0.2",), share=share).cells()
        base = cell.drawn(load(str(tmp_path / "said.csv")))[0]
        every_third = (base.shared.catalog.item_ids[base.shared.items].astype(int) % 3 == 0).all()
        assert every_third == (share is None)
        assert about(plan(str(tmp_path / "said.csv"), share=share), "")["share"] == told
    assert about(plan(data), "")["share"] == 0.5
