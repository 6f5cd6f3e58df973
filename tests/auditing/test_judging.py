"""The judge of an unlearning: what it says is true of both models, and what it leaves names nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retract.auditing.audit import Auditor, Cost
from retract.auditing.case import Case, Version
from retract.auditing.certificate import CertifiedRequest, read
from retract.auditing.judging import Auditing
from retract.data.digest import retained_digest
from retract.errors import ConfigError, FederationError
from retract.stores.audits import STEP_AUDITS
from retract.stores.folder import STEP_CERTIFICATE, TrainedFolder
from retract.stores.forgetting import Forgotten, batch_of, forget, unlearn_folder
from retract.stores.held import MEMORY, MODEL, Held, state_digests
from retract.stores.ledger import Request
from retract.stores.training import TrainOptions, train_folder
from retract.systems.registry import make_system
from tests.auditing.statements import KEY
from tests.auditing.worlds import clustered
from tests.stores.folders import TINY_OF, ask, load

NAMES = ("u1", "u2", "u7")


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A folder of exact and one of fedshare on a world with taste, half of it shared."""
    room = tmp_path_factory.mktemp("worlds")
    for name in ("exact", "fedshare"):
        system = make_system(name, TINY_OF[name])
        train_folder(system, clustered(60, 60), room / name, TrainOptions(share=0.5, test=0.2))
    return {name: room / name for name in ("exact", "fedshare")}


def forgotten_by(held: Held, *wishes: str, part: str = "shared") -> Forgotten:
    """What forgetting comes to for wishes such as "erase u1": all that the user has in one part."""
    asked = []
    for wish in wishes:
        kind, user = wish.split()
        parts = {"shared": held.sharing.shared, "all": held.sharing.everything, "test": held.test}
        codes = parts[part].items_of(held.catalog.user(user))
        names = held.catalog.item_ids[codes].tolist()
        asked.append((Request.of(kind, user, len(codes), names), codes))  # type: ignore[arg-type]
    return forget(held, batch_of(held, asked))


@pytest.fixture
def exact(worlds: Mapping[str, Path]) -> Held:
    return load(worlds["exact"])


def test_the_certificate_says_what_is_true_of_both_models(exact: Held) -> None:
    forgotten = forgotten_by(exact, "unshare u1", "unshare u2")
    files = Auditing(lambda: KEY)(forgotten)
    said = read(files[STEP_CERTIFICATE], "it")
    assert said.model_before == state_digests(exact.trained)[MODEL]
    after = forgotten.after.trained
    assert (said.model_after, said.memory_after) == tuple(state_digests(after)[name] for name in (MODEL, MEMORY))
    assert said.model_after != said.model_before
    assert (said.retained, said.n_retained) == (retained_digest(after.shared), len(after.shared))
    assert said.requests == tuple(CertifiedRequest.of(request) for request in forgotten.batch.requests)
    assert (said.system, said.seed, said.settings) == ("exact", 0, after.config.model_dump(mode="json"))
    assert said.public == KEY.public_key()


def test_the_figures_are_those_of_the_audit_in_the_certificate_and_in_the_file(exact: Held) -> None:
    forgotten = forgotten_by(exact, "unshare u1", "unshare u2")
    judge = Auditing(lambda: KEY)
    files = judge(forgotten)
    told, said = json.loads(files[STEP_AUDITS]), read(files[STEP_CERTIFICATE], "it")
    (audit,) = told["audits"]
    (step,) = forgotten.steps
    before, after = (Version(held.trained, held.devices) for held in (step.before, step.after))
    case = Case(exact.system, "unshare", step.forget, before, exact.test, 0, exact.test)
    by_hand = Auditor(case).judge(after, Cost(step.seconds, step.bytes_sent, step.rounds)).to_json()
    assert audit == json.loads(json.dumps({**by_hand, "certificate": told["certificate"]}))
    assert said.figures == {"unshare": audit}
    assert judge.fields == {"audit": audit, "audits": [audit], "certificate": told["certificate"]}


def test_erasures_and_unsharings_are_judged_apart_each_by_the_state_before_it(exact: Held) -> None:
    forgotten = forgotten_by(exact, "unshare u1", "erase u7")
    files = Auditing(lambda: KEY, oracle=True)(forgotten)
    audits = json.loads(files[STEP_AUDITS])["audits"]
    assert [(audit["kind"], audit["users"]) for audit in audits] == [("erase", 1), ("unshare", 1)]
    assert [audit["forgotten"] for audit in audits] == [len(step.forget) for step in forgotten.steps]
    assert all(audit["parameter_distance"] <= 1e-9 for audit in audits)
    assert read(files[STEP_CERTIFICATE], "it").figures.keys() == {"erase", "unshare"}


