"""The commands that check a certificate and make the key for it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from retract.stores.keys import fingerprint, load_key, load_public
from tests.auditing.statements import KEY, certify
from tests.cli.commands import on_disk, retract
from tests.cli.test_bad_input import assert_refused
from tests.stores.folders import make_folder

HONEST = r"It shows the procedure and the hashes, not that no trace is left\."


def assert_not_valid(room: Path, message: str, *arguments: object) -> None:
    """One line on stderr, exit code 2, nothing changed; with --json also the results on stdout."""
    before = on_disk(room)
    plain, as_json = retract("verify", *arguments), retract("verify", *arguments, "--json")
    assert (plain.code, plain.err.count("\n")) == (2, 1), plain
    assert re.search(f"^error: .*{message}", plain.err), plain
    assert (as_json.code, as_json.err) == (2, plain.err)
    found = json.loads(as_json.out)
    assert not found["valid"]
    assert [f"error: {one['refusal']}\n" for one in found["results"] if not one["valid"]] == [plain.err]
    assert on_disk(room) == before


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("certified") / "run", "exact")
    certify(folder, "1.json")
    return folder


@pytest.fixture
def certificate(certified: Path, tmp_path: Path) -> Path:
    """A certificate in the folder that it is about."""
    return Path(shutil.copytree(certified, tmp_path / "run")) / "certificates" / "1.json"


def test_a_certificate_in_its_folder_is_checked_against_it_in_one_line_and_told_in_plain_ones(
    certificate: Path,
) -> None:
    before = on_disk(certificate.parents[1])
    answer = retract("verify", certificate)
    checked, *told = answer.out.splitlines()
    assert (answer.code, answer.err, len(told)) == (0, "", 2)
    what = (
        r"\S+1\.json is valid: 2 request\(s\), 4 interactions unlearned from exact, issued 2026-07-27T10:00:00\+00:00 "
        r"by SHA256:\w+; checked: the signature holds; version 1 of the chain of \S+run, which is the one served; "
        r"the model, the memory and the retained data are the folder's; not checked: whose key it is: --key says\. "
    )
    assert re.fullmatch(rf"{what}{HONEST}", checked)
    assert told[0] == "2 requests to withdraw 4 interactions, applied to exact on 27 July 2026, 10:00 UTC."
    assert on_disk(certificate.parents[1]) == before


def test_a_script_is_told_what_was_checked(certificate: Path) -> None:
    folder = certificate.parents[1]
    assert retract("verify", certificate, "--json").json == {
        "valid": True,
        "results": [
            {
                "valid": True,
                "path": str(certificate),
                "kind": "certificate",
                "refusal": None,
                "checked": [
                    "the signature holds",
                    f"version 1 of the chain of {folder}, which is the one served",
                    "the model, the memory and the retained data are the folder's",
                ],
                "not_checked": ["whose key it is: --key says"],
                "system": "exact",
                "fingerprint": fingerprint(KEY.public_key()),
                "issued": "2026-07-27T10:00:00+00:00",
                "version": 1,
                "later": 0,
                "requests": 2,
                "interactions": 4,
            }
        ],
        "page": None,
    }


def test_a_page_for_people_is_written_where_it_is_asked_for(certificate: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert retract("verify", certificate, "--report", out).out.endswith(f"page: {out}\n")
    page = out.read_text()
    assert "What this certificate does not promise" in page
    assert "which is the one served." in page
    assert "Whose key it is: --key says." in page
    assert fingerprint(KEY.public_key()) in page
    assert retract("verify", certificate, "--report", out, "--json").json["page"] == str(out)
    assert_refused(
        certificate.parents[1], r".* is a folder: give a file for the page", "verify", certificate, "--report", tmp_path
    )


def test_a_certificate_elsewhere_is_checked_alone_unless_its_folder_is_given(certificate: Path, tmp_path: Path) -> None:
    for room in (tmp_path / "mine", certificate.parents[1] / "mine", tmp_path / "certificates"):
        room.mkdir()
        moved = shutil.copy(certificate, room)
        (alone,) = retract("verify", moved, "--json").json["results"]
        assert alone["checked"] == ["the signature holds"]
        assert "the model and the data: no folder was given" in alone["not_checked"]
    whole, beside = retract("verify", moved, certificate.parents[1], "--json").json["results"]
    assert (whole["kind"], beside["kind"], beside["version"]) == ("folder", "certificate", 1)


def test_all_certificates_of_a_folder_are_verified_whatever_was_done_between_and_since(
    ratings: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    assert retract("train", "exact", "--data", ratings, "--out", folder).code == 0
    for user, options in (("u1", ["--audit"]), ("u2", []), ("u3", ["--audit"]), ("u4", [])):
        assert retract("erase", folder, "--user", user).code == 0
        assert retract("unlearn", folder, *options).code == 0
    files = sorted((folder / "certificates").glob("*.json"))
    answer = retract("verify", *files)
    assert (answer.code, answer.err, answer.out.count("is valid: 1 request(s)")) == (0, "", 2)
    assert "3 version(s) later (3 × unlearn) is the one served" in answer.out
    assert retract("verify", folder).out.count("is valid") == 3
    files[0].write_bytes(b"{}")
    answer = retract("verify", folder)
    assert (answer.code, answer.out.count("is valid"), answer.err.count("\n")) == (2, 2, 1)
    assert [one["valid"] for one in json.loads(retract("verify", folder, "--json").out)["results"]] == [
        True,
        False,
        True,
    ]
    assert [place.name for place in tmp_path.iterdir()] == ["m"]  # locks too live inside the folder


def test_a_key_is_changed_by_command_and_who_writes_with_another_is_told_of_it(
    ratings: Path, tmp_path: Path, own_key: Path
) -> None:
    folder, new = tmp_path / "m", tmp_path / "new.pem"
    assert retract("train", "exact", "--data", ratings, "--out", folder).code == 0
    assert retract("keys", "new", new).code == 0
    assert retract("erase", folder, "--user", "u1").code == 0
    before = on_disk(folder)
    refusal = retract("unlearn", folder, "--key", new).refusal()
    assert f"`retract keys rotate {folder} --old OLD.pem --new NEW.pem`" in refusal
    assert on_disk(folder) == before
    done = retract("keys", "rotate", folder, "--old", own_key, "--new", new, "--json").json
    assert done == {"key": str(new), "fingerprint": done["fingerprint"], "signed_by_old_key": True}
    assert retract("unlearn", folder, "--key", new).code == 0
    assert "1 change(s) of key, each signed by the key before" in retract("verify", folder).out
    lost = retract("keys", "rotate", folder, "--lost", "--new", tmp_path / "newer.pem")
    assert "the change is signed by nobody, for the key before was lost" in lost.out
    assert "not checked: who changed the key after version 2: the key before was lost" in retract("verify", folder).out
    assert "give --old or --lost" in retract("keys", "rotate", folder, "--lost", "--old", new, "--new", new).refusal()


def test_a_key_that_is_made_is_said_once(ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRACT_KEY", str(tmp_path / "own.pem"))
    first = retract("train", "exact", "--data", ratings, "--out", tmp_path / "m")
    again = retract("train", "exact", "--data", ratings, "--out", tmp_path / "m", "--force")
    told = f"made a key that signs versions and certificates: {tmp_path / 'own.pem'}"
    assert [told in answer.err for answer in (first, again)] == [True, False]
    assert fingerprint(load_public(tmp_path / "own.pem.pub")) in first.err


def test_the_key_is_made_shown_by_its_fingerprint_and_compared(certificate: Path, tmp_path: Path) -> None:
    made = retract("keys", "new", tmp_path / "key.pem", "--json").json
    assert fingerprint(load_public(tmp_path / "key.pem.pub")) == made["fingerprint"]
    assert made["key"] == str(tmp_path / "key.pem")
    signed = shutil.copy(certify(certificate.parents[1], "2.json", key=load_key(tmp_path / "key.pem")), tmp_path)
    (found,) = retract("verify", signed, "--key", made["public_key"], "--json").json["results"]
    assert found["checked"] == ["the signature holds", "the key is the one given"]
    assert "whose key" not in retract("verify", signed, "--key", made["public_key"]).out


def test_the_private_key_is_not_shown(tmp_path: Path) -> None:
    answer = retract("keys", "new", tmp_path / "key.pem")
    assert (answer.code, answer.err, answer.out.count("\n")) == (0, "", 1)
    secret = load_key(tmp_path / "key.pem").private_bytes_raw().hex()
    lines = (tmp_path / "key.pem").read_text().splitlines()
    assert not any(text in answer.out for text in (secret, *lines))


def test_without_a_path_the_key_is_made_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRACT_KEY", str(tmp_path / "own" / "key.pem"))
    assert retract("keys", "new").code == 0
    assert (tmp_path / "own" / "key.pem").exists()
    message = r"own/key\.pem exists already, and no key is ever overwritten: give another path, or move it away"
    assert_refused(tmp_path, message, "keys", "new")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such certificate: .*/1\.json; check the path"),
        (b"", r"1\.json is empty"),
        (b"{}", r"1\.json is no certificate: it has no field 'format'"),
        (b"[" * 100_000, r"1\.json is no certificate, or a damaged one: it is not the JSON of one"),
        (b"\x1b]0;\n", r"1\.json is no certificate, or a damaged one"),
    ],
)
def test_what_is_no_certificate_is_refused(certificate: Path, content: bytes | None, message: str) -> None:
    certificate.unlink()
    if content is not None:
        certificate.write_bytes(content)
    assert_not_valid(certificate.parents[1], message, certificate)


def test_a_damaged_certificate_is_refused(certificate: Path, tmp_path: Path) -> None:
    content = certificate.read_bytes()
    certificate.write_bytes(content[: len(content) // 2])
    assert_not_valid(tmp_path, r"1\.json is no certificate, or a damaged one", certificate)
    certificate.write_bytes(content.replace(b'"count": 3', b'"count": 2'))
    assert_not_valid(tmp_path, r"1\.json is not what was signed: its signature does not hold", certificate)
    certificate.write_bytes(content.rstrip())
    assert_not_valid(tmp_path, r"1\.json is not what was signed: it was written anew", certificate)


def test_a_certificate_of_another_folder_is_refused(certificate: Path, made: Path, tmp_path: Path) -> None:
    message = r"1\.json is the certificate of another model: it certifies \w{19}, and no version in the chain of .*run"
    assert_not_valid(tmp_path, message, shutil.copy(certificate, tmp_path / "1.json"), made)
    assert_not_valid(tmp_path, "no such certificate: .*none; check the path", tmp_path / "none")
    assert_not_valid(tmp_path, "is not a retract folder", tmp_path)


def test_a_wrong_key_is_refused(certificate: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    retract("keys", "new", key)
    message = r"is signed by key SHA256:\w{32}, not by SHA256:\w{32}"
    assert_not_valid(tmp_path, message, certificate, "--key", f"{key}.pub")
    verify = ["verify", certificate, "--key"]
    assert_refused(tmp_path, r"key\.pem is not an Ed25519 public key", *verify, key)
    assert_refused(tmp_path, r"no public key at .*none", *verify, tmp_path / "none")
