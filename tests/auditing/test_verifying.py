"""Verifying: a certificate holds for the folder whose chain leads from its version to the one that is served."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from retract.auditing.certificate import read, sign
from retract.auditing.judging import Auditing
from retract.auditing.verifying import Standing, Verdict, verify, verify_paths
from retract.errors import CertificateError
from retract.stores.extending import extend_folder
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import unlearn_folder
from retract.stores.keys import fingerprint, load_key
from retract.stores.versions import CERTIFICATES
from tests.auditing.statements import KEY, OTHER, STATEMENT, certify
from tests.stores.folders import apply, ask, load, make_folder, served, tiny_dataset

CONTENT = sign(STATEMENT, KEY)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("made") / "run", "exact")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def check(path: Path, folder: Path) -> Verdict:
    return verify(path.read_bytes(), str(path), standing=Standing.of(folder))


def forget_one(folder: Path, user: str, key: Path | None = None) -> None:
    """Unlearn one interaction, without an audit."""
    ask(folder, "unshare", user, fraction=0.2)
    unlearn_folder(TrainedFolder(folder, key))


def audited(folder: Path, user: str, key: Path | None = None) -> Path:
    """The certificate of an audited unlearning."""
    ask(folder, "unshare", user, fraction=0.4)
    trained = TrainedFolder(folder, key)
    judge = Auditing(lambda: trained.seals.signer.key)
    unlearn_folder(trained, judge=judge)
    return folder / str(judge.name)


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_compared_with_the_one_given() -> None:
    alone = verify(CONTENT, "c.json")
    assert alone.checked == ("the signature holds",)
    assert alone.not_checked == ("whose key it is: --key says", "the model and the data: no folder was given")
    assert "the key is the one given" in verify(CONTENT, "c.json", KEY.public_key()).checked
    names = f"{fingerprint(KEY.public_key())}, not by {fingerprint(OTHER.public_key())}"
    with pytest.raises(CertificateError, match=names):
        verify(CONTENT, "c.json", OTHER.public_key())


def test_a_statement_signed_anew_by_another_key_is_not_the_first_ones() -> None:
    forged = sign(replace(STATEMENT, n_retained=1), OTHER)
    assert verify(forged, "c.json").fingerprint == fingerprint(OTHER.public_key())
    with pytest.raises(CertificateError, match="is signed by key"):
        verify(forged, "c.json", KEY.public_key())


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_what_is_certified_is_told(folder: Path) -> None:
    verdict = check(certify(folder, "1.json"), folder)
    assert (verdict.requests, verdict.interactions, verdict.system) == (2, 4, "exact")
    assert (verdict.version, verdict.later) == (1, 0)
    assert verdict.checked == (
        "the signature holds",
        f"version 1 of the chain of {folder}, which is the one served",
        "the model, the memory and the retained data are the folder's",
    )
    load(folder)  # a certificate in it does no harm to a folder


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("model_after", r"the certificate of another model: it certifies 0{19}, and no version in the chain of .*run"),
        ("memory_after", "the certificate of another memory: it certifies 0{19}"),
        ("retained", "the certificate of another set of retained data: it certifies 0{19}"),
    ],
)
def test_a_folder_that_holds_anything_else_is_told(folder: Path, field: str, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        check(certify(folder, "1.json", **{field: "0" * 64}), folder)


def test_what_another_key_than_the_chains_certifies_is_refused(folder: Path) -> None:
    message = f"the certificate of another key: it certifies {fingerprint(OTHER.public_key())[:19]}"
    with pytest.raises(CertificateError, match=message):
        check(certify(folder, "1.json", key=OTHER), folder)


def test_unaudited_unlearnings_extensions_and_changes_of_key_lie_between_a_certificate_and_what_is_served(
    folder: Path, tmp_path: Path, own_key: Path
) -> None:
    first = audited(folder, "u1")
    forget_one(folder, "u2")
    extend_folder(TrainedFolder(folder), tiny_dataset(n_users=14, seed=3))
    TrainedFolder(folder, own_key).seals.change_key(tmp_path / "new.pem")
    forget_one(folder, "u3", tmp_path / "new.pem")
    last = audited(folder, "u4", tmp_path / "new.pem")
    verdicts = [check(path, folder) for path in (first, last)]
    assert [(verdict.version, verdict.later) for verdict in verdicts] == [(2, 4), (6, 0)]
    assert verdicts[0].checked[1:] == (
        f"version 2 of the chain of {folder}, and 4 version(s) later (unlearn, extend, 2 × unlearn) is the one served",
        "the model and the memory are those of its record",
    )
    assert "the retained data, for it has changed since" in verdicts[0].not_checked
    # A signed change of key binds the two keys; it does so for whoever knows either of them.
    for path, given in ((first, load_key(tmp_path / "new.pem")), (last, KEY)):
        with pytest.raises(CertificateError, match="is signed by key"):
            verify(path.read_bytes(), str(path), given.public_key())
        bound = verify(path.read_bytes(), str(path), given.public_key(), Standing.of(folder))
        assert "are bound by signed changes of key" in bound.checked[1]


def test_a_key_that_was_lost_binds_nothing_and_is_told_of_every_older_certificate(folder: Path, tmp_path: Path) -> None:
    first = audited(folder, "u1")
    TrainedFolder(folder, tmp_path / "none.pem").seals.change_key(tmp_path / "new.pem", lost=True)
    last = audited(folder, "u2", tmp_path / "new.pem")
    standing, new = Standing.of(folder), load_key(tmp_path / "new.pem").public_key()
    told = [verify(path.read_bytes(), str(path), standing=standing).not_checked for path in (first, last)]
    assert [any("the key before was lost" in text for text in texts) for texts in told] == [True, False]
    with pytest.raises(CertificateError, match="is signed by key"):
        verify(first.read_bytes(), str(first), new, standing)
    assert [verdict.valid for verdict in verify_paths([folder], new)].count(True) == 2  # the folder, and the last


def test_a_certificate_of_a_version_that_was_never_in_the_chain_is_refused(folder: Path, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = audited(elsewhere, "u1")
    forget_one(folder, "u2")
    with pytest.raises(CertificateError, match="another model"):
        check(path, folder)


def test_a_certificate_of_a_model_that_was_trained_anew_since_is_told_apart(folder: Path) -> None:
    path = shutil.copy(audited(folder, "u1"), folder.parent)
    from retract.stores.training import TrainOptions, train_folder
    from tests.tiny import tiny_system

    train_folder(tiny_system("exact"), tiny_dataset(seed=1), folder, TrainOptions(force=True))
    with pytest.raises(CertificateError, match=r"\(a model that was trained anew has a new chain\)"):
        check(Path(path), folder)


def test_a_certificate_of_a_model_in_memory_holds_once_that_is_saved(tmp_path: Path) -> None:
    import retract

    model = retract.Exact().fit(tiny_dataset(), test=0.2)
    contents = []
    for user in ("u1", "u2"):
        model.erase(user)
        receipt = model.unlearn(audit=True)
        assert receipt.certificate is not None
        contents.append(receipt.certificate)
    model.save(tmp_path / "m")
    standing = Standing.of(tmp_path / "m")
    (link,) = standing.links
    assert (link.record.made, link.record.requests, len(link.record.certificates)) == ("save", 2, 2)
    first, second = (verify(content, "c.json", standing=standing) for content in contents)
    assert "the model and the retained data, for the model changed again before it was saved" in first.not_checked
    assert "the model, the memory and the retained data are the folder's" in second.checked
    model.erase("u3")
    model.unlearn()
    model.save(tmp_path / "m")
    assert [(link.record.made, link.record.requests) for link in Standing.of(tmp_path / "m").links] == [
        ("save", 2),
        ("save", 1),
    ]


def test_a_server_without_clients_can_be_verified(folder: Path) -> None:
    path = certify(folder, "1.json")
    shutil.rmtree(folder / "devices")
    assert check(path, folder).later == 0
    assert "the devices' half: it is elsewhere" in verify_paths([folder])[0].not_checked


def test_certificates_outlive_unlearning(folder: Path) -> None:
    certify(folder, "1.json")
    forget_one(folder, "u1")
    assert (folder / CERTIFICATES / "1.json").exists()


# --- many at once -----------------------------------------------------------------------------------------------------


def test_a_folder_is_verified_with_every_certificate_in_it(folder: Path) -> None:
    for user in ("u1", "u2"):
        audited(folder, user)
    forget_one(folder, "u3")
    whole, *certificates = verify_paths([folder], KEY.public_key())
    assert (whole.kind, whole.version, whole.valid) == ("folder", 4, True)
    assert whole.checked == (
        "the chain of 4 version(s) is unbroken: train, 3 × unlearn",
        "all 4 signatures of it hold",
        "the 6 files of version 4, which is served, are those that were signed",
        "the key is the one given",
    )
    assert whole.not_checked == ()
    assert sorted(verdict.later for verdict in certificates if verdict.later is not None) == [1, 2]


def test_each_is_judged_on_its_own(folder: Path, tmp_path: Path) -> None:
    good = audited(folder, "u1")
    bad = good.with_name("bad.json")
    bad.write_bytes(good.read_bytes()[:-3])
    found = verify_paths([bad, tmp_path / "none.json", good])
    assert [verdict.valid for verdict in found] == [False, False, True]
    assert "bad.json is no certificate, or a damaged one" in str(found[0].refusal)
    assert "no such certificate" in str(found[1].refusal)


def test_a_folder_that_is_not_whole_refuses_every_certificate_in_it(folder: Path) -> None:
    audited(folder, "u1")
    (served(folder) / "shared.safetensors").write_bytes(b"")
    found = verify_paths([folder])
    assert [verdict.valid for verdict in found] == [False, False]
    assert all("shared.safetensors is damaged" in str(verdict.refusal) for verdict in found)


def test_a_certificate_is_held_against_the_folder_given_rather_than_the_one_it_lies_in(
    folder: Path, made: Path
) -> None:
    path = audited(folder, "u1")
    assert [verdict.valid for verdict in verify_paths([path])] == [True]
    assert [verdict.valid for verdict in verify_paths([path, made])] == [True, False]
    with pytest.raises(CertificateError, match="are two folders: give one"):
        verify_paths([folder, made])


def test_an_audited_unlearning_signs_its_record_and_its_certificate_with_one_key(folder: Path) -> None:
    path = audited(folder, "u1")
    link = Standing.of(folder).links[-1]
    assert read(path.read_bytes(), "c").public_key == link.record.public_key
    apply(folder)
