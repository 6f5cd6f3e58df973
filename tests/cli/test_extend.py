"""`extend` as people and scripts run it; what it does to the model is tested with the systems."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.commands import in_process_of_its_own, on_disk, retract, start
from tests.stores.folders import load, served

KEYS = {"system", "users", "items", "added", "shared", "private", "already_held", "seconds", "metrics"}
KEYS |= {"memory_bytes", "notes"}


@pytest.fixture(scope="session")
def trained(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exact") / "run"
    assert retract("train", "exact", "--data", ratings, "--out", out).code == 0
    return out


@pytest.fixture
def exact(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def news(tmp_path: Path) -> Path:
    return write(tmp_path / "news.csv", "user,item,rating", "new,i0,5", "new,j0,4", "new,j1,3", "new,i1,2", "u1,j0,4")


@pytest.mark.slow
def test_a_script_gets_its_keys_and_stdout_is_the_answer_alone(exact: Path, news: Path) -> None:
    before = retract("status", exact, "--json").json
    answer = in_process_of_its_own("extend", exact, "--data", news, "--json")
    found = answer.json
    assert answer.err == ""
    assert found.keys() >= KEYS
    assert found["metrics"].keys() == {"recall@20", "ndcg@20"}
    assert (found["system"], found["added"], found["already_held"], found["notes"]) == ("exact", 5, 0, [])
    after = retract("status", exact, "--json").json
    for name in ("system", "users", "items", "shared", "private"):
        assert found[name] == after[name]
    assert (after["users"], after["items"]) == (before["users"] + 1, before["items"] + 2)
    assert after["shared"] - before["shared"] + after["private"] - before["private"] == 5
    shared = load(exact).trained.shared
    assert len(shared.items_of(shared.catalog.user("new"))) == 4  # all, as in training


def test_a_new_user_gets_recommendations_at_once(exact: Path, news: Path) -> None:
    assert retract("extend", exact, "--data", news).code == 0
    best = retract("recommend", exact, "--user", "new", "-k", 5, "--json").json["items"]
    assert len(best) == 5
    assert not {"i0", "i1", "j0", "j1"} & {line["item"] for line in best}
    offered = {line["item"] for line in retract("recommend", exact, "--user", "u2", "-k", 17, "--json").json["items"]}
    assert {"j0", "j1"} <= offered


def test_people_are_told_what_was_added_and_what_was_not(exact: Path, news: Path) -> None:
    first = retract("extend", exact, "--data", news)
    assert (first.code, first.err) == (0, "")
    assert "5 interactions added" in first.out
    again = retract("extend", exact, "--data", news)
    assert "0 interactions added" in again.out
    assert again.err == "note: in the folder already, left as they are: 5\n"
    write(news, "user,item,rating", "new,k0,5", "new,k0,4")
    assert (
        retract("extend", exact, "--data", news).err
        == "note: 1 duplicate interaction left out: the mean of its ratings counts\n"
    )


@pytest.mark.parametrize("options", [[], ["--share", 1], ["--seed", 5]])
def test_the_same_file_twice_changes_no_byte(exact: Path, news: Path, options: list[object]) -> None:
    retract("extend", exact, "--data", news)
    before = on_disk(exact)
    assert retract("extend", exact, "--data", news, *options, "--json").json["added"] == 0
    assert on_disk(exact) == before


def test_columns_that_are_not_found_can_be_named(exact: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "odd.csv", "who,what,stars,part", "new,j0,4,train", "new,j1,4,train", "new,i0,4,test")
    names = ("--user-col", "who", "--item-col", "what", "--rating-col", "stars", "--fold-col", "part")
    assert retract("extend", exact, "--data", data, *names, "--json").json["added"] == 3
    held = load(exact)
    code = held.catalog.user("new")
    assert held.test.items_of(code).tolist() == [held.catalog.item("i0")]
    assert held.test.ratings is not None


def test_the_help_says_that_there_is_no_new_split() -> None:
    text = " ".join(retract("extend", "--help").out.split())
    assert (
        "All of FILE goes to training, but for what a fold column holds out; what DIR already holds is left out."
        in text
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], r"no such file: .*/data\.csv; check the path"),
        ("", [], r"data\.csv is empty"),
        ("user,item\n", [], r"data\.csv has a header but no rows"),
        ("a,item\n1,2\n", [], r"no user column; columns seen: a, item; name it with --user-col"),
        ("user,item,rating\nx,j0,five\n", [], r"data\.csv, line 2, column 'rating': 'five' is not a finite number"),
        ("user,item,fold\nx,j0,train\n", [], r"column 'fold': no row is 'test'"),
        ("user,item\nx,j0\n", ["--share", "2"], r"share ratio 2 lies outside \[0, 1\]"),
        ("user,item\nx,j0\n", ["--share", "nan"], r"share ratio nan lies outside \[0, 1\]"),
        ("user,item\nx,j0\n", ["--share", "x"], r"'--share': 'x' is not a valid float \(see retract extend --help\)"),
        ("user,item\nx,j0\n", ["--seed", "x"], r"'--seed': 'x' is not a valid integer"),
        ("user,item\nx,j0\n", ["--item-col", "what"], r"no column 'what'"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    exact: Path, content: str | None, options: list[str], message: str
) -> None:
    data = exact.parent / "data.csv"
    if content is not None:
        data.write_text(content)
    assert_refused(message, exact, data, *options)


@pytest.mark.parametrize("fault", ["none", "empty", "damaged"])
def test_a_folder_that_is_no_whole_trained_folder_is_refused(exact: Path, news: Path, fault: str) -> None:
    if fault == "damaged":
        (served(exact) / "model.safetensors").write_bytes(b"!")
    else:
        shutil.rmtree(exact)
        if fault == "empty":
            exact.mkdir()
    message = {"none": "does not exist", "empty": "is not a retract folder", "damaged": "model.safetensors is damaged"}
    assert_refused(message[fault], exact, news)


def test_what_trains_by_rounds_is_refused(folder: Path, news: Path) -> None:
    others = "exact and personalfr can$"
    assert_refused(f"error: fedshare cannot take in new data without training again; {others}", folder, news)


@pytest.mark.slow
def test_two_extensions_at_once_leave_one_whole_folder(exact: Path, news: Path, tmp_path: Path) -> None:
    """Whoever comes second either sees the first one's state or is refused; nothing is mixed or lost."""
    other = write(tmp_path / "other.csv", "user,item,rating", "late,k0,5", "late,i0,4")
    running = [start("extend", exact, "--data", data, "--json") for data in (news, other)]
    said = [process.communicate(timeout=60)[1].decode() for process in running]
    codes = [process.returncode for process in running]
    assert sorted(codes) in ([0, 0], [0, 2]), said
    held = load(exact)
    ids = set(held.catalog.user_ids.tolist())
    assert [name in ids for name in ("new", "late")] == [code == 0 for code in codes]
    assert held.recommender().scores(held.test.active_users(), held.interactions).shape[1] == held.catalog.n_items


def assert_refused(message: str, folder: Path, data: Path, *options: str) -> None:
    before = on_disk(folder.parent)
    for as_json in ([], ["--json"]):
        line = retract("extend", folder, "--data", data, *options, *as_json).refusal()
        assert re.search(message, line), line
    assert on_disk(folder.parent) == before
