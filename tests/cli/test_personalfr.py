"""PersonalFR by commands: ratings from file to prediction, and what is said where the feedback is of the other kind."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retract.auditing.relearning import LIMIT
from retract.stores.devices import NEVER
from retract.stores.held import MODEL, Held, state_digests
from tests.cli.commands import on_disk, retract
from tests.stores.folders import load

QUICK = ["form=paper", "hidden=16", "code=8", "rounds=4", "participation=1", "min_support=0"]


def command(data: Path, out: Path, *settings: str) -> list[object]:
    pairs = (part for pair in (*QUICK, *settings) for part in ("--set", pair))
    return ["train", "personalfr", "--data", data, "--out", out, "--share", 0.5, "--test", 0.2, *pairs, "--json"]


def without_ratings(ratings: Path, folder: Path) -> Path:
    lines = ratings.read_text().splitlines()
    keep = [index for index, name in enumerate(lines[0].split(",")) if name != "rating"]
    out = folder / "implicit.csv"
    out.write_text("\n".join(",".join(line.split(",")[index] for index in keep) for line in lines) + "\n")
    return out


def started(held: Held) -> list[int]:
    """The clients that keep a state of the model's run."""
    assert held.devices is not None
    return held.devices.hosted[held.devices.states[held.trained.run].rounds != NEVER].tolist()


