"""Strangers' files through the commands: options to read them by, what is left out, and lists that are empty."""

from pathlib import Path

import pytest

from retract.stores.folder import TrainedFolder
from tests.cli.commands import retract

SHARE = ("--share", 1, "--test", 0.2)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="latin-1")
    return path


def liked(n_users: int = 12) -> list[str]:
    """Rows of many users, each with five of eight items."""
    return [f"u{user},i{(user + place) % 8},{place},{100 + user}" for user in range(n_users) for place in range(5)]


def test_a_file_without_a_header_in_another_encoding_trains_by_the_options_that_the_refusals_name(
    tmp_path: Path,
) -> None:
    data = write(tmp_path / "bare.csv", *liked(), "ü,i1,4,1", "ü,i2,4,1", "ü,i3,4,1")
    train = ("train", "exact", "--data", data, "--out", tmp_path / "m", *SHARE)
    first = retract(*train)
    assert (first.code, "--encoding latin-1" in first.err) == (2, True)
    second = retract(*train, "--encoding", "latin-1")
    assert (second.code, "--columns user,item,rating,timestamp" in second.err) == (2, True)
    done = retract(*train, "--encoding", "latin-1", "--columns", "user,item,rating,timestamp", "--json")
    assert (done.code, done.json["users"]) == (0, 13)
    assert "left out because rated 0 or below, which is no like: 12 of 63" in done.json["notes"]
    assert retract("recommend", tmp_path / "m", "--user", "ü", "--json").code == 0


def test_the_lowest_rating_of_a_like_can_be_given_to_train_and_to_extend(tmp_path: Path) -> None:
    data = write(tmp_path / "data.csv", "user,item,rating,timestamp", *liked())
    answer = retract(
        "train", "exact", "--data", data, "--out", tmp_path / "m", *SHARE, "--at-least-rating", 3, "--json"
    )
    assert "left out because rated below 3: 36 of 60" in answer.json["notes"]
    news = write(tmp_path / "news.csv", "user,item,rating,timestamp", "v,i1,5,1", "v,i2,2,1", "v,i3,0,1")
    more = retract("extend", tmp_path / "m", "--data", news, "--share", 1, "--json")
    assert more.json["added"] == 2
    assert "left out because rated 0 or below, which is no like: 1 of 3" in more.json["notes"]
    write(news, "user,item,rating,timestamp", "w,i1,5,1", "w,i2,2,1", "w,i3,0,1")
    most = retract("extend", tmp_path / "m", "--data", news, "--share", 1, "--at-least-rating", 3, "--json")
    assert (most.json["added"], most.json["notes"]) == (1, ["left out because rated below 3: 2 of 3"])


def test_who_has_every_item_is_told_that_nothing_is_left(tmp_path: Path) -> None:
    rows = [f"all,i{item},4,9" for item in range(8)]
    data = write(
        tmp_path / "data.csv",
        "user,item,rating,timestamp,fold",
        *(f"{row},train" for row in liked() + rows),
        "u0,i7,4,1,test",
    )
    assert retract("train", "exact", "--data", data, "--out", tmp_path / "m", "--share", 1).code == 0
    answer = retract("recommend", tmp_path / "m", "--user", "all", "--json")
    assert (answer.code, answer.json["items"]) == (0, [])
    assert answer.err == "note: nothing is left to recommend: the user has had every item\n"
    assert retract("recommend", tmp_path / "m", "--user", "u1").err == ""


@pytest.mark.parametrize("times", [True, False])
def test_the_order_of_rows_that_say_a_pair_twice_changes_no_byte_of_the_model(tmp_path: Path, times: bool) -> None:
    twice = [*liked(), "u1,i2,5,500", "u1,i2,1,50", "u2,i3,2,102", "u2,i3,4,102"]
    rows = [row if times else row.rpartition(",")[0] for row in twice]
    header = "user,item,rating,timestamp" if times else "user,item,rating"
    digests = []
    for name, some in (("a", rows), ("b", rows[::-1])):
        data = write(tmp_path / f"{name}.csv", header, *some)
        assert retract("train", "exact", "--data", data, "--out", tmp_path / name, *SHARE).code == 0
        files = TrainedFolder(tmp_path / name).manifest().files
        digests.append({part: files[part] for part in ("model.safetensors", "shared.safetensors", "catalog.json")})
    assert digests[0] == digests[1]


def test_tune_goes_by_likes_and_repeats_how_the_data_is_read(tmp_path: Path) -> None:
    rows = [f"u{user},i{(user + place) % 30},{place},1" for user in range(12) for place in range(21)]
    data = write(tmp_path / "data.csv", *rows)
    answer = retract(
        "tune", "exact", "--data", data, "--columns", "user,item,rating,timestamp", "--grid", "ridge=10,50"
    )
    assert "left out because rated 0 or below, which is no like: 12 of 252" in answer.err
    assert f"--data {data} --columns user,item,rating,timestamp --set" in " ".join(answer.out.split())
