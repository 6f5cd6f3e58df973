"""Trained folders: what is written is what is read, and whatever is wrong is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from retract.data import Sharing
from retract.errors import FederationError, FolderError
from retract.federation import LocalEngine
from retract.stores.devices import MemoryDevices
from retract.stores.folder import TrainedFolder
from retract.stores.held import Held
from retract.stores.manifest import Manifest
from retract.stores.reading import recommend_folder
from retract.stores.status import status
from retract.stores.training import TrainOptions, train_folder
from retract.stores.versions import require_replaceable
from tests.stores.folders import (
    apply,
    ask,
    items,
    load,
    make_folder,
    on_disk,
    requests,
    served,
    tiny_dataset,
    tiny_system,
)

SERVED = ["catalog.json", "config.json", "log.jsonl", "memory.safetensors", "model.safetensors", "shared.safetensors"]
FILES = [
    "server/current",
    *(f"devices/versions/1/{name}.safetensors" for name in ("private", "state", "test")),
    "devices/versions/1/manifest.json",
    *(f"server/versions/1/{name}" for name in (*SERVED, "manifest.json")),
]


def record_of(folder: Path) -> str:
    """The first record of the model that is served."""
    return f"server/records/{TrainedFolder(folder).manifest().facts['model']}/1.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("made") / "run")
    ask(folder, "unshare", "u1")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_folder_holds_these_files_and_no_other(made: Path) -> None:
    (request,) = requests(made)
    ledger = TrainedFolder(made).ledger.root.relative_to(made.resolve()).as_posix()
    assert sorted(on_disk(made)) == sorted(
        [*FILES, record_of(made), f"{ledger}/ledger.jsonl", f"{ledger}/requests/{request.id}.json"]
    )


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    train, test = tiny_dataset().split()
    devices, system = MemoryDevices(Sharing.by_ratio(train, 0.5)), tiny_system()
    engine = LocalEngine(devices, system.device.tasks)
    trained = system.server.train(devices.sharing.shared, engine, seed=3)
    TrainedFolder(tmp_path / "run").save(Held(trained, devices, test))
    held = load(tmp_path / "run")
    assert (held.trained.system, held.trained.config, held.trained.seed) == ("fedshare", trained.config, 3)
    assert held.trained.run == trained.run
    assert list(held.trained.log) == [dict(record) for record in trained.log]
    assert held.devices is not None
    mine, theirs = held.devices.kept(trained.run), devices.kept(trained.run)
    assert mine.clients.tolist() == theirs.clients.tolist()
    for loaded, saved in (
        (held.trained.model, trained.model),
        (held.trained.memory.tables, trained.memory.tables),
        (mine.state, theirs.state),
    ):
        assert loaded.keys() == saved.keys() != set()
        assert all(np.array_equal(loaded[name], saved[name]) for name in saved)
        assert all(loaded[name].dtype == np.asarray(saved[name]).dtype for name in saved)
    for part, given in (
        (held.trained.shared, devices.sharing.shared),
        (held.devices.sharing.shared, devices.sharing.shared),
        (held.devices.sharing.private, devices.sharing.private),
        (held.test, test),
    ):
        assert part == given
        for column in ("ratings", "timestamps"):
            assert getattr(part, column).tolist() == getattr(given, column).tolist()
    assert held.catalog.title(2) == "Film 2"


def test_clients_of_many_users_are_found_again(tmp_path: Path) -> None:
    train_folder(tiny_system("personalfr"), tiny_dataset(), tmp_path / "run", TrainOptions(share=0.5, clients=4))
    held = load(tmp_path / "run")
    assert held.devices is not None
    clients = held.devices.clients_of(held.devices.users)
    assert set(clients.tolist()) == {0, 1, 2, 3}
    assert (
        clients.tolist() == Sharing.by_ratio(held.interactions, 0.5).held_by(4).client_of[held.devices.users].tolist()
    )


def test_memory_on_disk_is_what_memory_claims(made: Path) -> None:
    tables = load_file(served(made) / "memory.safetensors")
    assert sum(table.nbytes for table in tables.values()) == load(made).trained.memory.nbytes > 0


def test_an_empty_folder_and_a_missing_parent_are_fine(made: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b" / "run"):
        require_replaceable(out, force=False)
        TrainedFolder(out).save(load(made))
        assert load(out).trained.shared == load(made).trained.shared


@pytest.mark.slow
def test_a_folder_can_be_reached_through_a_link_and_from_inside(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(folder)
    ask(tmp_path / "link", "erase", "u2")
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(folder / "server")
    assert apply(Path("..")).requests == 2
    assert load(folder).version == 2


# --- what is wrong is named -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    pattern = rf"{name} is damaged: its .*(SHA-256|checksum) is [0-9a-f]{{12}}"
    if name == "server/versions/1/manifest.json":
        pattern = rf"{name} is damaged(: its .*checksum is [0-9a-f]{{12}}|, or not ours)"
    if name == "server/current":
        pattern = r"versions/1/manifest.json is damaged: its SHA-256 is .*, the pointer to it has"
    with pytest.raises(FolderError, match=pattern):
        load(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name != "server/current"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    pattern = {
        "server/versions/1/manifest.json": r"server/versions/1 is missing",
        "devices/versions/1/manifest.json": r"devices holds no version 1, which the server's half is of",
    }.get(name, rf"{name} is missing from the trained folder")
    with pytest.raises(FolderError, match=pattern):
        load(folder)


def test_a_manifest_that_is_no_json_is_named(folder: Path) -> None:
    (served(folder) / "manifest.json").write_text("{")
    with pytest.raises(FolderError, match=r"manifest.json is damaged"):
        load(folder)


def test_another_format_is_named_with_the_one_that_is_read(folder: Path) -> None:
    (served(folder) / "manifest.json").write_bytes(Manifest("fedshare", 1, {}, retract="9.0", format=3).to_bytes())
    with pytest.raises(FolderError, match=r"has folder format 3, this retract .* reads format 2: use .*9\.0"):
        load(folder)


def test_a_damaged_line_of_the_ledger_is_named_and_an_unfinished_last_one_is_no_line(folder: Path) -> None:
    ledger = TrainedFolder(folder).ledger
    with ledger.path.open("ab") as file:
        file.write(b'{"event": "compl')
    assert [request.user for request in requests(folder)] == ["u1"]
    ask(folder, "unshare", "u3")
    assert [request.user for request in requests(folder)] == ["u1", "u3"]
    ledger.path.write_bytes(b"{}\n" + ledger.path.read_bytes())
    with pytest.raises(FolderError, match=r"ledger.jsonl, line 1 is damaged: restore the ledger"):
        requests(folder)


def test_damaged_details_of_a_request_are_named(folder: Path) -> None:
    private = ask(folder, "erase", "u2")
    told = TrainedFolder(folder).inbox.beside / f"{private.id}.json"
    told.write_text("[]")
    with pytest.raises(FolderError, match=rf"devices/requests/[0-9a-f]+/{private.id}.json is damaged"):
        apply(folder)
    assert status(folder).pending == 2


def test_a_folder_of_somebody_else_is_no_trained_folder(tmp_path: Path) -> None:
    for read in (load, status, apply, requests, recommend_u1):
        with pytest.raises(FolderError, match=r"is not a retract folder: it has no server/current; `retract train`"):
            read(tmp_path)
    assert not list(tmp_path.iterdir())


def recommend_u1(folder: Path) -> object:
    return recommend_folder(folder, "u1")


# --- what is replaced, and what is not --------------------------------------------------------------------------------


def _train_again(folder: Path, *, force: bool) -> None:
    train_folder(tiny_system("exact"), tiny_dataset(), folder, TrainOptions(force=force))


def test_a_trained_folder_is_replaced_only_by_force_and_nothing_of_the_old_model_stays(folder: Path) -> None:
    ask(folder, "erase", "u2")
    (folder / "audits.jsonl").write_text("{}\n")
    (folder / "certificates").mkdir()
    (folder / "certificates" / "one.json").write_text("{}")
    before = on_disk(folder)
    with pytest.raises(FolderError, match=r"lose it and its pending requests; --force replaces it"):
        _train_again(folder, force=False)
    assert on_disk(folder) == before
    _train_again(folder, force=True)
    assert load(folder).trained.system == "exact"
    assert (requests(folder), TrainedFolder(folder).audits()) == ((), [])
    files = [name.replace("versions/1", "versions/2") for name in FILES]
    assert sorted(on_disk(folder)) == sorted([*files, record_of(folder)])


@pytest.mark.parametrize("name", ["thesis.tex", "manifest.json"])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path: Path, name: str, force: bool) -> None:
    (tmp_path / name).write_text('{"name": "of a web page"}')
    with pytest.raises(FolderError, match="is not a trained folder, so nothing in it is replaced: give another"):
        _train_again(tmp_path, force=force)
    assert on_disk(tmp_path) == {name: b'{"name": "of a web page"}'}


def test_what_is_not_ours_outlives_every_change_of_a_trained_folder(folder: Path) -> None:
    (folder / "server" / "notes.txt").write_text("mine")
    (folder / "link").symlink_to("server")
    apply(folder)
    _train_again(folder, force=True)
    assert requests(folder) == ()
    assert (folder / "link" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("file", ["server/current", "server/versions/1/manifest.json"])
def test_force_replaces_a_damaged_folder(folder: Path, file: str) -> None:
    (folder / file).write_text("damaged")
    _train_again(folder, force=True)
    assert load(folder).trained.system == "exact"
    assert len(list((folder / "server" / "versions").iterdir())) == 1


def test_force_replaces_a_folder_of_the_first_layout_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    old = {"manifest.json": '{"format": 1, "retract": "0.1", "files": {}}', "requests.jsonl": "", "notes.txt": "mine"}
    for name in ("server/users.parquet", "server/model.safetensors", "clients/private.parquet"):
        old[name] = "of users long gone"
    for name, text in old.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(FolderError, match="--force replaces it"):
        _train_again(tmp_path, force=False)
    _train_again(tmp_path, force=True)
    assert sorted(on_disk(tmp_path)) == sorted([*FILES, record_of(tmp_path), "notes.txt"])


# --- the server's half alone ------------------------------------------------------------------------------------------


@pytest.fixture(params=["exact", "fedshare"])
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A server whose devices are elsewhere."""
    folder = make_folder(tmp_path / "alone", request.param)
    shutil.move(folder / "devices", tmp_path / "elsewhere")
    return folder


