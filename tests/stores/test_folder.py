from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from retract.data import Sharing
from retract.errors import FolderError
from retract.federation import Clients, LocalEngine
from retract.systems.folder import TrainedFolder, load, load_server, save
from retract.systems.requests import add_request
from retract.systems.storage import Manifest
from tests.stores.folders import make_folder, tiny_dataset, tiny_system

FILES = [
    "clients/private.parquet",
    "clients/state.safetensors",
    "clients/test.parquet",
    "manifest.json",
    "requests.jsonl",
    "server/config.json",
    "server/items.parquet",
    "server/log.jsonl",
    "server/memory.safetensors",
    "server/model.safetensors",
    "server/shared.parquet",
    "server/users.parquet",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("made") / "run")
    add_request(folder, "unshare", "u1")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_the_folder_holds_these_files_and_no_other(made: Path) -> None:
    assert sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()) == FILES


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    train, test = tiny_dataset().split()
    clients = Clients(Sharing.by_ratio(train, 0.5))
    trained = tiny_system().train(clients.sharing.shared, LocalEngine(clients), seed=3)
    save(tmp_path / "run", trained, clients, test)
    held = load(tmp_path / "run")
    assert (held.trained.system, held.trained.config, held.trained.seed) == ("fedshare", trained.config, 3)
    assert list(held.trained.log) == [dict(record) for record in trained.log]
    for mine, theirs in (
        (held.trained.model, trained.model),
        (held.trained.memory.tensors, trained.memory.tensors),
        (held.clients.state, clients.state),
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert torch.equal(held.clients.started, clients.started)
    for mine_, theirs_ in (
        (held.trained.shared, clients.sharing.shared),
        (held.clients.sharing.shared, clients.sharing.shared),
        (held.clients.sharing.private, clients.sharing.private),
        (held.test, test),
    ):
        assert mine_ == theirs_
        assert mine_.ratings is not None
        assert mine_.timestamps is not None
        assert mine_.ratings.tolist() == theirs_.ratings.tolist()  # type: ignore[union-attr]
        assert mine_.timestamps.tolist() == theirs_.timestamps.tolist()  # type: ignore[union-attr]
    assert held.catalog.title(2) == "Film 2"


def test_memory_on_disk_is_what_memory_claims(made: Path) -> None:
    tensors = load_file(made / "server" / "memory.safetensors")
    assert sum(tensor.nbytes for tensor in tensors.values()) == load(made).trained.memory.nbytes > 0


def test_the_server_half_needs_no_clients(folder: Path) -> None:
    shutil.rmtree(folder / "clients")
    shared = load_server(folder).shared
    assert len(shared) > 0
    assert shared.catalog.user("u3") == 3
    with pytest.raises(FolderError, match=r"clients/state.safetensors is missing"):
        load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(FolderError, match=rf"{name} is damaged: its .*(SHA-256|checksum) is [0-9a-f]{{12}}"):
        load(folder)


@pytest.mark.parametrize("name", set(FILES) - {"manifest.json"})
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FolderError, match=rf"{name} is missing"):
        load(folder)


def test_a_manifest_that_is_no_json_is_named(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(FolderError, match=r"manifest.json is damaged"):
        load(folder)


def test_another_version_is_named_with_the_one_that_is_read(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(Manifest("fedshare", {}, retract="9.0", format=2).to_bytes())
    with pytest.raises(FolderError, match=r"has folder format 2, this retract .* reads format 1: use .*9\.0"):
        load(folder)


def test_a_folder_of_somebody_else_is_no_trained_folder(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"is not a retract folder: it has no manifest\.json"):
        load(tmp_path)
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.retract-*"))


def _save_again(folder: Path, held: TrainedFolder, *, force: bool) -> None:
    save(folder, held.trained, held.clients, held.test, force=force)


def test_a_trained_folder_is_replaced_only_by_force(folder: Path) -> None:
    held = load(folder)
    with pytest.raises(FolderError, match=r"lose it and its pending requests; --force replaces it"):
        _save_again(folder, held, force=False)
    assert len(load(folder).pending) == 1
    _save_again(folder, held, force=True)
    assert load(folder).requests == ()


@pytest.mark.parametrize("name", ["thesis.tex", "manifest.json"])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_ours_is_never_replaced(made: Path, tmp_path: Path, name: str, force: bool) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / name).write_text('{"name": "of a web page"}')
    with pytest.raises(FolderError, match="is not a trained folder, so nothing in it is replaced: give another"):
        _save_again(tmp_path / "theirs", load(made), force=force)
    assert (tmp_path / "theirs" / name).read_text() == '{"name": "of a web page"}'


def test_what_is_not_ours_outlives_every_change_of_a_trained_folder(folder: Path) -> None:
    (folder / "server" / "notes.txt").write_text("mine")
    (folder / "link").symlink_to("server")
    before = load(folder)
    add_request(folder, "erase", "u2")
    _save_again(folder, before, force=True)
    assert load(folder).requests == ()
    assert (folder / "link" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("written", [Manifest("old", {"server/old": ""}, retract="0.0", format=0).to_bytes(), None])
def test_force_replaces_a_folder_of_another_version_or_a_damaged_one(
    folder: Path, made: Path, written: bytes | None
) -> None:
    (folder / "server" / "old").write_text("of users long gone")
    (folder / "manifest.json").write_bytes(written or (folder / "manifest.json").read_bytes().replace(b"fed", b"fad"))
    _save_again(folder, load(made), force=True)
    assert load(folder).trained.system == "fedshare"
    assert (folder / "server" / "old").exists() == (written is None)


def test_an_empty_folder_and_a_missing_parent_are_fine(made: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b" / "run"):
        _save_again(out, load(made), force=False)
        assert load(out).trained.shared == load(made).trained.shared


def test_a_folder_can_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    add_request(tmp_path / "link", "erase", "u2")
    assert (tmp_path / "link").is_symlink()
    assert len(load(folder).pending) == 2
