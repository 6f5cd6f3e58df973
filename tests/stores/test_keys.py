"""Keys: the private half is its owner's alone from the first instant, is never overwritten and never shown."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from retract.errors import CertificateError
from retract.stores.keys import Signer, default_key_path, fingerprint, load_key, load_public, new_key, public_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def pem(key, encryption=None) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "of me" / "key.pem"


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_new_key_is_read_again_by_its_owner_and_its_public_half_by_everybody(path, open_umask):
    key = new_key(path)
    assert load_key(path).private_bytes_raw() == key.private_bytes_raw()
    assert load_public(public_path(path)) == key.public_key()
    assert (mode(path), mode(public_path(path)), mode(path.parent)) == (0o600, 0o644, 0o700)
    assert sorted(file.name for file in path.parent.iterdir()) == ["key.pem", "key.pem.pub"]


def test_no_other_could_open_a_new_key_at_any_instant(path, monkeypatch, open_umask):
    created = []
    really_open, really_link = os.open, os.link

    def spied_open(file, flags, mode=0o777, **more):
        if flags & os.O_CREAT:
            created.append(mode)
        return really_open(file, flags, mode, **more)

    def spied_link(source, target):
        assert target in (path, public_path(path))
        assert mode(Path(source)) == (0o600 if target == path else 0o644)
        really_link(source, target)

    monkeypatch.setattr(os, "open", spied_open)
    monkeypatch.setattr(os, "link", spied_link)
    new_key(path)
    assert created == [0o600, 0o600]


def test_a_key_that_cannot_be_finished_leaves_nothing(path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        new_key(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("present", ["key.pem", "key.pem.pub"])
def test_no_key_is_overwritten(path, present):
    path.parent.mkdir()
    (path.parent / present).write_text("precious")
    with pytest.raises(CertificateError, match=rf"/{present} exists already, and no key is ever overwritten: give"):
        new_key(path)
    assert [file.name for file in path.parent.iterdir()] == [present]
    assert (path.parent / present).read_text() == "precious"


def test_no_key_is_overwritten_that_another_process_makes_meanwhile(path, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda self: False)
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(CertificateError, match="exists already"):
        new_key(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_private_key_that_is_open_to_others_is_refused(path, bits):
    new_key(path)
    path.chmod(bits)
    with pytest.raises(CertificateError, match=rf"key\.pem is open to others \(mode {bits:04o}\).*chmod 600"):
        load_key(path)


def test_what_is_no_key_is_refused_and_not_shown(path):
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.parent.mkdir()
    for content in (b"", b"secret", pem(key)[:-40], pem(key, BestAvailableEncryption(b"x")), public):
        assert_refused(path, content, load_key, "is not an Ed25519 private key")
    assert_refused(path, pem(ec.generate_private_key(ec.SECP256R1())), load_key, "is not an Ed25519 private key")
    for content in (b"", b"secret", pem(key), public[:-40]):
        assert_refused(path, content, load_public, "is not an Ed25519 public key")


def assert_refused(path: Path, content: bytes, load, message: str) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CertificateError, match=message) as caught:
        load(path)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not content or not any(line in str(caught.value) for line in content.decode().splitlines())


@pytest.mark.parametrize(("load", "kind"), [(load_key, "private"), (load_public, "public")])
def test_a_missing_key_is_refused(tmp_path, load, kind):
    for place in (tmp_path, tmp_path / "none.pem"):
        with pytest.raises(CertificateError, match=f"no {kind} key at {place}"):
            load(place)


def test_a_key_does_not_show_itself(path):
    key = new_key(path)
    raw = key.private_bytes_raw()
    shown = f"{key!r} {key} {fingerprint(key.public_key())}"
    assert not any(text in shown for text in (raw.hex(), str(raw), base64.b64encode(raw).decode(), pem(key).decode()))


def test_a_key_is_made_once_and_told_once_with_its_place_its_fingerprint_and_how_to_use_another(path):
    made, again = Signer.at(path), Signer.at(path)
    assert (made.made, again.made, again.notes) == (True, False, ())
    assert again.key.private_bytes_raw() == made.key.private_bytes_raw()
    (told,) = made.notes
    for text in (str(path), f"{path}.pub", fingerprint(made.key.public_key()), "--key", "RETRACT_KEY"):
        assert text in told


def test_a_key_that_is_open_to_others_is_not_replaced(path):
    new_key(path)
    path.chmod(0o644)
    with pytest.raises(CertificateError, match="open to others"):
        Signer.at(path)


def test_where_no_key_can_be_made_another_place_is_asked_for(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CertificateError, match=r"no key .* can be made at .*: name a place for one with --key or in"):
        Signer.at(tmp_path / "file" / "key.pem")


def test_a_fingerprint_is_of_the_raw_public_key():
    key = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    assert fingerprint(key) == "SHA256:139e3940e64b5491722088d9a0d741628fc826e09475d341a780acde3c4b8070"[:39]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RETRACT_KEY": "/k.pem", "XDG_CONFIG_HOME": "/x"}, "/k.pem"),
        ({"RETRACT_KEY": "", "XDG_CONFIG_HOME": "/x"}, "/x/retract/key.pem"),
        ({"XDG_CONFIG_HOME": ""}, "/h/.config/retract/key.pem"),
        ({}, "/h/.config/retract/key.pem"),
    ],
)
def test_where_the_key_is_unless_one_is_given(monkeypatch, environment, expected):
    for name in ("RETRACT_KEY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/h", **environment}.items():
        monkeypatch.setenv(name, value)
    assert str(default_key_path()) == expected