def test_a_server_without_devices_reads_recommends_and_takes_requests(alone: Path) -> None:
    held = load(alone)
    assert held.devices is None
    assert held.interactions == held.trained.shared == TrainedFolder(alone).shared()
    found = status(alone)
    assert (found.private, found.shared, found.pending) == (None, len(held.trained.shared), 0)
    had, lists = items(held, "shared", "u3"), recommend_folder(alone, "u3", 5).items
    assert len(lists) == 5
    assert not had & {line.item for line in lists}
    assert set(ask(alone, "unshare", "u1").items) == items(held, "shared", "u1")
    assert set(ask(alone, "erase", "u2").items) == items(held, "shared", "u2")  # all that it can name
    assert not (alone / "devices").exists()
    assert status(alone).pending == 2


def test_a_server_without_devices_unshares(alone: Path) -> None:
    before = load(alone)
    ask(alone, "unshare", "u1")
    report = apply(alone)
    after = load(alone)
    assert report.requests == 1
    assert (items(after, "shared", "u1"), after.devices) == (set(), None)
    assert len(after.trained.shared) == len(before.trained.shared) - report.forgotten
    assert not (alone / "devices").exists()


def test_a_server_without_devices_erases_what_it_alone_has_learnt_from(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "alone", "exact")
    shutil.rmtree(folder / "devices")
    ask(folder, "erase", "u2")
    assert apply(folder).requests == 1
    assert status(folder).pending == 0
    assert "u2" not in load(folder).catalog.user_ids


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedshare", "personalfr"])
@pytest.mark.parametrize("private_alone", [False, True])
def test_an_erasure_that_has_to_ask_devices_is_refused_without_them_and_stays_pending(
    tmp_path: Path, name: str, private_alone: bool
) -> None:
    folder = make_folder(tmp_path / "alone", name)
    own = {"items": sorted(items(load(folder), "private", "u2"))} if private_alone else {}
    ask(folder, "erase", "u2", **own)
    shutil.rmtree(folder / "devices")
    before = load(folder).trained.model
    with pytest.raises(FederationError, match=f"{name} learns from its devices, so an erasure has to ask them, and"):
        apply(folder)
    assert (status(folder).pending, requests(folder)[0].status) == (1, "pending")
    assert all(np.array_equal(before[table], load(folder).trained.model[table]) for table in before)


