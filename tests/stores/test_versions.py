"""Versions and the pointer to one of them: readers without a lock, and nothing older that stays."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from retract.errors import FolderError
from retract.stores.manifest import Manifest
from retract.stores.versions import Content, Version, VersionStore, require_replaceable


def content(server: dict[str, bytes], devices: dict[str, bytes] | None = None) -> Content:
    return Content("test", server, devices)


def names(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith("lock")}


def read(store: VersionStore, name: str) -> bytes:
    return store.reading(lambda version: version.read(name))


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    made = VersionStore(tmp_path / "run")
    made.commit(content({"a": b"1", "b": b"same"}, {"private": b"mine"}), None)
    return made


# --- one version after the other --------------------------------------------------------------------------------------


def test_a_version_is_served_once_it_is_committed_and_the_one_before_is_gone(store: VersionStore) -> None:
    assert (store.number(), read(store, "a")) == (1, b"1")
    manifest = store.commit(content({"a": b"2", "b": b"same"}, {"private": b"mine"}), 1)
    assert (manifest.version, store.number(), read(store, "a"), read(store, "b")) == (2, 2, b"2", b"same")
    assert names(store.folder) == {
        "server/current",
        *(f"server/versions/2/{name}" for name in ("a", "b", "manifest.json")),
        *(f"devices/versions/2/{name}" for name in ("private", "manifest.json")),
    }


def test_what_is_the_same_is_not_written_again(store: VersionStore) -> None:
    before = os.stat(store.folder / "server" / "versions" / "1" / "b").st_ino
    store.commit(content({"a": b"2", "b": b"same"}, {"private": b"mine"}), 1)
    assert os.stat(store.folder / "server" / "versions" / "2" / "b").st_ino == before


def test_files_are_written_where_links_cannot_be_made(store: VersionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    store.commit(content({"a": b"2", "b": b"same"}), 1)
    assert read(store, "b") == b"same"


def test_what_is_not_ours_stays(store: VersionStore) -> None:
    for place in ("notes.txt", "server/notes.txt", "devices/notes.txt"):
        (store.folder / place).write_text("mine")
    store.commit(content({"a": b"2"}), 1)
    store.commit(content({"a": b"3"}), None)
    for place in ("notes.txt", "server/notes.txt", "devices/notes.txt"):
        assert (store.folder / place).read_text() == "mine"


def test_a_version_of_the_server_alone_has_no_devices_beside_it(store: VersionStore) -> None:
    assert store.devices(store.server()) is not None
    store.commit(content({"a": b"2"}), 1)
    assert store.devices(store.server()) is None
    assert "devices/versions/1/private" not in names(store.folder)


def test_who_changes_what_somebody_else_has_changed_is_refused_and_nothing_is_written(store: VersionStore) -> None:
    store.commit(content({"a": b"2"}), 1)
    before = names(store.folder)
    with pytest.raises(FolderError, match="was changed by somebody else in the meantime; nothing was applied: run"):
        store.commit(content({"a": b"3"}), 1)
    assert (names(store.folder), read(store, "a")) == (before, b"2")


def test_a_training_takes_the_place_of_any_version(store: VersionStore) -> None:
    store.commit(content({"a": b"2"}), 1)
    assert store.commit(content({"a": b"new"}), None).version == 3
    (store.folder / "server" / "current").write_text("damaged")
    assert store.commit(content({"a": b"newer"}), None).version > 3
    assert read(store, "a") == b"newer"


def test_those_who_change_a_folder_at_once_wait_for_each_other_and_one_of_them_is_refused(tmp_path: Path) -> None:
    store, refused = VersionStore(tmp_path / "run"), []
    store.commit(content({"count": b"0"}), None)

    def add_some() -> None:
        mine, done = VersionStore(store.folder), 0
        while done < 20:
            number = mine.number()
            value = int(read(mine, "count"))
            try:
                mine.commit(content({"count": str(value + 1).encode()}), number)
                done += 1
            except FolderError:
                refused.append(number)

    workers = [threading.Thread(target=add_some) for _ in range(2)]  # each opens the lock on its own
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    # A version that was read before the number moved on would be lost; none was.
    assert (read(store, "count"), store.number()) == (b"40", 41)


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
def test_a_failed_write_leaves_the_old_version_and_nothing_beside_it(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("no space left")

    before = names(store.folder)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(MemoryError, match="no space left"):
        store.commit(content({"a": b"2", "b": b"same"}, {"private": b"mine"}), 1)
    monkeypatch.undo()
    assert (read(store, "a"), names(store.folder)) == (b"1", before)


# --- readers ----------------------------------------------------------------------------------------------------------


def test_a_reader_whose_version_is_replaced_meanwhile_reads_the_newer_one(store: VersionStore) -> None:
    seen = []

    def read_both(version: Version) -> tuple[bytes, bytes]:
        first = version.read("a")
        seen.append(first)
        if len(seen) == 1:
            store.commit(content({"a": b"2", "b": b"2"}), 1)
        return first, version.read("b")

    assert store.reading(read_both) == (b"2", b"2")
    assert seen == [b"1", b"2"]


def test_a_reader_whose_version_is_half_removed_reads_the_newer_one(store: VersionStore) -> None:
    seen = []

    def read_b(version: Version) -> bytes:
        if not seen:
            seen.append(version)
            (version.place / "b").unlink()  # its folder is still there: the files go one by one
            store.commit(content({"a": b"2", "b": b"2"}), 1)
            version.place.mkdir(parents=True)
        return version.read("b")

    assert store.reading(read_b) == b"2"


def test_reading_takes_no_lock_and_changes_nothing(store: VersionStore) -> None:
    store.lock.unlink()
    before = sorted(store.folder.rglob("*"))
    assert read(store, "a") == b"1"
    assert store.devices(store.server()) is not None
    assert sorted(store.folder.rglob("*")) == before


@pytest.mark.slow
def test_readers_and_a_writer_at_once_always_find_a_whole_version(store: VersionStore) -> None:
    found, done = [], threading.Event()

    def read_on() -> None:
        mine = VersionStore(store.folder)
        while not done.is_set():
            found.append(mine.reading(lambda version: (version.read("a"), version.read("b"), version.read("c"))))

    store.commit(content(dict.fromkeys("abc", b"1")), 1)
    readers = [threading.Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(2, 40):
        store.commit(content(dict.fromkeys("abc", str(number).encode())), number)
    done.set()
    for reader in readers:
        reader.join(60)
    assert all(a == b == c for a, b, c in found)
    assert len({a for a, _, _ in found}) > 1


def test_looking_for_a_folder_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "does not exist"), (tmp_path, r"it has no server/current")):
        with pytest.raises(FolderError, match=message):
            VersionStore(path).server()
        assert VersionStore(path).number() is None
    assert not list(tmp_path.iterdir())


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_pointer_to_nothing_is_named(store: VersionStore) -> None:
    store.pointer.write_bytes(store.pointer.read_bytes().replace(b"1", b"9", 1))
    with pytest.raises(FolderError, match=r"versions/9 is missing, and .*server/current names it"):
        read(store, "a")


@pytest.mark.parametrize("written", [b"", b"{", b"[]", b'{"version": "x", "manifest": ""}', b"\xff"])
def test_a_pointer_that_is_none_is_named(store: VersionStore, written: bytes) -> None:
    store.pointer.write_bytes(written)
    with pytest.raises(FolderError, match=r"server/current is damaged, or not ours"):
        read(store, "a")


def test_a_manifest_of_another_version_is_no_manifest_of_this_one(store: VersionStore) -> None:
    other = Manifest("test", 1, {"a": ""})
    (store.folder / "server" / "versions" / "1" / "manifest.json").write_bytes(other.to_bytes())
    with pytest.raises(FolderError, match=r"manifest.json is damaged: its SHA-256 is .*, the pointer to it has"):
        read(store, "a")


def test_devices_of_another_version_are_refused_and_without_them_the_server_goes_on(store: VersionStore) -> None:
    (store.folder / "devices" / "versions" / "1").rename(store.folder / "devices" / "versions" / "7")
    with pytest.raises(FolderError, match="devices holds no version 1, which the server's half is of: restore it, or"):
        store.devices(store.server())
    (store.folder / "devices").rename(store.folder.parent / "elsewhere")
    assert store.devices(store.server()) is None


# --- what is replaced -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path, force: bool) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(FolderError, match="run is a file"):
        require_replaceable(tmp_path / "run", force)
    with pytest.raises(FolderError, match="is not a folder that you can write to"):
        require_replaceable(tmp_path / "run" / "inside", force)


def test_what_a_killed_first_training_left_is_in_nobodys_way(tmp_path: Path) -> None:
    for place in ("server/versions/1", "devices/versions/1"):
        (tmp_path / "run" / place).mkdir(parents=True)
    (tmp_path / "run" / "server" / "lock").touch()
    require_replaceable(tmp_path / "run", force=False)


def test_a_folder_of_the_first_layout_is_replaced_by_force_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 1, "retract": "0.1", "files": {}, "system": "exact"}')
    with pytest.raises(FolderError, match="lose it and its pending requests; --force replaces it"):
        require_replaceable(tmp_path, force=False)
    require_replaceable(tmp_path, force=True)
