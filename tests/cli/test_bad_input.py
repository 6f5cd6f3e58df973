"""Bad input: exit code 2, one line with what, which value and where, nothing on stdout, nothing changed on disk."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from retract.stores.manifest import Manifest, sha256
from tests.cli.commands import SETTINGS, on_disk, retract
from tests.stores.folders import load, served


def assert_refused(room: Path, message: str, *arguments: object) -> None:
    """With and without --json."""
    before = on_disk(room)
    for options in ([], ["--json"]):
        line = retract(*arguments, *options).refusal()
        assert re.search(message, line), line
    assert on_disk(room) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such file: .*/data\.csv; check the path"),
        ("", r"data\.csv is empty"),
        ("\n \n", r"data\.csv is empty"),
        ("user,item,rating\n", r"data\.csv has a header but no rows"),
        ("a,item\n1,2\n", r"data\.csv: no user column; columns seen: a, item; name it with --user-col"),
        ("user,b\n1,2\n", r"data\.csv: no item column; columns seen: user, b; name it with --item-col"),
        ("uid,user_id,item\n1,1,2\n", r"several columns could be the user: uid, user_id; choose one with --user-col"),
        ("user,item,rating\na,b,4\nb,c,five\n", r"data\.csv, line 3, column 'rating': 'five' is not a finite number"),
        ("user,item,rating\na,b,NaN\nb,c,4\n", r"data\.csv, line 2, column 'rating': 'NaN' is not a finite number"),
        ("user,item,rating\na,b,4\nb,c,\n", r"data\.csv, line 3, column 'rating': the rating is missing"),
        ("user,item\na,b\n,c\n", r"data\.csv, line 3, column 'user': the user id is missing"),
        ("user,item\na,b\nb,c,d\n", r"data\.csv, line 3: 3 fields where the header has 2"),
        ("user,item\na,x\na,y\na,z\n", r"data: users with something to train on: 1; at least 2 are needed"),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    data = tmp_path / "data.csv"
    if content is not None:
        data.write_text(content)
    assert_refused(tmp_path, message, "train", "fedshare", "--data", data, "--out", tmp_path / "run", *SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--share", "-0.1"], r"share ratio -0\.1 lies outside \[0, 1\]"),
        (["--share", "1.5"], r"share ratio 1\.5 lies outside \[0, 1\]"),
        (["--share", "nan"], r"share ratio nan lies outside \[0, 1\]"),
        (["--share", "half"], r"'--share': 'half' is not a valid float \(see retract train --help\)"),
        (["--seed", "x"], r"'--seed': 'x' is not a valid integer"),
        (["--set", "rounds"], r"--set takes KEY=VALUE, such as rounds=50; it got 'rounds'"),
        (
            ["--set", "round=3"],
            r"fedshare has no setting 'round': the nearest are rounds \(a whole number at least 1, default 6\); ",
        ),
        (["--set", "rounds=0"], r"setting rounds of fedshare is '0': it must be a whole number at least 1"),
        (["--user-col", "who"], r"ratings\.csv: no column 'who'; columns seen: user, item, rating; correct --user-col"),
        (["--set", "item_rate=inf"], r"setting item_rate of fedshare is .inf.: it must be a number above 0"),
        (["--set", "item_rate=1e25"], r"fedshare diverged: items.* not finite; nothing was saved: lower its rates"),
        (["--sed", "1"], r"No such option.*--sed\b.*--seed.*see retract train --help"),
    ],
)
def test_an_option_of_training_out_of_its_range_is_refused(
    ratings: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    arguments = ["train", "fedshare", "--data", ratings, "--out", tmp_path / "run", *SETTINGS, *options]
    assert_refused(tmp_path, message, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "--user", "u99"], r"unknown user 'u99'; --suggest names the nearest known ids$"),
        (["recommend", "--user", "u99", "--suggest"], r"unknown user 'u99'; nearest known ids: u9"),
        (["recommend", "--user", "u1", "-k", "0"], r"k is 0: it must lie between 1 and the 15 items"),
        (["recommend", "--user", "u1", "-k", "16"], r"k is 16: it must lie between 1 and the 15 items"),
        (["recommend", "--user", "u1", "-k", "abc"], r"'-k': 'abc' is not a valid integer"),
        (["recommend"], r"give --user with a trained folder, or --items with a shipped file"),
        (["recommend", "--items", "i1"], r"run is a folder: give a shipped file"),
        (["ship", "--out", "x"], r"run holds fedshare, whose clients .*: only exact ships"),
        (["unshare", "--user", "u99"], r"unknown user 'u99'; --suggest names the nearest known ids$"),
        (["erase", "--user", "u99", "--suggest"], r"unknown user 'u99'; nearest known ids: u9"),
        (["erase", "--user", "u1", "--items", "i99"], r"unknown item 'i99'; nearest known ids: i9"),
        (["unshare", "--user", "u1", "--items", " ,"], r"--items names no item"),
        (["unshare", "--user", "u1", "--items", "i1", "--items-file", "x"], r"give one of --items and --items-file"),
        (
            ["unshare", "--user", "u1", "--all", "--items", "i1"],
            r"give one of --items, --items-file, --fraction and --all",
        ),
        (["unshare", "--user", "u1", "--fraction", "0"], r"fraction 0 lies outside \(0, 1\]"),
        (["erase", "--user", "u1", "--fraction", "2"], r"fraction 2 lies outside \(0, 1\]"),
        (["erase", "--user", "u1", "--fraction", "all"], r"'--fraction': 'all' is not a valid float"),
        (["unlearn", "--seed", "x"], r"'--seed': 'x' is not a valid integer"),
    ],
)
def test_what_a_trained_folder_cannot_answer_is_refused(folder: Path, arguments: list[str], message: str) -> None:
    assert_refused(folder.parent, message, arguments[0], folder, *arguments[1:])


def test_what_was_never_shared_is_named_per_item_and_nothing_is_applied(folder: Path) -> None:
    held = load(folder)
    user = held.catalog.user("u1")
    shared, private = held.sharing.shared.items_of(user), held.sharing.private.items_of(user)
    names = ",".join(held.catalog.item_ids[[*shared, *private]])
    named = ", ".join(f"item {name} of user u1" for name in held.catalog.item_ids[private])
    message = rf"error: {named} is not shared, so it cannot be unshared; nothing was applied"
    assert_refused(folder.parent, message, "unshare", folder, "--user", "u1", "--items", names)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_the_same_cannot_be_withdrawn_twice(folder: Path, kind: str) -> None:
    held = load(folder)
    item = held.catalog.item_ids[held.trained.shared.items_of(held.catalog.user("u1"))[0]]
    assert retract(kind, folder, "--user", "u1", "--all").code == 0
    again = ["--user", "u1", "--items", item]
    assert_refused(folder.parent, rf"nothing left to {kind} that is not pending already", kind, folder, "--user", "u1")
    assert_refused(folder.parent, f"already pending for user u1: item {item}", kind, folder, *again)
    assert retract("unlearn", folder).code == 0
    whole, one = {
        "unshare": ("nothing left to unshare; nothing was recorded", f"item {item} of user u1 is not shared"),
        "erase": ("unknown user 'u1'", "unknown user 'u1'"),  # who erased everything is nobody any more
    }[kind]
    assert_refused(folder.parent, whole, kind, folder, "--user", "u1")
    assert_refused(folder.parent, one, kind, folder, *again)


@pytest.mark.slow
def test_the_same_item_cannot_be_erased_twice(folder: Path) -> None:
    held = load(folder)
    item = held.catalog.item_ids[held.trained.shared.items_of(held.catalog.user("u1"))[0]]
    again = ["erase", folder, "--user", "u1", "--items", item]
    assert retract(*again).code == 0
    assert retract("unlearn", folder).code == 0
    assert_refused(folder.parent, f"item {item} of user u1 is not held, so it cannot be erased", *again)


COMMANDS = {
    "status": [],
    "recommend": ["--user", "u1"],
    "unshare": ["--user", "u1"],
    "erase": ["--user", "u1"],
    "unlearn": [],
}
FAULTS = {
    "none": r"run does not exist; `retract train` makes one",
    "empty": r"run is not a retract folder: it has no server/current; `retract train` makes one",
    "file": r"run is not a retract folder",
    "foreign": r"run/server/current is damaged, or not ours",
    "version": r"versions/1 has folder format 3, this retract .* reads format 2: use .*\(9\.0\)",
    "manifest": r"server/versions/1/manifest\.json is damaged",
    "lost version": r"server/versions/1 is missing, and .*run/server/current names it",
    "lost devices": r"run/devices holds no version 1, which the server's half is of: restore it, or remove",
    "data": r"1/shared\.safetensors is damaged: its SHA-256 is \w{12}, the manifest has \w{12}; restore",
    "model": r"1/model\.safetensors is damaged: its SHA-256 is \w{12}, the manifest has \w{12}; restore",
    "private": r"devices/versions/1/private\.safetensors is missing",
}
UNREAD = {"data": ["status"], "private": ["status"], "model": ["status", "unshare", "erase"]}
"""Commands that do not need a file, so that what is wrong with it is no matter to them."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "fault"),
    [(command, fault) for fault in FAULTS for command in COMMANDS if command not in UNREAD.get(fault, [])],
)
def test_a_folder_that_is_no_whole_trained_folder_is_refused(folder: Path, command: str, fault: str) -> None:
    break_folder(folder, fault)
    assert_refused(folder.parent, FAULTS[fault], command, folder, *COMMANDS[command])


