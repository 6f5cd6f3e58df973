"""What is shared: by a ratio, else by a column of the data, else what the system usually takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import SETTINGS, retract
from tests.stores.folders import TINY_OF, items, load

CHOSEN = {(user, item) for user in range(6) for item in range(5) if (user + item) % 3 == 0}


def write(path: Path, column: str = "shared") -> Path:
    """Users u0, u1, ... who had five items each and share some of them; the last of the five is held out."""
    pairs = [(user, item) for user in range(6) for item in range(5)]
    rows = [
        f"u{user},i{(user + item) % 8},{str((user, item) in CHOSEN).lower()},{'test' if item == 4 else 'train'}"
        for user, item in pairs
    ]
    path.write_text("\n".join([f"user,item,{column},fold", *rows]) + "\n")
    return path


def chosen(user: int) -> set[str]:
    return {f"i{(user + item) % 8}" for item in range(4) if (user, item) in CHOSEN}


@pytest.mark.parametrize(("column", "options"), [("shared", []), ("mine", ["--shared-col", "mine"])])
def test_each_user_s_own_choice_is_kept(tmp_path: Path, column: str, options: list[str]) -> None:
    data, out = write(tmp_path / "data.csv", column), tmp_path / "run"
    assert retract("train", "fedshare", "--data", data, "--out", out, *SETTINGS[1:], *options).code == 0
    held = load(out)
    for user in range(6):
        assert items(held, "shared", f"u{user}") == chosen(user)
        assert len(items(held, "private", f"u{user}")) == 4 - len(chosen(user))


def test_a_ratio_that_is_given_goes_before_the_column(tmp_path: Path) -> None:
    data, out = write(tmp_path / "data.csv"), tmp_path / "run"
    assert retract("train", "exact", "--data", data, "--out", out, "--share", 1).code == 0
    assert not len(load(out).sharing.private)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["exact", "lightgcn", "receraser", "unlearnrec", "personalfr"])
def test_where_nothing_says_it_a_server_takes_all_and_devices_keep_all(
    ratings: Path, tmp_path: Path, system: str
) -> None:
    pairs = [f"--set={name}={value}" for name, value in TINY_OF[system].items()]
    report = retract("train", system, "--data", ratings, "--out", tmp_path / "run", *pairs, "--json").json
    private = system == "personalfr"
    assert (report["shared"], report["private"]) == ((0, 60) if private else (60, 0))
    assert (report["interactions"], report["learnt"], report["held_out"], report["measured_on"]) == (60, 60, 0, 0)
    assert set(report["metrics"].values()) == {None}


def test_what_users_choose_to_share_has_to_be_said(ratings: Path, tmp_path: Path) -> None:
    line = retract("train", "fedshare", "--data", ratings, "--out", tmp_path / "run", *SETTINGS[1:]).refusal()
    assert "for the users to choose: give a share, such as --share 0.5, or a column named shared" in line
    assert not (tmp_path / "run").exists()


def test_new_data_is_shared_as_the_first_was(ratings: Path, tmp_path: Path) -> None:
    news = tmp_path / "news.csv"
    news.write_text("user,item,rating\nnew,i0,5\nnew,i3,4\nnew,j0,3\nnew,i1,4\n")
    for share, shared in (("0.5", 2), ("1", 4)):
        out = tmp_path / share
        assert retract("train", "exact", "--data", ratings, "--out", out, "--share", share).code == 0
        assert retract("extend", out, "--data", news).code == 0
        assert len(items(load(out), "shared", "new")) == shared


def test_after_choices_one_by_one_new_data_without_any_is_refused(ratings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert retract("train", "exact", "--data", write(tmp_path / "data.csv"), "--out", out).code == 0
    assert "give a share, such as --share 0.5" in retract("extend", out, "--data", ratings).refusal()
    assert retract("extend", out, "--data", ratings, "--share", 1).code == 0


def test_a_column_that_says_something_else_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("user,item,shared\na,x,true\na,y,perhaps\nb,x,false\n")
    line = retract("train", "exact", "--data", data, "--out", tmp_path / "run").refusal()
    assert "data.csv, line 3, column 'shared': 'perhaps' does not say whether this is shared" in line


def test_of_new_data_too_the_column_says_what_is_shared(ratings: Path, tmp_path: Path) -> None:
    out, news = tmp_path / "run", tmp_path / "news.csv"
    assert retract("train", "exact", "--data", ratings, "--out", out).code == 0
    news.write_text("user,item,rating,shared\nnew,i0,5,1\nnew,i3,4,0\nnew,j0,3,0\nlate,i1,4,1\n")
    assert retract("extend", out, "--data", news).code == 0
    held = load(out)
    assert (items(held, "shared", "new"), items(held, "private", "new")) == ({"i0"}, {"i3", "j0"})
    assert items(held, "shared", "late") == {"i1"}
