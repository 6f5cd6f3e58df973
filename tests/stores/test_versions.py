from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from retract.errors import FolderError
from retract.systems.storage import locked, read_file, read_manifest, require_replaceable, swap_in


def write(folder: Path, files: dict[str, bytes], *, keep: bool = False) -> None:
    with locked(folder, "create"):
        swap_in(folder, "test", files, keep=read_manifest(folder) if keep else None)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_kill_before_any_step_of_a_swap_and_of_its_repair_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    script = Path(__file__).with_name("kill_at_every_step.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["states"] == ["new", "old"]
    assert found["last"] == "new"
    assert found["steps"] > 20  # the sweep saw renames, links, syncs and removals


def test_a_swap_keeps_what_it_does_not_name_and_what_is_not_ours(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write(folder, {"a": b"1", "deep/b": b"1"})
    (folder / "notes.txt").write_text("mine")
    write(folder, {"a": b"2"}, keep=True)
    manifest = read_manifest(folder)
    assert [read_file(folder, manifest, name) for name in ("a", "deep/b")] == [b"2", b"1"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_swap_without_keep_replaces_everything(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write(folder, {"a": b"1", "b": b"1"})
    write(folder, {"a": b"2"})
    assert names(folder) == {"a", "manifest.json"}


def test_files_are_copied_where_links_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    folder = tmp_path / "run"
    write(folder, {"a": b"1", "b": b"1"})
    monkeypatch.setattr(os, "link", refuse)
    write(folder, {"a": b"2"}, keep=True)
    assert read_file(folder, read_manifest(folder), "b") == b"1"


def test_a_failed_write_leaves_the_old_folder_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "run"
    write(folder, {"a": b"1"})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(folder, {"a": b"2"}, keep=True)
    assert read_file(folder, read_manifest(folder), "a") == b"1"
    assert {path.name for path in tmp_path.iterdir()} == {"run", ".run.retract-lock"}


def test_a_folder_that_cannot_be_renamed_is_named_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    folder = tmp_path / "run"
    write(folder, {"a": b"1"})
    monkeypatch.setattr(os, "rename", busy)
    with pytest.raises(FolderError, match=r"run cannot be replaced: it is a mount point"):
        write(folder, {"a": b"2"})
    assert read_file(folder, read_manifest(folder), "a") == b"1"


def _add_one(folder: Path) -> None:
    for _ in range(20):
        with locked(folder, "change"):
            manifest = read_manifest(folder)
            value = int(read_file(folder, manifest, "count"))
            swap_in(folder, "test", {"count": str(value + 1).encode()}, keep=manifest)


def test_those_who_change_a_folder_at_once_wait_for_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write(folder, {"count": b"0"})
    workers = [threading.Thread(target=_add_one, args=(folder,)) for _ in range(2)]  # each opens the lock on its own
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert read_file(folder, read_manifest(folder), "count") == b"40"


def test_looking_for_a_folder_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="does not exist"), locked(tmp_path / "none", "read"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_the_current_directory_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    write(folder, {"deep/a": b"1"})
    monkeypatch.chdir(folder / "deep")
    with pytest.raises(FolderError, match="run from outside it"):
        write(folder, {"deep/a": b"2"})


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path, force: bool) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(FolderError, match="run is a file"):
        require_replaceable(tmp_path / "run", force)
    with pytest.raises(FolderError, match="is not a folder that you can write to"):
        require_replaceable(tmp_path / "run" / "inside", force)
