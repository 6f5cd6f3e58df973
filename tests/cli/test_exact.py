"""What only closed forms can: take in new data, ship, tune; and withdrawals in batches."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from numpy.linalg import norm

from retract.stores.local import engine_of
from tests.cli.commands import on_disk, retract
from tests.stores.folders import load

SHARE_ALL = ("--share", 1, "--json")


@pytest.fixture(params=["ease", "filter", "spectral"])
def exact(request: pytest.FixtureRequest, ratings: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    form = ("--set", f"form={request.param}", "--set", "dimension=4")
    assert retract("train", "exact", "--data", ratings, "--out", out, *form, "--test", 0.2).code == 0
    return out


@pytest.fixture
def news(tmp_path: Path) -> Path:
    """A new user and new items, an old user's new items, and one interaction that is there already."""
    path = tmp_path / "news.csv"
    lines = [*(f"new,{item},5,1" for item in ("i0", "i1", "j0", "j1")), "u1,j0,4,2", "u1,j1,4,2"]
    path.write_text("\n".join(["user,item,rating,timestamp", *lines]) + "\n")
    return path


def assert_like_trained(folder: Path) -> None:
    """The folder's model is the one that training on what it holds gives."""
    held = load(folder)
    assert held.devices is not None
    want = held.system.server.train(held.trained.shared, engine_of(held.system, held.devices), seed=0)
    assert held.trained.model.keys() == want.model.keys()
    for name, table in want.model.items():
        own = held.trained.model[name]
        assert own.shape == table.shape
        assert norm(own - table) <= 1e-9 * norm(table)


@pytest.mark.slow
def test_new_data_enters_as_if_it_had_been_there_from_the_start(exact: Path, news: Path) -> None:
    before = retract("status", exact, "--json").json
    report = retract("extend", exact, "--data", news, *SHARE_ALL).json
    assert (report["added"], report["already_held"]) == (6, 0)
    assert (report["users"], report["items"]) == (before["users"] + 1, before["items"] + 2)
    assert report["shared"] == before["shared"] + 6
    assert_like_trained(exact)
    assert retract("recommend", exact, "--user", "new", "-k", 3, "--json").json["items"]


@pytest.mark.slow
def test_the_same_data_twice_changes_no_byte(exact: Path, news: Path) -> None:
    retract("extend", exact, "--data", news, *SHARE_ALL)
    before = on_disk(exact)
    again = retract("extend", exact, "--data", news, *SHARE_ALL).json
    assert (again["added"], again["already_held"]) == (0, 6)
    assert on_disk(exact) == before


@pytest.mark.slow
def test_new_data_and_withdrawals_may_follow_each_other(exact: Path, news: Path) -> None:
    for command in (
        ("erase", exact, "--user", "u2"),
        ("extend", exact, "--data", news, "--share", 0.5),
        ("unlearn", exact),
        ("erase", exact, "--user", "new"),
        ("unshare", exact, "--user", "u3"),
        ("unlearn", exact),
    ):
        assert retract(*command).code == 0
        assert_like_trained(exact)
    assert "unknown user 'new'" in retract("recommend", exact, "--user", "new").refusal()
    assert retract("extend", exact, "--data", news, *SHARE_ALL).json["added"] == 0  # who was erased stays away
    assert retract("extend", exact, "--data", news, "--again", *SHARE_ALL).json["added"] == 4
    assert_like_trained(exact)


@pytest.mark.slow
def test_what_is_asked_to_be_erased_does_not_come_back_by_the_side_door(exact: Path, news: Path) -> None:
    retract("extend", exact, "--data", news, *SHARE_ALL)
    retract("erase", exact, "--user", "new", "--items", "j0")
    answer = retract("extend", exact, "--data", news, *SHARE_ALL)
    assert answer.json["added"] == 0
    assert retract("unlearn", exact, "--json").json["forgotten"] == 1


def test_what_was_held_out_stays_held_out(exact: Path, ratings: Path) -> None:
    test = load(exact).test
    assert retract("extend", exact, "--data", ratings, *SHARE_ALL).json["added"] == 0
    assert load(exact).test == test


