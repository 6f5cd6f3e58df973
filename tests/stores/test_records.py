"""The chain of versions: whatever is removed, swapped, changed, forged or put back in it is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from retract.auditing.verifying import Standing
from retract.errors import FolderError
from retract.stores.extending import extend_folder
from retract.stores.folder import TrainedFolder
from retract.stores.keys import new_key
from retract.stores.manifest import sha256
from retract.stores.records import RECORD_FORM, Chain, Record, Recorded
from retract.stores.training import TrainOptions, train_folder
from tests.auditing.statements import KEY, OTHER
from tests.stores.folders import apply, ask, make_folder, served, tiny_dataset, tiny_system

SAID = [each.name for each in fields(Recorded)]


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five versions: trained, unlearned, extended, unlearned twice. Nobody changes it."""
    folder = make_folder(tmp_path_factory.mktemp("lived") / "run", "exact")
    ask(folder, "unshare", "u1", fraction=0.5)
    apply(folder)
    extend_folder(TrainedFolder(folder), tiny_dataset(n_users=14, seed=3))
    for user in ("u2", "u3"):
        ask(folder, "erase", user)
        apply(folder)
    return folder


@pytest.fixture
def folder(lived: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lived, tmp_path / "run"))


def room(folder: Path) -> Path:
    """Where the records lie."""
    (found,) = (folder / "server" / "records").iterdir()
    return found


def records(folder: Path) -> list[Record]:
    return [link.record for link in Standing.of(folder).links]


def signed(record: Record, key: Ed25519PrivateKey, **changes: object) -> bytes:
    """A record changed and signed anew."""
    said = {name: value for name, value in asdict(record).items() if name in SAID}
    return RECORD_FORM.sign({**said, **changes}, key)


def test_every_version_has_a_record_that_names_the_one_before(folder: Path) -> None:
    found = records(folder)
    assert [record.made for record in found] == ["train", "unlearn", "extend", "unlearn", "unlearn"]
    assert [record.version for record in found] == [record.number for record in found] == [1, 2, 3, 4, 5]
    assert [record.requests for record in found] == [0, 1, 0, 1, 1]
    contents = [(room(folder) / f"{number}.json").read_bytes() for number in range(1, 6)]
    assert [record.before for record in found] == [None, *map(sha256, contents[:-1])]
    files = TrainedFolder(folder).manifest().files
    last = found[-1]
    assert last.manifest == json.loads((folder / "server" / "current").read_bytes())["manifest"]
    held = (files["model.safetensors"], files["memory.safetensors"], files["shared.safetensors"])
    assert (last.model, last.memory, last.shared) == held
    assert last.public == KEY.public_key()


def test_records_hold_nobodys_id(folder: Path) -> None:
    texts = b"".join(path.read_bytes() for path in room(folder).iterdir())
    assert not any(f'"{name}"'.encode() in texts for name in ("u1", "u2", "u3", "i1"))
    asked = [request.id.encode() for request in TrainedFolder(folder).ledger.requests()]
    assert len(asked) == 3
    assert not any(id in texts for id in asked)


def remove_middle(place: Path) -> None:
    (place / "3.json").unlink()


def remove_first(place: Path) -> None:
    (place / "1.json").unlink()


def remove_last(place: Path) -> None:
    (place / "5.json").unlink()


def remove_all(place: Path) -> None:
    shutil.rmtree(place)


def remove_middle_and_close_the_gap(place: Path) -> None:
    for number in (4, 5):
        (place / f"{number}.json").replace(place / f"{number - 1}.json")


def swap(place: Path) -> None:
    (place / "2.json").replace(place / "spare")
    (place / "3.json").replace(place / "2.json")
    (place / "spare").replace(place / "3.json")


def flip(place: Path) -> None:
    content = (place / "2.json").read_bytes()
    (place / "2.json").write_bytes(content.replace(b'"requests": 1', b'"requests": 2'))


def cut(place: Path) -> None:
    (place / "4.json").write_bytes((place / "4.json").read_bytes()[:100])


def forge_with_another_key(place: Path) -> None:
    record = RECORD_FORM.read((place / "5.json").read_bytes(), "5")
    (place / "5.json").write_bytes(signed(record, OTHER))


def forge_middle_with_the_same_key(place: Path) -> None:
    record = RECORD_FORM.read((place / "3.json").read_bytes(), "3")
    (place / "3.json").write_bytes(signed(record, KEY, requests=7))


def forge_version(place: Path) -> None:
    record = RECORD_FORM.read((place / "5.json").read_bytes(), "5")
    (place / "5.json").write_bytes(signed(record, KEY, version=4))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove_first, r"1\.json is missing, and the chain goes on after it"),
        (remove_middle, r"3\.json is missing, and the chain goes on after it"),
        (remove_last, r"serves version 5, and the last record of its chain is of version 4"),
        (remove_all, r"has no record of version 5, which it serves"),
        (remove_middle_and_close_the_gap, r"3\.json is record 4 of its chain, not 3"),
        (swap, r"2\.json is record 3 of its chain, not 2"),
        (flip, r"2\.json is not what was signed"),
        (cut, r"4\.json is no record of a version, or a damaged one"),
        (forge_with_another_key, r"5\.json is signed by key SHA256:\w+, and the chain by SHA256:\w+, which signed no"),
        (forge_middle_with_the_same_key, r"4\.json follows another record than the one before"),
        (forge_version, r"5\.json is of version 4, and the record before it is no older"),
    ],
)
def test_a_harmed_chain_is_found(folder: Path, harm: Callable[[Path], None], message: str) -> None:
    harm(room(folder))
    with pytest.raises(FolderError, match=message):
        Standing.of(folder)