@pytest.mark.parametrize(("fault", "commands"), UNREAD.items())
def test_what_a_command_does_not_read_does_not_stop_it(folder: Path, fault: str, commands: list[str]) -> None:
    break_folder(folder, fault)
    for command in commands:
        assert retract(command, folder, *COMMANDS[command]).code == 0


def break_folder(folder: Path, fault: str) -> None:
    """Make a folder on the disk what it must not be."""
    place = served(folder)
    if fault in ("none", "empty", "file"):
        shutil.rmtree(folder)
        {"none": lambda: None, "empty": folder.mkdir, "file": lambda: folder.write_text("")}[fault]()
    elif fault == "foreign":
        (folder / "server" / "current").write_text('{"name": "of a web page"}')
    elif fault == "version":
        content = Manifest("fedshare", 1, {}, retract="9.0", format=3).to_bytes()
        (place / "manifest.json").write_bytes(content)
        (folder / "server" / "current").write_text(json.dumps({"version": 1, "manifest": sha256(content)}))
    elif fault == "manifest":
        content = (place / "manifest.json").read_bytes()
        (place / "manifest.json").write_bytes(content.replace(b'"users": 12', b'"users": 13'))
    elif fault in ("data", "model"):
        path = place / {"data": "shared.safetensors", "model": "model.safetensors"}[fault]
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    elif fault == "private":
        (served(folder, "devices") / "private.safetensors").unlink()
    else:
        shutil.rmtree(served(folder, {"lost version": "server", "lost devices": "devices"}[fault]))