# --- what needs what --------------------------------------------------------------------------------------------------


def test_status_and_asking_do_not_read_the_model(folder: Path) -> None:
    for name in ("model.safetensors", "memory.safetensors"):
        (served(folder) / name).write_bytes(b"damaged")
    (served(folder, "devices") / "state.safetensors").unlink()
    ask(folder, "erase", "u2")
    assert (status(folder).pending, status(folder).system) == (2, "fedshare")
    with pytest.raises(FolderError, match=r"(model|memory)\.safetensors is damaged"):
        load(folder)


BLOCKED = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "polars"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Finder())
"""


def without_torch(script: str, *arguments: object) -> str:
    """What a script prints where torch and polars cannot be imported."""
    command = [sys.executable, "-c", BLOCKED + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_no_store_needs_torch_or_polars() -> None:
    script = """
import pkgutil
from importlib import import_module
import retract.stores
names = [name for _, name, _ in pkgutil.iter_modules(retract.stores.__path__)]
for name in names:
    import_module(f"retract.stores.{name}")
print(sorted(names), [name for name in sys.modules if name.split(".")[0] in ("torch", "polars")])
"""
    found = without_torch(script)
    assert "'device_folder'" in found
    assert found.strip().endswith("[]")


@pytest.mark.slow
def test_a_folder_of_exact_lives_without_torch(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", "exact")
    script = """
import json
from pathlib import Path
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import unlearn_folder
from retract.stores.reading import recommend_folder
from retract.stores.requests import Wish, add_request
from retract.stores.status import status
path = Path(sys.argv[1])
add_request(TrainedFolder(path), Wish("erase", "u2"))
print(json.dumps([unlearn_folder(TrainedFolder(path)).requests, status(path).pending,
                  len(recommend_folder(path, "u3").items)]))
"""
    assert json.loads(without_torch(script, folder)) == [1, 0, 10]


def test_status_computes_nothing(folder: Path) -> None:
    script = """
from pathlib import Path
from retract.stores.status import status
status(Path(sys.argv[1]))
print([name for name in ("numpy", "scipy", "pydantic", "safetensors") if name in sys.modules])
"""
    assert without_torch(script, folder).strip() == "[]"
