from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retract.auditing.external import audit_scores
from retract.auditing.score_files import audit_files, read_scores
from retract.data import Columns, Interactions
from retract.errors import ConfigError, DataError
from tests.auditing.test_external import BEFORE, EVERYTHING, FORGET, LEFT, ORACLE, RETRAINED, Function

USERS = [f"u{user}" for user in FORGET.active_users()]
ITEMS = EVERYTHING.catalog.item_ids.tolist()


def table(function: Function, users: Sequence[str] = USERS, items: Sequence[str] = ITEMS) -> pl.DataFrame:
    """Every item's score of some users, as a service would write it."""
    scores = function(users, items)
    return pl.DataFrame(
        {"user": np.repeat(users, len(items)), "item": np.tile(items, len(users)), "score": scores.ravel()}
    )


def pairs(held: Interactions) -> pl.DataFrame:
    names = held.catalog
    return pl.DataFrame({"user": names.user_ids[held.users], "item": names.item_ids[held.items]})


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Full lists of all who forget, and who forgot and holds what."""
    written = {
        "before": tmp_path / "before.parquet",
        "after": tmp_path / "after.csv",
        "oracle": tmp_path / "oracle.tsv",
        "forget": tmp_path / "forget.csv",
        "history": tmp_path / "history.parquet",
    }
    table(BEFORE).write_parquet(written["before"])
    table(RETRAINED).write_csv(written["after"])
    table(ORACLE).write_csv(written["oracle"], separator="\t")
    pairs(FORGET).write_csv(written["forget"])
    pairs(LEFT).write_parquet(written["history"])
    return written


def test_files_of_whole_lists_say_what_the_functions_themselves_say(files: dict[str, Any]) -> None:
    found = audit_files(**files)
    asked = audit_scores(BEFORE, RETRAINED, oracle=ORACLE, forget=FORGET, history=LEFT)
    assert found.verdict.word == asked.verdict.word == "forgotten"
    for name, one in found.models.items():
        other = asked.models[name]
        assert one.attack_auc == pytest.approx(other.attack_auc, abs=0.02)
        assert one.rank_mean == pytest.approx(other.rank_mean, abs=1e-4)
    assert not found.notes
    alone = audit_files(files["before"], str(files["before"]), files["forget"], oracle=files["oracle"])
    assert alone.verdict.word == "not yet"
    assert alone.matched == "random"


def test_row_order_changes_nothing(files: dict[str, Any], tmp_path: Path) -> None:
    table(RETRAINED).sample(fraction=1, shuffle=True, seed=1).write_csv(tmp_path / "shuffled.csv")
    shuffled = {**files, "after": tmp_path / "shuffled.csv"}
    assert audit_files(**shuffled).to_json() == audit_files(**files).to_json()


def test_the_forgotten_and_enough_others_will_do_and_what_one_file_lacks_counts_in_none(
    files: dict[str, Any], tmp_path: Path
) -> None:
    """Of each user a part of the list; in the file after also without what the others have."""
    forgotten = pairs(FORGET).with_columns(forgotten=True)
    full = {name: table(function) for name, function in (("before", BEFORE), ("after", RETRAINED), ("oracle", ORACLE))}
    some = full["before"].select("user", "item").sample(fraction=0.7, seed=0)
    fewer = some.sample(fraction=0.9, seed=1)
    for name, whole in full.items():
        kept = fewer if name == "after" else some
        wanted = pl.concat([kept, forgotten.select("user", "item")]).unique()
        whole.join(wanted, on=["user", "item"]).write_parquet(tmp_path / f"{name}.parquet")
    parts = {name: tmp_path / f"{name}.parquet" for name in full}
    for name in ("before", "oracle"):  # the same lists, so the same figures, as if all were as short
        kept = full[name].join(pl.concat([fewer, forgotten.select("user", "item")]).unique(), on=["user", "item"])
        kept.write_parquet(tmp_path / f"short-{name}.parquet")
    found = audit_files(**{**files, **parts})
    short = {"before": tmp_path / "short-before.parquet", "oracle": tmp_path / "short-oracle.parquet"}
    assert found.to_json() == audit_files(**{**files, **parts, **short}).to_json()
    assert found.verdict.word == "forgotten"
    assert found.attacked > 0.8 * len(FORGET)


def test_short_lists_are_told(files: dict[str, Any], tmp_path: Path) -> None:
    wanted = pl.concat([pairs(FORGET), table(BEFORE).select("user", "item").sample(fraction=0.3, seed=0)]).unique()
    table(BEFORE).join(wanted, on=["user", "item"]).write_parquet(tmp_path / "short.parquet")
    found = audit_files(**{**files, "before": tmp_path / "short.parquet"})
    assert any("The lists are short" in note for note in found.notes)


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    frame = table(BEFORE, USERS[:2]).with_columns(rating=5.0, fold=pl.lit("whatever"))
    frame.write_csv(tmp_path / "both.csv")
    found = read_scores(tmp_path / "both.csv").ratings
    assert found == pytest.approx(BEFORE(USERS[:2], found_items(tmp_path / "both.csv")).ravel(), rel=1e-5)
    frame = frame.drop("rating").rename({"user": "who", "score": "Prediction"})
    frame.write_csv(tmp_path / "named.csv")
    assert (read_scores(tmp_path / "named.csv", Columns(user="who")).ratings == found).all()
    frame.rename({"Prediction": "value"}).write_csv(tmp_path / "other.csv")
    assert (read_scores(tmp_path / "other.csv", Columns(user="who"), score="value").ratings == found).all()


def found_items(path: Path) -> list[str]:
    return read_scores(path).catalog.item_ids.tolist()


def spoilt(change: str, frame: pl.DataFrame) -> pl.DataFrame:
    match change:
        case "twice":
            return pl.concat([frame, frame[3:5]])
        case "no number":
            return frame.with_columns(pl.col("score").cast(pl.String)).with_columns(
                pl.when(pl.int_range(pl.len()) == 4).then(pl.lit("much")).otherwise(pl.col("score")).alias("score")
            )
        case "missing":
            return frame.with_columns(pl.when(pl.int_range(pl.len()) != 4).then(pl.col("score")).alias("score"))
        case "no scores":
            return frame.rename({"score": "rating"})
        case "gap":
            first = pairs(FORGET)[0]
            return frame.join(first, on=["user", "item"], how="anti")
        case "other ids":
            return frame.with_columns(user=pl.concat_str(pl.lit("user-"), "user"))
    raise AssertionError(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("twice", r"after.csv, line \d+, column 'item': this pair was scored before \(2 such rows\): keep one"),
        ("no number", "after.csv, line 6, column 'score': 'much' is not a finite number"),
        ("missing", "after.csv, line 6, column 'score': the rating is missing"),
        ("no scores", "after.csv: no column of scores .* beside user, item, rating: name it with --score-col"),
        ("gap", rf"after.csv has no score for 1 of the {len(FORGET)} forgotten pairs \(the first: user u0, item i"),
    ],
)
def test_a_bad_file_is_refused_with_its_place_in_one_line(files: dict[str, Any], change: str, message: str) -> None:
    spoilt(change, table(RETRAINED)).write_csv(files["after"])
    with pytest.raises(DataError, match=message) as refused:
        audit_files(**files)
    assert "\n" not in str(refused.value)


def test_users_who_stand_in_no_file_are_told(files: dict[str, Any]) -> None:
    for name in ("before", "after", "oracle"):
        spoilt("other ids", table(BEFORE)).write_parquet(files[name].with_suffix(".parquet"))
    given = {**files, **{name: files[name].with_suffix(".parquet") for name in ("before", "after", "oracle")}}
    with pytest.raises(
        DataError, match=r"60 of the 60 users who forget are in no score file .*u0.: are ids written alike"
    ):
        audit_files(**given)


def test_other_bad_arguments_are_refused_in_one_line(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        audit_files(tmp_path / "none.csv", files["after"], files["forget"])
    with pytest.raises(DataError, match="no column 'points'; columns seen: user, item, score; correct --score-col"):
        audit_files(**files, score="points")
    with pytest.raises(DataError, match="history still holds"):
        audit_files(**{**files, "history": EVERYTHING})
    with pytest.raises(ConfigError, match="name their column with score="):
        audit_files(**files, columns=Columns(rating="score"))
