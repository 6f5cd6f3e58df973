"""Withdraw, bring the old file again, ask again: nothing of it is learnt or listed. With every system."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.commands import on_disk, retract
from tests.stores.folders import TINY_OF, items, load

SHARE = {"exact": 1, "fedshare": 0.5, "personalfr": 0.5, "unlearnrec": 1, "lightgcn": 1, "receraser": 1}
EXTENDS = ("exact", "personalfr")


def bring_again(folder: Path, system: str, data: Path, *options: object) -> list[str]:
    """The old file once more, all of it shared: by `extend`, or `train --force` where that is not to be had."""
    if system in EXTENDS:
        answer = retract("extend", folder, "--data", data, "--share", 1, "--json", *options)
    else:
        answer = trained(folder, system, data, "--force", "--share", 1, *options)
    found: list[str] = answer.json["notes"]
    return found


def trained(folder: Path, system: str, data: Path, *options: object):  # type: ignore[no-untyped-def]
    pairs = [part for name, value in TINY_OF[system].items() for part in ("--set", f"{name}={value}")]
    return retract("train", system, "--data", data, "--out", folder, "--json", *pairs, *options)


@pytest.fixture(scope="session")
def withdrawn(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, str]]]:
    """By system a folder from which u1 erased everything, u2 one shared item, and u3 unshared one; and which items."""
    made = {}
    for system, share in SHARE.items():
        folder = tmp_path_factory.mktemp(system) / "run"
        assert trained(folder, system, ratings, "--share", share).code == 0
        named = {user: min(items(load(folder), "shared", user)) for user in ("u2", "u3")}
        assert retract("erase", folder, "--user", "u1").code == 0
        assert retract("erase", folder, "--user", "u2", "--items", named["u2"]).code == 0
        assert retract("unshare", folder, "--user", "u3", "--items", named["u3"]).code == 0
        assert retract("unlearn", folder).code == 0
        made[system] = folder, named
    return made


@pytest.fixture(params=SHARE)
def asked(request: pytest.FixtureRequest, withdrawn: dict[str, tuple[Path, dict[str, str]]], tmp_path: Path):  # type: ignore[no-untyped-def]
    """System, folder to change, items by user."""
    folder, named = withdrawn[request.param]
    return request.param, Path(shutil.copytree(folder, tmp_path / "run")), named


@pytest.mark.slow
def test_with_the_old_file_nothing_of_what_was_withdrawn_is_learnt_or_listed(asked, ratings: Path) -> None:  # type: ignore[no-untyped-def]
    system, folder, named = asked
    notes = bring_again(folder, system, ratings)
    assert "left out because they were erased (again takes them in, on a new consent): 6" in notes
    held = load(folder)
    assert "u1" not in held.catalog.known_users
    assert named["u2"] not in items(held, "shared", "u2") | items(held, "private", "u2")
    assert named["u3"] in items(held, "private", "u3") - items(held, "shared", "u3")
    assert "unknown user 'u1'" in retract("recommend", folder, "--user", "u1").refusal()
    assert "unknown user 'u1'" in retract("erase", folder, "--user", "u1").refusal()
    assert not [name for name, content in on_disk(folder).items() if b'"u1"' in content]


@pytest.mark.slow
def test_on_a_new_consent_all_of_it_comes_in_and_stays_until_it_is_taken_back(asked, ratings: Path) -> None:  # type: ignore[no-untyped-def]
    system, folder, named = asked
    bring_again(folder, system, ratings, "--again")
    held = load(folder)
    assert len(items(held, "shared", "u1")) == 5
    assert named["u2"] in items(held, "shared", "u2")
    assert retract("recommend", folder, "--user", "u1", "--json").json["items"]
    assert not [note for note in bring_again(folder, system, ratings) if "erased" in note]
    assert len(items(load(folder), "shared", "u1")) == 5
    assert retract("erase", folder, "--user", "u1").code == 0
    assert retract("unlearn", folder).code == 0
    bring_again(folder, system, ratings)
    assert "unknown user 'u1'" in retract("recommend", folder, "--user", "u1").refusal()


@pytest.mark.slow
def test_the_list_holds_no_id_and_survives_trainings(withdrawn, ratings: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = Path(shutil.copytree(withdrawn["exact"][0], tmp_path / "run"))
    before = (folder / "server" / "suppressed.json").read_bytes()
    assert not any(f'"{id}"'.encode() in before for id in ("u1", "u2", "u3", *withdrawn["exact"][1].values()))
    for system in ("lightgcn", "exact"):
        assert trained(folder, system, ratings, "--force", "--share", 1).code == 0
        assert (folder / "server" / "suppressed.json").read_bytes() == before
        assert "u1" not in load(folder).catalog.known_users
    (folder / "server" / "suppressed.json").write_bytes(b"{")
    line = retract("extend", folder, "--data", ratings).refusal()
    assert "suppressed.json is damaged: restore it, for without it what was erased could come in again" in line


# --- a model of nothing -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("system", SHARE)
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_all_users_may_withdraw_and_the_model_says_what_it_still_knows(
    system: str, kind: str, ratings: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert trained(folder, system, ratings, "--share", SHARE[system]).code == 0
    for user in range(12):
        assert retract(kind, folder, "--user", f"u{user}").code == 0
    assert retract("unlearn", folder, "--audit", "--json").json["requests"] == 12
    told = retract("status", folder, "--json").json
    assert (told["pending"], told["applied"], told["shared"]) == (0, 12, 0)
    assert all(request["certificate"].startswith("certificates/") for request in told["requests"])
    answer = retract("recommend", folder, "--user", "u1", "--json")
    if kind == "erase":
        assert told["users"] == told["private"] == 0
        assert "unknown user 'u1': the model knows nobody, for all users were erased" in answer.refusal()
    elif SHARE[system] == 1:
        assert answer.json["items"] == []
        assert "the model knows nothing" in answer.err
    else:
        assert answer.json["items"]  # their devices go on learning from what is private


@pytest.mark.slow
@pytest.mark.parametrize("system", SHARE)
def test_where_nothing_is_shared_a_training_says_what_it_learnt(system: str, ratings: Path, tmp_path: Path) -> None:
    answer = trained(tmp_path / "run", system, ratings, "--share", 0)
    said = f"nothing is shared, and {system} learns from nothing else: the model knows nothing"
    assert (said in answer.json["notes"]) == (SHARE[system] == 1)
    listed = retract("recommend", tmp_path / "run", "--user", "u1", "--json").json["items"]
    assert bool(listed) == (SHARE[system] != 1)


@pytest.mark.slow
@pytest.mark.parametrize("system", EXTENDS)
def test_a_model_of_nobody_can_take_in_new_users(system: str, ratings: Path, tmp_path: Path) -> None:
    folder, news = tmp_path / "run", tmp_path / "news.csv"
    assert trained(folder, system, ratings, "--share", SHARE[system]).code == 0
    for user in range(12):
        retract("erase", folder, "--user", f"u{user}")
    retract("unlearn", folder)
    news.write_text("user,item,rating\nx,i1,5\nx,i2,4\ny,i1,3\ny,i3,2\nz,i2,1\nz,i3,5\n")
    assert retract("extend", folder, "--data", news, "--share", 1, "--json").json["added"] == 6
    assert retract("recommend", folder, "--user", "x", "--json").json["items"]