@pytest.mark.slow
def test_a_folder_that_is_not_ours_is_never_written_to(ratings: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    train = ["train", "fedshare", "--data", ratings, *SETTINGS, "--out"]
    for force in ([], ["--force"]):
        message = "thesis holds files and is not a trained folder, so nothing in it is replaced: give another folder"
        assert_refused(tmp_path, message, *train, tmp_path / "thesis", *force)
        assert_refused(tmp_path, "file is a file: give a folder", *train, tmp_path / "file", *force)
        assert_refused(tmp_path, "file is not a folder that you can write to", *train, tmp_path / "file" / "x", *force)


def test_a_trained_folder_is_replaced_by_force_alone_and_what_is_not_ours_in_it_stays(
    ratings: Path, folder: Path
) -> None:
    train = ["train", "fedshare", "--data", ratings, "--out", folder, *SETTINGS]
    (folder / "notes.txt").write_text("precious")
    retract("unshare", folder, "--user", "u1")
    assert_refused(folder.parent, "holds a trained system: training anew would lose it and its pending", *train)
    assert retract(*train, "--force").code == 0
    assert retract("status", folder, "--json").json["requests"] == []
    assert (folder / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "fedsharre"], r"unknown system 'fedsharre'; known systems: exact, fedshare, lightgcn"),
        (["train", "fedshare", "extra"], r"unexpected extra argument"),
        (["trian", "fedshare"], r"No such command 'trian'\. Did you mean 'train'\? \(see retract --help\)"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(
    ratings: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert_refused(tmp_path, message, *arguments, "--data", ratings, "--out", tmp_path / "run")
