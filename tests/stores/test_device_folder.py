"""Devices in a folder of their own: what outlives the process, what damage is called, and what does not stay."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from retract.errors import DataError, FolderError, SharingError
from retract.federation import LocalEngine, RoundResult
from retract.stores.device_folder import FolderDevices
from retract.stores.devices import MemoryDevices
from tests.contracts.tasks import TASKS, broadcast, data, sharing, spec


def play(devices: FolderDevices | MemoryDevices, round: int, run: str = "a") -> RoundResult:
    return LocalEngine(devices, TASKS).run(spec("write", run), broadcast(round), devices.users, seed=1)


def seen(devices: FolderDevices | MemoryDevices, run: str = "a") -> list[int]:
    kept = devices.kept(run)
    return kept.state["seen"].tolist() if kept.state else []


@pytest.fixture(params=[None, 3])
def clients(request: pytest.FixtureRequest) -> int | None:
    return request.param  # type: ignore[no-any-return]


def test_a_process_that_takes_over_goes_on_as_if_it_had_been_there(tmp_path: Path, clients: int | None) -> None:
    FolderDevices.create(tmp_path / "node", sharing(clients))
    plain = MemoryDevices(sharing(clients))
    for round in (0, 1, 1, 2):
        found, wanted = play(FolderDevices(tmp_path / "node"), round), play(plain, round)
        assert np.array_equal(found.update.tensors["items"], wanted.update.tensors["items"])
        assert seen(FolderDevices(tmp_path / "node")) == seen(plain)


def test_data_and_choices_are_as_they_were_given(tmp_path: Path, clients: int | None) -> None:
    FolderDevices.create(tmp_path / "node", sharing(clients))
    devices, given = FolderDevices(tmp_path / "node"), sharing(clients)
    for part in ("shared", "private"):
        mine, theirs = getattr(devices.sharing, part), getattr(given, part)
        assert (mine.keys.tolist(), mine.ratings.tolist()) == (theirs.keys.tolist(), theirs.ratings.tolist())
    assert devices.sharing.shared.catalog.item_ids.tolist() == data().catalog.item_ids.tolist()


def test_only_the_hosted_users_are_named(tmp_path: Path) -> None:
    devices = FolderDevices.create(tmp_path / "node", sharing())
    assert devices.sharing.shared.catalog.user_ids.tolist() == ["u0", "u1", "u2", "", "u4", "u5", "u6", "u7", ""]
    assert devices.sharing.shared.catalog.user("u5") == 5
    for path in (tmp_path / "node").iterdir():
        assert b'"u8"' not in path.read_bytes()


def test_who_erases_starts_anew_and_leaves_nothing_in_any_file(tmp_path: Path) -> None:
    devices = FolderDevices.create(tmp_path / "node", sharing())
    for round in range(2):
        play(devices, round)
    before = dict(zip(devices.kept("a").clients.tolist(), seen(devices), strict=True))
    devices.erase(devices.interactions.of_users([4]))
    again = FolderDevices(tmp_path / "node")
    assert dict(zip(again.kept("a").clients.tolist(), seen(again), strict=True)) == {
        user: count for user, count in before.items() if user != 4
    }
    assert 4 not in again.users
    files = [path for path in (tmp_path / "node").iterdir() if path.name != "lock"]
    assert len(files) == 5
    assert not [path for path in files if b'"u4"' in path.read_bytes()]


def test_what_is_unshared_is_private_and_no_state_is_lost(tmp_path: Path) -> None:
    devices = FolderDevices.create(tmp_path / "node", sharing())
    play(devices, 0)
    before, shared = seen(devices), devices.sharing.shared
    devices.unshare(shared.of_users([1]))
    again = FolderDevices(tmp_path / "node")
    assert (seen(again), len(again.sharing.shared)) == (before, len(shared) - len(shared.of_users([1])))
    assert again.interactions == devices.interactions


def test_more_data_is_taken_in(tmp_path: Path) -> None:
    devices = FolderDevices.create(tmp_path / "node", sharing())
    play(devices, 0)
    less = devices.sharing.erase(devices.interactions.of_users([1]))
    devices.with_sharing(less)
    assert FolderDevices(tmp_path / "node").users.tolist() == [0, 2, 4, 5, 6, 7]


def test_what_is_not_there_cannot_be_withdrawn_and_nothing_changes(tmp_path: Path) -> None:
    devices = FolderDevices.create(tmp_path / "node", sharing())
    before = {path.name: path.read_bytes() for path in (tmp_path / "node").iterdir()}
    with pytest.raises(SharingError, match="is not shared, so it cannot be unshared"):
        devices.unshare(devices.sharing.private)
    with pytest.raises(DataError, match="belong to different catalogs"):
        devices.erase(data())  # over a catalog that names users who are none of this node's business
    assert {path.name: path.read_bytes() for path in (tmp_path / "node").iterdir()} == before


def test_older_runs_are_dropped_for_good(tmp_path: Path) -> None:
    devices = FolderDevices.create(tmp_path / "node", sharing())
    play(devices, 0, "a")
    play(devices, 0, "b")
    devices.forget_runs(but="b")
    again = FolderDevices(tmp_path / "node")
    assert (seen(again, "a"), len(seen(again, "b"))) == ([], 7)


def test_a_round_without_a_state_writes_nothing(tmp_path: Path) -> None:
    devices = FolderDevices.create(tmp_path / "node", sharing())
    before = sorted(path.name for path in (tmp_path / "node").iterdir())
    LocalEngine(devices, TASKS).run(spec("read", journal=0), broadcast(0), devices.users, seed=1)
    assert sorted(path.name for path in (tmp_path / "node").iterdir()) == before


def test_of_two_processes_the_one_that_is_behind_is_refused_and_then_knows(tmp_path: Path) -> None:
    first = FolderDevices.create(tmp_path / "node", sharing())
    second = FolderDevices(tmp_path / "node")
    play(first, 0)
    with pytest.raises(FolderError, match="was changed by another process; nothing was kept: let one alone work on it"):
        play(second, 0)
    assert seen(second) == seen(first)
    assert seen(FolderDevices(tmp_path / "node")) == seen(first)


def test_a_failed_write_keeps_nothing_in_memory_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = FolderDevices.create(tmp_path / "node", sharing())
    play(devices, 0)
    before = seen(devices)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        play(devices, 1)
    monkeypatch.undo()
    assert seen(devices) == seen(FolderDevices(tmp_path / "node")) == before
    play(devices, 1)
    assert len([path for path in (tmp_path / "node").iterdir() if path.name != "lock"]) == 5


@pytest.mark.parametrize("kind", ["catalog.json", "shared.safetensors", "private.safetensors", "state.safetensors"])
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, kind: str) -> None:
    FolderDevices.create(tmp_path / "node", sharing())
    path = next((tmp_path / "node").glob(f"*.{kind}"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(FolderError, match=rf"{path.name} is damaged: its SHA-256 is"):
        FolderDevices(tmp_path / "node")
    path.unlink()
    with pytest.raises(FolderError, match=rf"{path.name} is missing: restore it"):
        FolderDevices(tmp_path / "node")


@pytest.mark.parametrize(
    "written", ["", "{", "[]", "{}", '{"format": 1, "files": []}', '{"format": 1, "files": {"a": 1}}']
)
def test_a_pointer_that_is_none_is_named(tmp_path: Path, written: str) -> None:
    FolderDevices.create(tmp_path / "node", sharing())
    (tmp_path / "node" / "current").write_text(written)
    with pytest.raises(FolderError, match=r"node/current is damaged, or not ours"):
        FolderDevices(tmp_path / "node")


def test_another_format_is_named(tmp_path: Path) -> None:
    FolderDevices.create(tmp_path / "node", sharing())
    (tmp_path / "node" / "current").write_text(json.dumps({"format": 9, "files": {}}))
    with pytest.raises(FolderError, match="node has format 9, and this retract reads 1"):
        FolderDevices(tmp_path / "node")


def test_devices_are_made_in_a_folder_of_their_own_alone(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="holds no devices"):
        FolderDevices(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FolderError, match="holds something already: give the devices a folder of their own"):
            FolderDevices.create(place, sharing())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_a_kill_left_of_making_devices_is_made_anew(tmp_path: Path) -> None:
    FolderDevices.create(tmp_path / "node", sharing())
    (tmp_path / "node" / "current").unlink()
    (tmp_path / "node" / ".current.x").touch()
    assert seen(FolderDevices.create(tmp_path / "node", sharing())) == []
    assert not (tmp_path / "node" / ".current.x").exists()
    (tmp_path / "node" / "1.notes.txt").touch()
    (tmp_path / "node" / "current").unlink()
    with pytest.raises(FolderError, match="holds something already"):
        FolderDevices.create(tmp_path / "node", sharing())