@pytest.fixture(scope="session")
def trained(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained folder; ask for `folder` to change it."""
    out = tmp_path_factory.mktemp("personalfr") / "run"
    assert retract(*command(ratings, out)).code == 0
    return out


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_ratings_are_predicted_and_judged(ratings: Path, tmp_path: Path) -> None:
    report = retract(*command(ratings, tmp_path / "run")).json
    assert report["metrics"].keys() == {"recall@20", "ndcg@20", "rmse", "mae"}
    assert_judged(report, load(tmp_path / "run"))
    # By item the balance of the decoder's row and bias, and the codes of the users whom it was taken over.
    assert report["memory_bytes"] == 4 * report["items"] * 17 + 8 * report["users"]
    assert report["bytes_up"] > report["bytes_down"] > report["rounds"] * report["users"] > 0


def assert_judged(report: dict[str, Any], held: Held) -> None:
    """The errors that were told are those of the devices' predictions for what was held out."""
    test = held.test
    assert test.ratings is not None
    predicted = held.recommender().scores(np.arange(test.n_users), held.interactions)[test.users, test.items]
    errors = predicted - test.ratings
    assert report["metrics"]["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5)
    assert report["metrics"]["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)


def test_recommendations_are_predicted_ratings_within_the_scale(folder: Path) -> None:
    held = load(folder)
    lowest, highest = (float(held.trained.model[end]) for end in ("lowest", "highest"))
    user = str(held.catalog.user_ids[0])
    scores = [line["score"] for line in retract("recommend", folder, "--user", user, "--json").json["items"]]
    assert scores == sorted(scores, reverse=True)
    assert all(lowest <= score <= highest for score in scores)


def test_the_expected_rating_stands_beside_the_score_that_lists_go_by(ratings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    quick = [part for pair in ("dimension=4", "links=2", "start_rounds=2", "rounds=2") for part in ("--set", pair)]
    assert retract("train", "personalfr", "--data", ratings, "--out", folder, *quick).code == 0
    held = load(folder)
    lowest, highest = (float(held.trained.model[end]) for end in ("lowest", "highest"))
    user = str(held.catalog.user_ids[0])
    lines = retract("recommend", folder, "--user", user, "--json").json["items"]
    scores = [line["score"] for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) < lowest  # they are standardised, and no ratings
    assert all(lowest <= line["rating"] <= highest for line in lines)
    assert "predicted rating" in retract("recommend", folder, "--user", user).out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_a_user_can_withdraw_and_is_still_served(folder: Path, kind: str) -> None:
    before = load(folder)
    user = str(before.catalog.user_ids[1])
    assert 1 in started(before)
    assert retract(kind, folder, "--user", user, "--fraction", "0.5").code == 0
    report = retract("unlearn", folder, "--json").json
    assert report["requests"] == 1
    assert {"rmse", "mae"} <= report["metrics"].keys()
    after = load(folder)
    kept = state_digests(before.trained)[MODEL] == state_digests(after.trained)[MODEL]
    assert kept == (kind == "unshare")
    assert (1 in started(after)) == (kind == "unshare")
    assert retract("recommend", folder, "--user", user, "--json").json["items"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_withdrawing_everything_can_be_audited(folder: Path, tmp_path: Path, monkeypatch, kind: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    user = str(load(folder).catalog.user_ids[1])
    assert retract(kind, folder, "--user", user, "--all").code == 0
    report = retract("unlearn", folder, "--audit", "--json").json
    (audit,) = report["audits"]
    assert audit["after"]["rmse"] == pytest.approx(report["metrics"]["rmse"], rel=1e-5)
    if kind == "unshare":  # the devices keep what they had, so they predict it as before
        assert audit["after"]["forgotten_rmse"] == audit["before"]["forgotten_rmse"]
    else:  # of what was learnt and is known no more predictions are worse
        assert audit["after"]["forgotten_rmse"] > audit["before"]["forgotten_rmse"]


def test_what_has_no_ratings_is_ranked_and_not_predicted(ratings: Path, tmp_path: Path) -> None:
    report = retract(*command(without_ratings(ratings, tmp_path), tmp_path / "run")).json
    assert report["metrics"].keys() == {"recall@20", "ndcg@20"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["feedback=implicit"], "implicit feedback is asked for and the data has ratings"),
        (["highest=3"], "ratings lie beyond 3, the highest of the scale"),
        (["lowest=five"], "setting lowest of personalfr is 'five': it must be a number"),
        (["lowest=5", "highest=1"], "lowest is 5 and highest 1: a scale goes up"),
        (["mode=central"], "setting mode of personalfr is 'central': it must be one of personal, fedavg, joint"),
    ],
)
def test_what_does_not_fit_the_ratings_is_one_line(ratings: Path, tmp_path: Path, settings, message: str) -> None:
    answer = retract(*command(ratings, tmp_path / "run", *settings))
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_ratings_are_asked_for_where_there_are_none(ratings: Path, tmp_path: Path) -> None:
    data = without_ratings(ratings, tmp_path)
    answer = retract(*command(data, tmp_path / "run", "feedback=explicit"))
    assert answer.code == 2
    assert "explicit feedback is asked for and the data has no ratings: name their column (--rating-col)" in answer.err


def test_the_part_held_out_can_be_chosen(ratings: Path, tmp_path: Path) -> None:
    sizes = []
    for part in ("0.1", "0.4"):
        out = tmp_path / part
        assert retract(*command(ratings, out), "--test", part).code == 0
        sizes.append(len(load(out).test))
    assert sizes[0] < sizes[1]
    answer = retract(*command(ratings, tmp_path / "run"), "--test", "1.5")
    assert answer.code == 2
    assert "test part 1.5 lies outside (0, 1)" in answer.err


@pytest.mark.slow
def test_clients_can_hold_many_users(ratings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    report = retract(*command(ratings, out), "--clients", 3).json
    held = load(out)
    assert_judged(report, held)
    assert held.sharing.client_of.max() == 2
    user = str(held.catalog.user_ids[0])
    assert retract("erase", out, "--user", user, "--all").code == 0
    assert retract("unlearn", out, "--json").json["requests"] == 1
    assert len(started(load(out))) == 2
    answer = retract("train", "fedshare", "--data", ratings, "--out", tmp_path / "other", "--share", 1, "--clients", 3)
    assert answer.refusal() == "error: fedshare has one user per client: leave --clients out"


def news(folder: Path, *rows: str, header: str = "user,item,rating") -> Path:
    path = folder / "news.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


@pytest.mark.slow
def test_who_joins_later_is_served_from_the_frozen_decoder(folder: Path, tmp_path: Path) -> None:
    before = load(folder)
    known = before.interactions | before.test
    untouched = np.setdiff1d(np.arange(known.n_items), known.items_of(before.catalog.user("u1")))[0]
    more = f"u1,{before.catalog.item_ids[untouched]},2"
    data = news(tmp_path, "new,i0,5", "new,i3,1", "new,i4,4", more)
    report = retract("extend", folder, "--data", data, "--share", 0.5, "--json").json
    after = load(folder)
    assert report["users"] == len(before.interactions.active_users()) + 1
    assert not {after.catalog.user(name) for name in ("new", "u1")} & set(started(after))
    assert set(started(before)) - {before.catalog.user("u1")} == set(started(after))
    kept = {name: table for name, table in after.trained.model.items() if name != "support"}
    assert kept.keys() == before.trained.model.keys() - {"support"}
    assert all(np.array_equal(table, before.trained.model[name]) for name, table in kept.items())
    assert after.trained.model["support"].sum() == before.trained.model["support"].sum() + 4
    for user in ("new", "u1"):
        assert retract("recommend", folder, "--user", user, "--json").json["items"]
    assert retract("erase", folder, "--user", "new", "--all").code == 0
    assert retract("unlearn", folder, "--json").json["requests"] == 1


def test_new_items_are_left_out_with_a_note_and_the_users_come_in(folder: Path, tmp_path: Path) -> None:
    data = news(tmp_path, "new,j9,5", "new,i0,4", "late,j9,3", header="user,item,rating")
    answer = retract("extend", folder, "--data", data, "--share", 0, "--json")
    assert answer.json["added"] == 1
    left = "left out, for personalfr knows only the items that it was trained on: 2 interactions with 1 new items"
    assert answer.json["notes"] == [left]
    assert "j9" not in load(folder).catalog.item_ids
    assert "late" not in load(folder).catalog.known_users
    found = retract("recommend", folder, "--user", "new")
    assert "predicted rating" in found.out


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("user,item", "new,i0", "explicit feedback is asked for and the data has no ratings"),
        ("user,item,rating", "new,i0,7", "1 ratings lie beyond 5, the highest of the scale"),
    ],
)
def test_what_the_decoder_cannot_take_in_is_one_line_and_nothing_is_changed(
    folder: Path, tmp_path: Path, header: str, row: str, message: str
) -> None:
    before = on_disk(folder)
    answer = retract("extend", folder, "--data", news(tmp_path, row, header=header), "--share", 0)
    assert answer.code == 2
    assert message in answer.refusal()
    assert on_disk(folder) == before


@pytest.mark.parametrize("system", ["exact", "lightgcn"])
def test_a_system_without_clients_of_many_users_refuses_them(ratings: Path, tmp_path: Path, system: str) -> None:
    answer = retract("train", system, "--data", ratings, "--out", tmp_path / "run", "--clients", 3)
    assert answer.refusal() == f"error: {system} has one user per client: leave --clients out"


def test_a_batch_counts_who_erases_what_only_their_clients_held(ratings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert retract(*command(ratings, out), "--share", 0).code == 0
    users = [str(user) for user in load(out).catalog.user_ids[:2]]
    for number, user in enumerate(users):
        assert retract("erase", out, "--user", user, "--all").code == 0
        assert retract("unlearn", out, "--at-least", 2, "--json").json["requests"] == 2 * number


def test_unsharing_changes_no_decoder_and_waits_only_for_what_does(folder: Path) -> None:
    one, other = (str(user) for user in load(folder).catalog.user_ids[:2])
    assert retract("unshare", folder, "--user", one, "--all").code == 0
    assert retract("unlearn", folder, "--at-least", 2, "--json").json["requests"] == 1
    assert retract("unshare", folder, "--user", other, "--all").code == 0
    assert retract("erase", folder, "--user", one, "--all").code == 0
    assert retract("unlearn", folder, "--at-least", 2, "--json").json["waiting"] == 2


@pytest.mark.slow
def test_what_is_printed_and_the_comparison_s_page_show_rmse(ratings: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    stars = tmp_path / "stars.csv"
    stars.write_text(ratings.read_text().replace("rating", "stars_given", 1))
    plan = ["compare", "--data", stars, "--systems", "personalfr", "--methods", "own", "--forget", "users:0.2"]
    pairs = [part for pair in QUICK for part in ("--set", f"personalfr.{pair}")]
    out = tmp_path / "out"
    answer = retract(
        *plan, "--kind", "erase", "--jobs", 1, "--out", out, "--rating-col", "stars_given", *pairs, "--json"
    )
    (row,) = answer.json["rows"]
    assert len({row[f"forgotten_rmse_{model}"] for model in ("before", "after", "oracle")}) == 3
    # None is reached in one round, as a closed form would be, and the model before has nothing to learn again.
    more = {2**n for n in range(1, LIMIT.bit_length())}
    assert {row["relearn_rounds_after"], row["relearn_rounds_oracle"]} <= more
    assert row["relearn_rounds_before"] is None
    page = html.unescape((out / "index.html").read_text())
    assert "RMSE of the forgotten" in page
    assert "--rating-col stars_given" in page


@pytest.mark.slow
def test_an_audit_for_people_shows_rmse_where_ratings_are_predicted(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert retract("erase", folder, "--user", str(load(folder).catalog.user_ids[1]), "--all").code == 0
    assert "of the withdrawn ratings" in retract("unlearn", folder, "--audit").out
