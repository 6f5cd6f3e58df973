"""The commands that check a certificate and make the key for it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from retract.auditing.keys import fingerprint, load_key, load_public
from tests.auditing.statements import KEY, certify
from tests.cli.commands import on_disk, retract
from tests.cli.test_bad_input import assert_refused
from tests.stores.folders import make_folder

WHOSE = r"Whose key that is was not checked: --key does\."
HONEST = r"It shows the procedure and the hashes, not that no trace is left\."


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
        r"valid: 2 request\(s\), 4 interactions unlearned from exact, issued 2026-07-27T10:00:00\+00:00 by SHA256:\w+; "
    )
    assert re.fullmatch(rf"{what}checked: signature, model, memory, retained data\. {WHOSE} {HONEST}", checked)
    assert told[0] == "2 requests to withdraw 4 interactions, applied to exact on 27 July 2026, 10:00 UTC."
    assert on_disk(certificate.parents[1]) == before


def test_a_script_is_told_what_was_checked(certificate: Path) -> None:
    assert retract("verify", certificate, "--json").json == {
        "valid": True,
        "requests": 2,
        "interactions": 4,
        "system": "exact",
        "issued": "2026-07-27T10:00:00+00:00",
        "fingerprint": fingerprint(KEY.public_key()),
        "checked": ["signature", "model", "memory", "retained data"],
        "later": 0,
        "page": None,
    }


def test_a_page_for_people_is_written_where_it_is_asked_for(certificate: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert retract("verify", certificate, "--report", out).out.endswith(f"page: {out}\n")
    page = out.read_text()
    assert "What this certificate does not promise" in page
    assert "The trained folder holds the very model" in page
    assert fingerprint(KEY.public_key()) in page
    assert retract("verify", certificate, "--report", out, "--json").json["page"] == str(out)
    assert_refused(
        certificate.parents[1], r".* is a folder: give a file for the page", "verify", certificate, "--report", tmp_path
    )


def test_a_certificate_elsewhere_is_checked_alone_unless_its_folder_is_given(certificate: Path, tmp_path: Path) -> None:
    for room in (tmp_path / "mine", certificate.parents[1] / "mine", tmp_path / "certificates"):
        room.mkdir()
        moved = shutil.copy(certificate, room)
        assert retract("verify", moved, "--json").json["checked"] == ["signature"]
    assert "retained data" in retract("verify", moved, "--folder", certificate.parents[1], "--json").json["checked"]


def test_later_unlearning_is_said(certificate: Path) -> None:
    certify(certificate.parents[1], "2.json", model_before="e" * 64)
    changed = certify(certificate.parents[1], "3.json", model_after="e" * 64)
    answer = retract("verify", changed)
    assert "checked: signature, later certificates. 1 later unlearning(s) changed the model since. " in answer.out


def test_the_key_is_made_shown_by_its_fingerprint_and_compared(certificate: Path, tmp_path: Path) -> None:
    made = retract("keys", "new", tmp_path / "key.pem", "--json").json
    assert fingerprint(load_public(tmp_path / "key.pem.pub")) == made["fingerprint"]
    assert made["key"] == str(tmp_path / "key.pem")
    signed = certify(certificate.parents[1], "1.json", key=load_key(tmp_path / "key.pem"))
    assert retract("verify", signed, "--key", made["public_key"], "--json").json["checked"][:2] == ["signature", "key"]
    assert "not checked" not in retract("verify", signed, "--key", made["public_key"]).out


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
    assert_refused(certificate.parents[1], message, "verify", certificate)


def test_a_damaged_certificate_is_refused(certificate: Path, tmp_path: Path) -> None:
    content = certificate.read_bytes()
    certificate.write_bytes(content[: len(content) // 2])
    assert_refused(tmp_path, r"1\.json is no certificate, or a damaged one", "verify", certificate)
    certificate.write_bytes(content.replace(b'"count": 3', b'"count": 2'))
    assert_refused(tmp_path, r"1\.json is not what was signed: its signature does not hold", "verify", certificate)
    certificate.write_bytes(content.rstrip())
    assert_refused(tmp_path, r"1\.json is not what was signed: it was written anew", "verify", certificate)


def test_a_certificate_of_another_folder_is_refused(certificate: Path, made: Path, tmp_path: Path) -> None:
    message = r"1\.json is the certificate of another model: it certifies \w{12}, .*run holds \w{12}"
    assert_refused(tmp_path, message, "verify", certificate, "--folder", made)
    assert_refused(tmp_path, "none does not exist", "verify", certificate, "--folder", tmp_path / "none")


def test_a_wrong_key_is_refused(certificate: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    retract("keys", "new", key)
    verify = ["verify", certificate, "--key"]
    assert_refused(tmp_path, r"is signed by key SHA256:\w{32}, not by SHA256:\w{32}", *verify, f"{key}.pub")
    assert_refused(tmp_path, r"key\.pem is not an Ed25519 public key", *verify, key)
    assert_refused(tmp_path, r"no public key at .*none", *verify, tmp_path / "none")