@pytest.mark.slow
def test_data_without_ratings_may_follow_data_with_them(exact: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text("user,item\nnew,i0\nnew,i3\n")
    report = retract("extend", exact, "--data", tmp_path / "plain.csv", *SHARE_ALL).json
    assert report["added"] == 2
    assert any("ratings are dropped" in note for note in report["notes"])
    assert_like_trained(exact)


def test_what_trains_by_rounds_cannot_be_extended(folder: Path, news: Path) -> None:
    before = on_disk(folder)
    line = retract("extend", folder, "--data", news).refusal()
    assert "fedshare cannot take in new data without training again; exact and personalfr can" in line
    assert on_disk(folder) == before


@pytest.mark.slow
def test_a_batch_waits_until_enough_users_ask(exact: Path) -> None:
    retract("erase", exact, "--user", "u1", "--fraction", 0.5)
    retract("erase", exact, "--user", "u1")
    before = on_disk(exact)
    waiting = retract("unlearn", exact, "--at-least", 2, "--json").json
    assert (waiting["requests"], waiting["waiting"], waiting["at_least"]) == (0, 1, 2)
    assert on_disk(exact) == before
    assert "1 user(s) wait until 2 withdraw what the model learnt" in retract("unlearn", exact, "--at-least", 2).out
    retract("unshare", exact, "--user", "u2")
    assert retract("unlearn", exact, "--at-least", 2, "--json").json["requests"] == 3
    assert_like_trained(exact)
    assert "at-least is 0" in retract("unlearn", exact, "--at-least", 0).refusal()


@pytest.mark.slow
def test_who_withdraws_nothing_shared_does_not_fill_a_batch(exact: Path) -> None:
    held = load(exact)
    user = held.test.active_users()[0]
    name, items = held.catalog.user_ids[user], held.catalog.item_ids[held.test.items_of(user)]
    other = next(one for one in ("u1", "u2") if one != name)
    retract("unshare", exact, "--user", other)
    retract("erase", exact, "--user", name, "--items", ",".join(items))
    assert retract("unlearn", exact, "--at-least", 2, "--json").json["waiting"] == 2
    assert retract("unlearn", exact, "--json").json["requests"] == 2


@pytest.mark.slow
def test_measuring_can_be_left_out(exact: Path) -> None:
    retract("erase", exact, "--user", "u1")
    done = retract("unlearn", exact, "--no-measure", "--json").json
    assert done["forgotten"] == 5
    assert set(done["metrics"].values()) == set(done["metrics_before"].values()) == {None}
    assert_like_trained(exact)


@pytest.mark.slow
def test_a_shipped_file_recommends_without_the_folder(exact: Path, tmp_path: Path) -> None:
    file = tmp_path / "model"
    report = retract("ship", exact, "--out", file, "--json").json
    assert report["bytes"] == file.stat().st_size
    assert report["metrics"].keys() == report["metrics_whole"].keys() == {"recall@20", "ndcg@20"}
    shutil.rmtree(exact)
    best = retract("recommend", file, "--items", "i0,i1", "-k", 3, "--json").json["items"]
    assert len(best) == 3
    assert not {"i0", "i1"} & {line["item"] for line in best}
    assert "unknown item 'i99'" in retract("recommend", file, "--items", "i99").refusal()
    file.write_bytes(file.read_bytes()[:-9])
    assert "is damaged" in retract("recommend", file, "--items", "i0").refusal()


def test_tuning_says_how_to_train_next(tmp_path: Path) -> None:
    ratings = tmp_path / "many.csv"
    pairs = [f"u{user},i{item}" for user in range(20) for item in range(40) if (user + item) % 3]
    ratings.write_text("\n".join(["user,item", *pairs]) + "\n")
    grid = ("--grid", "ridge=1,10,100", "--set", "form=ease", "--set", "ease_exponent=0.25")
    found = retract("tune", "exact", "--data", ratings, *grid, "--json").json
    assert len(found["candidates"]) == 3
    assert found["best"] == found["candidates"][0]["settings"]
    told = retract("tune", "exact", "--data", ratings, *grid).out
    assert f"--set form=ease --set ease_exponent=0.25 --set ridge={found['best']['ridge']:g}" in " ".join(told.split())
    assert (
        "tune knows how to choose settings of exact, not of fedshare"
        in retract("tune", "fedshare", "--data", ratings).refusal()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", "ridge=1,two"], r"--grid ridge=1,two takes numbers"),
        (["--grid", "rigde=1"], r"exact has no setting 'rigde'"),
        (["--grid", "ridge=-1"], r"setting ridge of exact is -1.0: it must be a number above 0"),
        (["--share", "0"], r"nobody shares enough"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(ratings: Path, options: list[str], message: str) -> None:
    assert message in retract("tune", "exact", "--data", ratings, *options).refusal()


@pytest.mark.parametrize("size", ["nan", "inf", "-1", "0"])
def test_a_size_that_is_none_is_refused(exact: Path, tmp_path: Path, size: str) -> None:
    answer = retract("ship", exact, "--out", tmp_path / "m", f"--max-mb={size}")
    assert answer.code == 2
    assert "--max-mb is" in answer.err
    assert not (tmp_path / "m").exists()
