"""`retract audit` of another recommender, by files of its scores."""

from __future__ import annotations

import html
from pathlib import Path

import polars as pl
import pytest

from retract.auditing.score_files import audit_files
from tests.auditing.test_external import BEFORE, FORGET, LEFT, RETRAINED
from tests.auditing.test_score_files import pairs, table
from tests.cli.commands import on_disk, retract

FILES = ("before", "after", "forget", "history", "oracle")


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Score files of a model that forgot by training anew, of one that did nothing, and what was withdrawn."""
    room = tmp_path_factory.mktemp("scores")
    table(BEFORE).write_parquet(room / "before")
    table(RETRAINED).write_csv(room / "after")
    table(RETRAINED).write_csv(room / "oracle")
    pairs(FORGET).write_csv(room / "forget")
    pairs(LEFT).write_csv(room / "history")
    for name in FILES:
        (room / name).rename(room / f"{name}{'.parquet' if name == 'before' else '.csv'}")
    return room


def given(room: Path, *names: str, **others: str) -> list[object]:
    """The options that name files; `others` under another name."""
    files = {path.stem: path for path in room.iterdir()}
    chosen = {**{name: files[name] for name in names}, **{name: files[file] for name, file in others.items()}}
    return ["audit", *(part for name, path in chosen.items() for part in (f"--{name}", path))]


def test_a_script_gets_the_verdict_and_the_figures_of_the_audit(room: Path) -> None:
    found = retract(*given(room, *FILES), "--json").json
    asked = audit_files(
        room / "before.parquet",
        *(room / f"{name}.csv" for name in ("after", "forget")),
        oracle=room / "oracle.csv",
        history=room / "history.csv",
    )
    assert found == {**asked.to_json(), "page": None}
    assert found["verdict"] == "forgotten"


def test_people_get_the_verdict_in_words_the_models_side_by_side_and_notes_on_stderr(room: Path) -> None:
    whole = retract(*given(room, *FILES))
    assert (whole.code, whole.err) == (0, "")
    assert whole.out.startswith("Forgotten")
    assert all(name in whole.out for name in ("before", "after", "oracle", "attack AUC", "KS distance"))
    bare = retract(*given(room, "before", "after", "forget"))
    assert bare.code == 0
    assert "oracle" not in bare.out.splitlines()[2]
    assert bare.err.startswith("note: Without history= ")


def test_a_model_that_did_nothing_has_not_forgotten(room: Path) -> None:
    options = given(room, "before", "forget", "oracle", "history", after="before")
    assert retract(*options, "--json").json["verdict"] == "not yet"
    assert retract(*options).out.startswith("Not yet")


@pytest.mark.slow
def test_a_page_is_written_with_the_command_that_makes_it_again(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "page.html"
    answer = retract(*given(room, *FILES), "--out", out, "--json")
    assert answer.json["page"] == str(out)
    page = html.unescape(out.read_text())
    assert "It forgot" in page
    assert f"retract audit --before {room / 'before.parquet'} --after {room / 'after.csv'}" in page
    assert f"page: {out}" in retract(*given(room, *FILES), "--out", out).out


@pytest.mark.slow
def test_columns_margin_and_the_test_part_can_be_named(room: Path, tmp_path: Path) -> None:
    names = {"user": "who", "item": "what", "score": "points"}
    for path in room.iterdir():
        read = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
        read.rename({old: new for old, new in names.items() if old in read.columns}).write_csv(tmp_path / path.name)
        (tmp_path / path.name).rename(tmp_path / f"{path.stem}.csv")
    columns = ("--user-col", "who", "--item-col", "what", "--score-col", "points", "--margin", 0.2)
    found = retract(*given(tmp_path, *FILES), *columns, "--json").json
    plain = retract(*given(room, *FILES), "--margin", 0.2, "--json").json
    assert (found["margin"], found) == (0.2, plain)
    assert "no user column" in retract(*given(tmp_path, *FILES)).refusal()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "or --before, --after and --forget of another recommender (see retract audit --help)"),
        (["--before", "x", "--after", "x"], "give a trained folder alone, or --before, --after and --forget"),
        (["DIR", "--oracle", "x"], "give a trained folder alone"),
        (["DIR", "--out", "x"], "give a trained folder alone"),
        (["--before", "none", "--after", "none", "--forget", "none"], "no such file: none; check the path"),
    ],
)
def test_what_cannot_be_audited_is_one_line(options: list[str], message: str) -> None:
    assert message in retract("audit", *options).refusal()


@pytest.mark.slow
def test_a_bad_margin_or_place_for_the_page_is_one_line_and_writes_nothing(room: Path, tmp_path: Path) -> None:
    before = on_disk(room)
    assert "margin is 0.7" in retract(*given(room, *FILES), "--margin", 0.7).refusal()
    assert "needs" in retract(*given(room, "before", "after", "forget", test="history")).refusal()
    (tmp_path / "file").write_text("")
    line = retract(*given(room, *FILES), "--out", tmp_path).refusal()
    assert line == f"error: {tmp_path} is a folder: give a file for the page"
    assert str(tmp_path / "file") in retract(*given(room, *FILES), "--out", tmp_path / "file" / "page.html").refusal()
    assert on_disk(room) == before
