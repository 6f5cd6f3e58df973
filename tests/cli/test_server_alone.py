"""A server of a real federation: DIR/devices is not there, and what a server can do it does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.commands import Answer, on_disk, retract
from tests.stores.folders import TINY_OF, load, pairs_on_disk

ALL_SHARED = {"exact": 1, "lightgcn": 1, "unlearnrec": 1, "receraser": 1, "fedshare": 0.5, "personalfr": 0.5}


@pytest.fixture(scope="session")
def made_of(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of every system, without its devices."""
    return {name: alone(ratings, tmp_path_factory.mktemp(name) / "run", name) for name in ALL_SHARED}


def alone(data: Path, out: Path, system: str) -> Path:
    pairs = [part for name, value in TINY_OF[system].items() for part in ("--set", f"{name}={value}")]
    share = ("--share", ALL_SHARED[system])
    assert retract("train", system, "--data", data, "--out", out, *share, *pairs).code == 0
    shutil.rmtree(out / "devices")
    return out


@pytest.fixture(params=ALL_SHARED)
def server(request: pytest.FixtureRequest, made_of: dict[str, Path], tmp_path: Path) -> Path:
    """A server's folder of each system, to change."""
    return Path(shutil.copytree(made_of[request.param], tmp_path / "run"))


@pytest.fixture
def exact(made_of: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_of["exact"], tmp_path / "run"))


def unledgered(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the ledger, which says that requests were claimed and released."""
    return {name: content for name, content in files.items() if not name.endswith("/ledger.jsonl")}


def system_of(folder: Path) -> str:
    return str(retract("status", folder, "--json").json["system"])


def unlearned(folder: Path, *options: object) -> Answer:
    return retract("unlearn", folder, "--json", *options)


@pytest.mark.slow
def test_its_status_says_that_what_is_private_is_elsewhere(server: Path) -> None:
    found = retract("status", server, "--json").json
    assert found["private"] is None
    assert found["shared"] == len(load(server).trained.shared) > 0
    assert "those of the devices are elsewhere" in retract("status", server).out


@pytest.mark.slow
def test_it_recommends_by_what_it_holds(server: Path) -> None:
    best = retract("recommend", server, "--user", "u1", "-k", 5, "--json").json["items"]
    assert len(best) == 5
    shared = load(server).trained.shared
    held = shared.catalog.item_ids[shared.items_of(shared.catalog.user("u1"))]
    assert not set(held.tolist()) & {line["item"] for line in best}


@pytest.mark.slow
def test_an_unsharing_is_recorded_and_applied(server: Path) -> None:
    before = retract("status", server, "--json").json
    code = load(server).catalog.user("u1")
    own = {item for user, item in pairs_on_disk(server) if user == code}
    asked = retract("unshare", server, "--user", "u1", "--json").json
    assert (asked["count"], asked["pending"]) == (len(own), 1)
    done = unlearned(server).json
    assert (done["requests"], done["forgotten"]) == (1, len(own))
    after = retract("status", server, "--json").json
    assert (after["pending"], after["applied"], after["private"]) == (0, 1, None)
    assert (after["shared"], after["version"]) == (before["shared"] - len(own), 2)
    assert not any(user == code for user, _ in pairs_on_disk(server))
    assert not (server / "devices").exists()


@pytest.mark.slow
def test_an_erasure_is_applied_where_the_model_learnt_from_what_is_shared_alone(server: Path) -> None:
    system = system_of(server)
    assert retract("erase", server, "--user", "u1").code == 0
    before = on_disk(server)
    done = unlearned(server)
    if system in ("fedshare", "personalfr"):
        text = f"{system} learns from its devices, so an erasure has to ask them, and the devices' half is not here"
        assert text in done.refusal()
        assert unledgered(on_disk(server)) == unledgered(before)
        (request,) = retract("status", server, "--json").json["requests"]
        assert request["status"] == "pending"
    else:
        assert done.json["requests"] == 1
        assert "unknown user 'u1'" in retract("recommend", server, "--user", "u1").refusal()
        names = [name for name, content in on_disk(server).items() if b'"u1"' in content]
        assert names == []


@pytest.mark.slow
def test_an_unlearning_is_audited_and_certified_and_the_certificate_holds(
    server: Path,
) -> None:
    assert retract("unshare", server, "--user", "u1").code == 0
    done = unlearned(server, "--audit").json
    (found,) = retract("verify", done["certificate"], "--json").json["results"]
    assert (found["system"], found["requests"]) == (system_of(server), 1)
    assert found["checked"][-1] == "the model, the memory and the retained data are the folder's"
    told = retract("audit", server, "--json").json["audits"]
    assert told == done["audits"]


@pytest.mark.slow
def test_an_oracle_needs_the_devices_but_where_all_is_shared(
    server: Path,
) -> None:
    assert retract("unshare", server, "--user", "u1").code == 0
    before = on_disk(server)
    answer = unlearned(server, "--audit", "--oracle")
    if system_of(server) in ("fedshare", "personalfr"):
        text = f"an oracle of {system_of(server)} is trained where the devices are, and their half is not here"
        assert text in answer.refusal()
        assert unledgered(on_disk(server)) == unledgered(before)
    else:
        assert answer.json["audits"][0]["oracle"] is not None


def test_exact_ships_without_devices(exact: Path, tmp_path: Path) -> None:
    file = tmp_path / "model"
    assert retract("ship", exact, "--out", file, "--json").json["bytes"] == file.stat().st_size
    assert retract("recommend", file, "--items", "i0,i1", "-k", 3, "--json").json["items"]


def test_new_data_enters_where_the_devices_are(exact: Path, ratings: Path) -> None:
    before = on_disk(exact)
    line = retract("extend", exact, "--data", ratings).refusal()
    assert "new data enters where the devices are, and their half is not here" in line
    assert on_disk(exact) == before


def test_private_items_cannot_be_asked_for_where_nobody_knows_them(ratings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pairs = [part for name, value in TINY_OF["fedshare"].items() for part in ("--set", f"{name}={value}")]
    assert retract("train", "fedshare", "--data", ratings, "--out", out, "--share", 0.5, *pairs).code == 0
    held = load(out)
    private = held.catalog.item_ids[held.sharing.private.items_of(held.catalog.user("u1"))]
    shutil.rmtree(out / "devices")
    line = retract("erase", out, "--user", "u1", "--items", private[0]).refusal()
    assert f"item {private[0]} of user u1 is not held, so it cannot be erased" in line
