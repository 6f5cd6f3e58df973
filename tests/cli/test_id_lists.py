"""Ids are taken to the letter: a list that reads in two ways is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.commands import on_disk, retract
from tests.stores.folders import load

ROWS = ["user,item", "1,a", "1,b", '1,"a,b"', "1,c", '1,"e,f"', "2,a", "2,b", '2,"a,b"', "2,c", '2,"e,f"', "2,d", "3,d"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = tmp_path_factory.mktemp("comma")
    (room / "comma.csv").write_text("\n".join(ROWS) + "\n")
    assert retract("train", "exact", "--data", room / "comma.csv", "--share", 1, "--out", room / "run").code == 0
    return room / "run"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def left_after(folder: Path, *options: object) -> set[str]:
    """What user 2 holds after an erasure."""
    assert retract("erase", folder, "--user", 2, *options).code == 0
    assert retract("unlearn", folder).code == 0
    held = load(folder)
    return set(held.catalog.item_ids[held.interactions.items_of(held.catalog.user("2"))].tolist())


ALL = {"a", "b", "a,b", "c", "d", "e,f"}


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--items", "a", "--items", "b"], {"a", "b"}),
        (["--items", "a,c"], {"a", "c"}),
        (["--items", " a , d "], {"a", "d"}),
        (["--items", "e,f"], {"e,f"}),
        (["--items", "c,e,f"], {"c", "e,f"}),
        (["--items", "a,b", "--items", "c"], {"a,b", "c"}),  # repeated is one id each
    ],
)
def test_a_list_that_reads_in_one_way_names_these_ids_alone(folder: Path, options: list[str], gone: set[str]) -> None:
    assert left_after(folder, *options) == ALL - gone


def test_a_file_names_one_id_a_line(folder: Path) -> None:
    listed = folder.parent / "ids.txt"
    listed.write_text("a,b\n\n d\n", encoding="utf-8-sig")
    assert left_after(folder, "--items-file", listed) == ALL - {"a,b", "d"}


@pytest.mark.parametrize("kind", ["erase", "unshare"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b", "--items 'a,b' can be read as 'a' and 'b' or as 'a,b': repeat --items, once for each id, or name them"),
        ("c,a,b", "can be read as 'c' and 'a' and 'b' or as 'c' and 'a,b'"),
        ("a,z", "unknown item 'z'; nearest known ids: "),
        ("y,z", "unknown item 'y,z'; nearest known ids: "),
    ],
)
def test_any_other_is_refused_and_nothing_is_recorded(folder: Path, kind: str, text: str, message: str) -> None:
    before = on_disk(folder)
    assert message in retract(kind, folder, "--user", 2, "--items", text).refusal()
    assert on_disk(folder) == before


def test_a_wrong_file_is_refused_with_its_line(folder: Path) -> None:
    listed = folder.parent / "ids.txt"
    listed.write_text("a\nz\n")
    line = retract("erase", folder, "--user", 2, "--items-file", listed).refusal()
    assert f"{listed}, line 2: unknown item 'z'" in line
    listed.write_bytes(b"\xff\xfe\x00")
    assert "is no text in UTF-8" in retract("erase", folder, "--user", 2, "--items-file", listed).refusal()
    assert "nowhere.txt" in retract("erase", folder, "--user", 2, "--items-file", "nowhere.txt").refusal()


def test_a_shipped_file_is_asked_by_the_same_rule(folder: Path) -> None:
    shipped = folder.parent / "model.ship"
    assert retract("ship", folder, "--out", shipped).code == 0
    assert "can be read as" in retract("recommend", shipped, "--items", "a,b").refusal()
    one = retract("recommend", shipped, "--items", "a", "--items", "b", "--json").json["items"]
    assert {line["item"] for line in one} == ALL - {"a", "b"}
    listed = folder.parent / "ids.txt"
    listed.write_text("a,b\n")
    found = retract("recommend", shipped, "--items-file", listed, "--json").json["items"]
    assert {line["item"] for line in found} == ALL - {"a,b"}


def test_a_request_says_why_to_keep_its_id_and_the_id_leads_to_its_certificate_and_back(folder: Path) -> None:
    said = retract("erase", folder, "--user", 2, "--items", "c").out
    (request,) = retract("status", folder, "--json").json["requests"]
    assert f"Keep the request's id: retract status {folder} --request {request['id']}" in said
    assert (request["user"], request["certificate"]) == ("2", None)
    certificate = Path(retract("unlearn", folder, "--audit", "--json").json["certificate"])
    found = retract("status", folder, "--request", request["id"], "--json").json
    assert found["certificate"] == f"certificates/{certificate.name}"
    assert request["id"].encode() in certificate.read_bytes()
    told = retract("status", folder).out
    assert f"{request['id']}: erase of 1 interactions of user 2, received {request['received']}, applied" in told
    assert "knows no request 'x'" in retract("status", folder, "--request", "x").refusal()