def test_an_older_version_that_was_put_back_is_found_and_not_built_upon(lived: Path, folder: Path) -> None:
    shutil.copytree(folder / "server" / "versions", old := folder.parent / "old")
    pointer = (folder / "server" / "current").read_bytes()
    ask(folder, "unshare", "u4")
    apply(folder)
    (folder / "server" / "current").write_bytes(pointer)
    with pytest.raises(FolderError, match=r"versions/5 is missing"):  # the number alone
        Standing.of(folder)
    shutil.copytree(old, folder / "server" / "versions", dirs_exist_ok=True)
    shutil.rmtree(folder / "devices" / "versions")
    shutil.copytree(lived / "devices" / "versions", folder / "devices" / "versions")
    message = r"serves version 5, and the last record of its chain is of version 6: a version was put back, or"
    with pytest.raises(FolderError, match=message):
        Standing.of(folder)
    ask(folder, "unshare", "u5")
    with pytest.raises(FolderError, match=message):
        apply(folder)


def test_a_record_that_a_kill_left_with_its_version_counts_and_is_laid_by_whoever_comes_next(folder: Path) -> None:
    (room(folder) / "5.json").replace(served(folder) / "record.json")
    assert len(records(folder)) == 5
    assert not (room(folder) / "5.json").exists()  # reading changes nothing
    with TrainedFolder(folder).unlearning():
        assert (room(folder) / "5.json").exists()
        assert not (served(folder) / "record.json").exists()
    ask(folder, "unshare", "u4")
    apply(folder)
    assert len(records(folder)) == 6


def test_a_training_begins_a_chain_and_of_the_one_before_nothing_stays(folder: Path, tmp_path: Path) -> None:
    before = room(folder)
    options = TrainOptions(force=True, key=tmp_path / "another.pem")
    train_folder(tiny_system("exact"), tiny_dataset(seed=1), folder, options)
    assert room(folder).name != before.name
    (record,) = records(folder)
    assert (record.number, record.before, record.version, record.made) == (1, None, 6, "train")
    assert record.public != KEY.public_key()


# --- the key ----------------------------------------------------------------------------------------------------------


def test_a_write_with_another_key_is_refused_before_any_work_and_names_the_command(
    folder: Path, tmp_path: Path
) -> None:
    new_key(tmp_path / "other.pem")
    request = ask(folder, "unshare", "u4")
    message = rf"are signed by key SHA256:\w+, not by SHA256:\w+: .*`retract keys rotate {folder} --old OLD.pem --new N"
    with pytest.raises(FolderError, match=message):
        from_key(folder, tmp_path / "other.pem").seals.ready()
    (pending,) = [one for one in TrainedFolder(folder).ledger.requests() if one.id == request.id]
    assert pending.pending
    assert len(records(folder)) == 5


def from_key(folder: Path, key: Path) -> TrainedFolder:
    return TrainedFolder(folder, key)


def test_a_key_that_is_not_there_is_missed_and_not_made(folder: Path, tmp_path: Path) -> None:
    message = r"there is no key at .*none\.pem: give it with --key, or `retract keys rotate .* --lost --new NEW\.pem`"
    with pytest.raises(FolderError, match=message):
        from_key(folder, tmp_path / "none.pem").seals.ready()
    assert not (tmp_path / "none.pem").exists()


def test_a_change_of_key_is_signed_by_the_old_one_and_the_chain_goes_on_with_the_new(
    folder: Path, tmp_path: Path, own_key: Path
) -> None:
    change = from_key(folder, own_key).seals.change_key(tmp_path / "new.pem")
    assert (change.made, change.public, change.version) == ("new key", KEY.public_key(), 5)
    ask(folder, "unshare", "u4")
    with pytest.raises(FolderError, match="keys rotate"):
        apply(folder)
    with pytest.raises(FolderError, match=r"is signed by key .* already"):
        from_key(folder, tmp_path / "new.pem").seals.change_key(tmp_path / "new.pem")
    extend_folder(from_key(folder, tmp_path / "new.pem"), tiny_dataset(n_users=16, seed=4))
    found = records(folder)
    assert [record.made for record in found[-2:]] == ["new key", "extend"]
    assert found[-1].public_key == change.next_key
    (room(folder) / "6.json").unlink()  # without the change
    (room(folder) / "7.json").replace(room(folder) / "6.json")
    with pytest.raises(FolderError, match="is record 7 of its chain, not 6"):
        Standing.of(folder)


def test_nobody_but_the_key_so_far_can_change_the_key(folder: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "thief.pem")
    with pytest.raises(FolderError, match="are signed by key"):
        from_key(folder, tmp_path / "thief.pem").seals.change_key(tmp_path / "new.pem")
    assert not (tmp_path / "new.pem").exists()
    last = Chain(folder, room(folder).name).last()
    assert last is not None
    raw = OTHER.public_key().public_bytes_raw().hex()
    forged = replace(last.record, number=6, made="new key", before=last.digest, next_key=raw)
    (room(folder) / "6.json").write_bytes(signed(forged, OTHER))
    with pytest.raises(FolderError, match=r"6\.json is signed by key .*, which signed no change of key"):
        Standing.of(folder)


def test_a_lost_key_breaks_the_trust_for_good_and_the_chain_goes_on(folder: Path, tmp_path: Path) -> None:
    from_key(folder, tmp_path / "none.pem").seals.change_key(tmp_path / "new.pem", lost=True)
    extend_folder(from_key(folder, tmp_path / "new.pem"), tiny_dataset(n_users=16, seed=4))
    standing = Standing.of(folder)
    assert [link.record.made for link in standing.links[-2:]] == ["lost key", "extend"]
    (told,) = standing.lost()
    assert "who changed the key after version 5: the key before was lost" in told