@pytest.mark.parametrize("oracle", [False, True])
def test_nothing_that_stays_names_who_withdrew_or_what(exact: Held, oracle: bool) -> None:
    forgotten = forgotten_by(exact, "unshare u1", "unshare u2", "erase u7")
    for content in Auditing(lambda: KEY, oracle=oracle)(forgotten).values():
        assert not any(f'"{name}"'.encode() in content for name in (*NAMES, *exact.catalog.item_ids))


def test_judging_changes_neither_model(exact: Held) -> None:
    forgotten = forgotten_by(exact, "unshare u1")
    digests = [state_digests(held.trained) for held in (forgotten.before, forgotten.after)]
    shared = [held.sharing for held in (forgotten.before, forgotten.after)]
    Auditing(lambda: KEY, oracle=True)(forgotten)
    assert [state_digests(held.trained) for held in (forgotten.before, forgotten.after)] == digests
    assert [held.sharing for held in (forgotten.before, forgotten.after)] == shared


def test_what_no_model_had_learnt_is_certified_without_an_audit(exact: Held) -> None:
    user = next(name for name in exact.catalog.user_ids if len(exact.test.items_of(exact.catalog.user(name))))
    forgotten = forgotten_by(exact, f"erase {user}", part="test")
    assert forgotten.steps == ()
    judge = Auditing(lambda: KEY)
    files = judge(forgotten)
    said = read(files[STEP_CERTIFICATE], "it")
    assert (said.figures, said.model_after) == ({}, said.model_before)
    assert (judge.fields["audit"], judge.fields["audits"]) == (None, [])
    assert judge.fields["certificate"] == json.loads(files[STEP_AUDITS])["certificate"]


def test_a_judge_that_was_not_asked_has_nothing_to_say() -> None:
    assert Auditing(lambda: KEY).fields == {"audit": None, "audits": [], "certificate": None}


def test_a_given_oracle_is_that_of_one_withdrawal_and_of_what_is_retained(exact: Held) -> None:
    forgotten = forgotten_by(exact, "unshare u1")
    (audit,) = json.loads(Auditing(lambda: KEY, given=forgotten.after)(forgotten)[STEP_AUDITS])["audits"]
    assert (audit["parameter_distance"], audit["ks_after"], audit["speedup"]) == (0, 0, None)
    two = forgotten_by(exact, "unshare u1", "erase u7")
    with pytest.raises(ConfigError, match="an oracle folder is that of one withdrawal"):
        Auditing(lambda: KEY, given=two.after)(two)
    with pytest.raises(ConfigError, match="other data"):
        Auditing(lambda: KEY, given=exact)(forgotten)


def test_an_oracle_of_what_learns_from_devices_is_refused_without_them(worlds: Mapping[str, Path]) -> None:
    held = replace(load(worlds["fedshare"]), devices=None)
    forgotten = forgotten_by(held, "unshare u1")
    with pytest.raises(FederationError, match="an oracle of fedshare is trained where the devices are"):
        Auditing(lambda: KEY, oracle=True)(forgotten)
    assert read(Auditing(lambda: KEY)(forgotten)[STEP_CERTIFICATE], "it").system == "fedshare"
    alone = replace(load(worlds["exact"]), devices=None)
    (audit,) = json.loads(Auditing(lambda: KEY, oracle=True)(forgotten_by(alone, "unshare u1"))[STEP_AUDITS])["audits"]
    assert audit["parameter_distance"] <= 1e-9


def test_a_judge_that_fails_leaves_the_model_and_the_request(tmp_path: Path) -> None:
    system = make_system("exact", {})
    train_folder(system, clustered(30, 30), tmp_path / "run", TrainOptions(share=1.0))
    ask(tmp_path / "run", "unshare", "u1")
    folder = TrainedFolder(tmp_path / "run")
    before = state_digests(load(folder.path).trained)

    def failing(forgotten: Forgotten) -> Mapping[str, bytes]:
        Auditing(lambda: KEY)(forgotten)
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        unlearn_folder(folder, judge=failing)
    assert state_digests(load(folder.path).trained) == before
    assert [request.status for request in folder.ledger.requests()] == ["pending"]
    assert folder.audits() == []
    unlearn_folder(folder, judge=Auditing(lambda: KEY))
    assert len(folder.audits()) == len(list((folder.path / "certificates").iterdir())) == 1
    assert not np.array_equal(*[list(one.values()) for one in (before, state_digests(load(folder.path).trained))])
