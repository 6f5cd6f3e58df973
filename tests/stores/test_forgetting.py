"""Forgetting in a folder: batch, forget, judge, commit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retract.auditing.verifying import verify_paths
from retract.errors import ConfigError, FolderError, UnknownIdError
from retract.stores.audits import STEP_AUDITS
from retract.stores.folder import STEP_CERTIFICATE, TrainedFolder
from retract.stores.forgetting import (
    NOTHING_KNOWN,
    Batch,
    Forgotten,
    batch_of,
    commit,
    forget,
    unlearn_folder,
)
from retract.stores.ledger import Request
from retract.stores.measuring import measure
from retract.stores.reading import recommend_folder
from retract.stores.requests import codes_of, pending_of
from retract.stores.status import status
from retract.stores.training import TrainOptions, train_folder
from retract.systems.registry import make_system
from tests.stores.folders import (
    apply,
    ask,
    items,
    load,
    make_folder,
    on_disk,
    pairs_on_disk,
    requests,
    tiny_dataset,
    tiny_system,
    wanted,
)

# --- unlearning -------------------------------------------------------------------------------------------------------


def test_what_is_unshared_is_private_afterwards_and_the_model_has_changed(folder: Path) -> None:
    before = load(folder)
    asked = wanted(folder, ask(folder, "unshare", "u1"))
    report = apply(folder)
    after = load(folder)
    assert (report.requests, report.forgotten) == (1, len(asked))
    assert items(after, "shared", "u1") == set()
    assert items(after, "private", "u1") == items(before, "private", "u1") | asked
    assert after.interactions == before.interactions
    assert after.test == before.test
    assert not np.array_equal(after.trained.model["view.levels"], before.trained.model["view.levels"])
    assert report.metrics == measure(after.recommender(), after.interactions, after.test)
    assert report.metrics_before == measure(before.recommender(), before.interactions, after.test)
    assert report.memory_bytes == after.trained.memory.nbytes


def test_what_is_erased_is_in_no_file(folder: Path) -> None:
    held = load(folder)
    user = held.catalog.user("u2")
    assert len({pair for pair in pairs_on_disk(folder) if pair[0] == user}) == 5
    names = wanted(folder, ask(folder, "erase", "u2"))
    report = apply(folder)
    assert report.forgotten == 5
    assert not {pair for pair in pairs_on_disk(folder) if pair[0] == user}
    for name, content in on_disk(folder).items():
        told = [word for word in (*names, "u2") if f'"{word}"'.encode() in content]
        assert not told or name.endswith("catalog.json"), name
        assert "u2" not in told, name
    after = load(folder)
    assert after.devices is not None
    assert user not in after.devices.kept(after.trained.run).clients
    assert status(folder).users == 11
    with pytest.raises(UnknownIdError, match="unknown user 'u2'"):
        recommend_folder(folder, "u2")


@pytest.mark.slow
def test_an_erasure_of_some_items_leaves_the_others_where_they_were(folder: Path) -> None:
    before = load(folder)
    shared, private, held_out = (min(items(before, where, "u2")) for where in ("shared", "private", "test"))
    ask(folder, "erase", "u2", items=[shared, private, held_out])
    apply(folder)
    after = load(folder)
    for where, item in (("shared", shared), ("private", private), ("test", held_out)):
        assert items(after, where, "u2") == items(before, where, "u2") - {item}


@pytest.mark.slow
def test_whoever_names_all_that_is_trained_on_keeps_what_is_held_out_and_the_name(folder: Path) -> None:
    held = load(folder)
    ask(folder, "erase", "u2", items=sorted(items(held, "shared", "u2") | items(held, "private", "u2")))
    apply(folder)
    assert items(load(folder), "test", "u2") == items(held, "test", "u2") != set()
    assert requests(folder)[0].user == "u2"
    assert not TrainedFolder(folder).suppression().verdicts(load(folder).test).any()
    ask(folder, "erase", "u2")
    apply(folder)
    assert requests(folder)[0].user == requests(folder)[1].user == ""
    with pytest.raises(UnknownIdError, match="unknown user 'u2'"):
        ask(folder, "erase", "u2")


def test_of_a_user_who_is_held_out_whole_only_what_is_named_goes(tmp_path: Path) -> None:
    data = tiny_dataset()
    held_out = data.interactions.users == data.interactions.catalog.user("u9")
    train_folder(tiny_system("exact"), replace(data, is_test=held_out), tmp_path, TrainOptions())
    before = items(load(tmp_path), "test", "u9")
    ask(tmp_path, "erase", "u9", items=[min(before)])
    report = apply(tmp_path)
    assert (report.forgotten, report.held_out) == (1, 1)
    assert items(load(tmp_path), "test", "u9") == before - {min(before)}


def test_what_is_held_out_can_be_erased_without_changing_the_model(folder: Path) -> None:
    before = load(folder)
    ask(folder, "erase", "u2", items=sorted(items(before, "test", "u2")))
    apply(folder)
    after = load(folder)
    assert items(after, "test", "u2") == set()
    assert np.array_equal(after.trained.model["items"], before.trained.model["items"])


@pytest.mark.slow
def test_erasing_wins_over_unsharing_the_same_item(folder: Path) -> None:
    item = min(items(load(folder), "shared", "u1"))
    ask(folder, "unshare", "u1", items=[item])
    ask(folder, "erase", "u1", items=[item])
    report = apply(folder)
    assert (report.requests, report.forgotten) == (2, 1)
    assert not {pair for pair in pairs_on_disk(folder) if pair == (1, int(item[1:]))}


@pytest.mark.slow
def test_an_applied_request_keeps_its_count_and_no_item(folder: Path) -> None:
    for kind, user in (("unshare", "u1"), ("erase", "u2"), ("unshare", "u3")):
        ask(folder, kind, user)  # type: ignore[arg-type]
    apply(folder)
    done = requests(folder)
    assert [request.items for request in done] == [(), (), ()]
    assert [request.user for request in done] == ["u1", "", "u3"]  # u2 has nothing left, not even the id
    assert min(request.count for request in done) > 0
    logged = {record["request"] for record in load(folder).trained.log if record["stage"] == "unlearn"}
    assert {request.withdrawal for request in done} == logged
    assert (status(folder).pending, status(folder).applied) == (0, 3)


def test_nothing_pending_changes_nothing(folder: Path) -> None:
    before = on_disk(folder)
    report = apply(folder)
    assert (report.requests, report.forgotten) == (0, 0)
    assert report.metrics == report.metrics_before
    assert on_disk(folder) == before


def test_a_request_that_arrives_meanwhile_is_kept(folder: Path) -> None:
    ask(folder, "unshare", "u1")
    late = []

    def ask_once(stage: str, done: int, total: int) -> None:
        if not late:
            late.append(ask(folder, "unshare", "u3"))

    assert apply(folder, progress=ask_once).requests == 1
    held = load(folder)
    assert [request for request in requests(folder) if request.pending] == late
    assert items(held, "shared", "u3") == set(late[0].items)
    apply(folder)
    assert items(load(folder), "shared", "u3") == set()


@pytest.mark.slow
def test_who_asks_for_the_rest_while_being_erased_keeps_the_name_until_that_is_done(folder: Path) -> None:
    held, late = load(folder), []
    ask(folder, "erase", "u2", items=sorted(items(held, "shared", "u2") | items(held, "private", "u2")))

    def ask_for_the_rest(stage: str, done: int, total: int) -> None:
        if not late:
            late.append(ask(folder, "erase", "u2", items=sorted(items(held, "test", "u2"))))

    apply(folder, progress=ask_for_the_rest)
    assert [(request.pending, request.user) for request in requests(folder)] == [(False, "u2"), (True, "u2")]
    assert apply(folder).requests == 1
    assert [(request.pending, request.user, request.items) for request in requests(folder)] == [(False, "", ())] * 2


def test_of_two_unlearnings_at_once_the_later_one_is_refused(folder: Path) -> None:
    ask(folder, "unshare", "u1")
    runs: list[int] = []

    def run_another(stage: str, done: int, total: int) -> None:
        if not runs:
            runs.append(1)
            apply(folder)

    with pytest.raises(FolderError, match=r"another unlearning works on .*/run: wait for it, nothing was applied"):
        apply(folder, progress=run_another)
    assert [request.status for request in requests(folder)] == ["pending"]
    assert apply(folder).requests == 1
    assert len([record for record in load(folder).trained.log if record["stage"] == "unlearn"]) == 1


def test_when_everybody_is_erased_a_model_of_nobody_is_served(folder: Path) -> None:
    for user in range(12):
        ask(folder, "erase", f"u{user}")
    report, told = apply(folder), status(folder)
    assert (report.requests, report.notes) == (12, (NOTHING_KNOWN,))
    assert (told.pending, told.applied, told.users, told.shared, told.private) == (0, 12, 0, 0, 0)
    held = load(folder)
    assert (held.trained.model, held.trained.memory.nbytes, len(held.test)) == ({}, 0, 0)
    assert not pairs_on_disk(folder)
    assert not [name for name, content in on_disk(folder).items() if b'"u1"' in content]


# --- withdrawals in batches -------------------------------------------------------------------------------------------


def test_a_batch_counts_users_and_not_requests(folder: Path) -> None:
    ask(folder, "unshare", "u1", fraction=0.5)
    ask(folder, "erase", "u1", fraction=0.5)
    ask(folder, "erase", "u1")
    before = on_disk(folder)
    report = apply(folder, at_least=2)
    assert (report.requests, report.forgotten, report.waiting, report.at_least) == (0, 0, 1, 2)
    assert report.metrics == report.metrics_before
    assert on_disk(folder) == before
    ask(folder, "unshare", "u2")
    assert apply(folder, at_least=3).waiting == 2
    report = apply(folder, at_least=2)
    assert (report.requests, report.waiting, report.at_least) == (4, 0, 2)
    assert (status(folder).pending, status(folder).applied) == (0, 4)


def test_an_applied_request_fills_no_later_batch(folder: Path) -> None:
    ask(folder, "unshare", "u1")
    assert apply(folder).requests == 1
    ask(folder, "unshare", "u2")
    assert apply(folder, at_least=2).waiting == 1
    assert status(folder).pending == 1


@pytest.mark.parametrize("at_least", [0, -1])
def test_a_batch_of_nobody_is_refused(folder: Path, at_least: int) -> None:
    ask(folder, "unshare", "u1")
    with pytest.raises(ConfigError, match=f"at-least is {at_least}: a batch has at least 1 user"):
        apply(folder, at_least=at_least)
    assert status(folder).pending == 1


# --- the steps, each alone --------------------------------------------------------------------------------------------


def batch(folder: Path) -> Batch:
    """The pending requests as one batch."""
    held, trained = load(folder), TrainedFolder(folder)
    return batch_of(held, [(request, codes_of(trained, request, held.sharing)) for request in pending_of(trained)])


def test_a_batch_waits_for_those_who_withdraw_what_the_model_learnt(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", "exact")
    ask(folder, "erase", "u2", items=sorted(items(load(folder), "private", "u2")))  # the model of exact knows nothing
    found = batch(folder)
    assert (found.users, len(found.learners), found.waits(5)) == (1, 0, False)
    ask(folder, "unshare", "u1")
    found = batch(folder)
    assert (found.users, found.learners.tolist()) == (2, [load(folder).catalog.user("u1")])
    assert (found.waits(2), found.waits(1)) == (True, False)
    assert Batch((), found.erase, found.unshare, found.learners).waits(1)


def test_to_forget_changes_neither_the_old_state_nor_the_folder(folder: Path) -> None:
    for kind, user in (("unshare", "u1"), ("erase", "u2")):
        ask(folder, kind, user)  # type: ignore[arg-type]
    before, held = on_disk(folder), load(folder)
    found = forget(held, batch(folder))
    assert on_disk(folder) == before
    again = load(folder)
    assert all(np.array_equal(held.trained.model[name], again.trained.model[name]) for name in again.trained.model)
    assert held.sharing == again.sharing
    assert held.devices is not None
    assert again.devices is not None
    mine, theirs = held.devices.kept(held.trained.run), again.devices.kept(again.trained.run)
    assert mine.clients.tolist() == theirs.clients.tolist()
    assert all(np.array_equal(mine.state[name], theirs.state[name]) for name in theirs.state)
    assert [step.kind for step in found.steps] == ["erase", "unshare"]
    assert found.steps[0].before is found.before is held
    assert found.steps[1].before is found.steps[0].after
    assert found.gone == ("u2",)


def test_a_judge_sees_both_models_and_its_files_are_published_once(folder: Path) -> None:
    seen: list[Forgotten] = []

    def judge(forgotten: Forgotten) -> dict[str, bytes]:
        seen.append(forgotten)
        told = b'{"certificate": "certificates/one.json", "audits": [{"certificate": "certificates/one.json"}]}'
        return {STEP_AUDITS: told, STEP_CERTIFICATE: b"signed"}

    ask(folder, "unshare", "u1")
    unlearn_folder(TrainedFolder(folder), judge=judge)
    assert items(seen[0].before, "shared", "u1") != items(seen[0].after, "shared", "u1") == set()
    assert (folder / "certificates" / "one.json").read_bytes() == b"signed"
    assert len(TrainedFolder(folder).audits()) == 1
    for _ in range(2):
        apply(folder)
    assert len(TrainedFolder(folder).audits()) == 1


def test_a_judge_that_fails_leaves_everything_as_it_was(folder: Path) -> None:
    def judge(_: Forgotten) -> dict[str, bytes]:
        raise ConfigError("no")

    ask(folder, "unshare", "u1")
    with pytest.raises(ConfigError, match="no"):
        unlearn_folder(TrainedFolder(folder), judge=judge)
    assert (status(folder).version, [request.status for request in requests(folder)]) == (1, ["pending"])


def test_what_was_changed_meanwhile_is_not_overwritten_and_requests_stay_pending(folder: Path) -> None:
    ask(folder, "unshare", "u1")
    trained, held = TrainedFolder(folder), load(folder)
    found = forget(held, batch(folder))
    trained.replace(held, replace(held, trained=replace(held.trained, log=())))
    with pytest.raises(FolderError, match="was changed by somebody else in the meantime; nothing was applied"):
        commit(trained, found, {})
    assert (status(folder).version, status(folder).pending) == (2, 1)


# --- what a kill cut off ----------------------------------------------------------------------------------------------


def served_but_not_settled(folder: Path) -> list[Request]:
    """A folder whose process died between the new version and the ledger."""
    for kind, user in (("unshare", "u2"), ("erase", "u2"), ("unshare", "u1")):
        ask(folder, kind, user)  # type: ignore[arg-type]
    found, trained = forget(load(folder), batch(folder)), TrainedFolder(folder)
    trained.ledger.claim([request.id for request in found.batch.requests])
    trained.replace(found.before, found.after, found.withdrawals)
    return list(found.batch.requests)


@pytest.mark.slow
def test_status_knows_at_once_what_the_served_version_is_the_answer_to(folder: Path) -> None:
    served_but_not_settled(folder)
    assert (status(folder).pending, status(folder).applied) == (0, 3)


@pytest.mark.slow
def test_the_next_unlearning_finishes_the_ledger_and_applies_nothing_twice(folder: Path) -> None:
    asked = served_but_not_settled(folder)
    log = load(folder).trained.log
    assert apply(folder).requests == 0
    done = requests(folder)
    assert [request.id for request in done] == [request.id for request in asked]
    assert [(request.user, request.pending, request.items) for request in done] == [
        ("", False, ()),
        ("", False, ()),
        ("u1", False, ()),
    ]
    assert load(folder).trained.log == log
    assert not list((folder / "devices" / "requests").rglob("*.json"))


def test_what_was_claimed_by_a_process_that_died_is_pending_again(folder: Path) -> None:
    request = ask(folder, "unshare", "u1")
    TrainedFolder(folder).ledger.claim([request.id])
    assert [one.status for one in requests(folder)] == ["in_progress"]
    assert status(folder).pending == 1
    assert apply(folder).requests == 1


def test_what_is_left_of_a_training_that_is_over_goes_with_the_next_unlearning(folder: Path) -> None:
    trained = load(folder).trained
    for run, stays in ((trained.run, False), ("of a training under way", True)):
        place = folder / "server" / "training"
        place.mkdir(exist_ok=True)
        (place / "place.json").write_text(f'{{"run": "{run}", "stage": "training", "done": 3}}')
        apply(folder)
        assert place.exists() == stays


# --- in two stages ----------------------------------------------------------------------------------------------------


def staged_folder(path: Path) -> Path:
    """Of a spectral model that takes long to make anew, it says."""
    settings = {"form": "spectral", "blend": 1.0, "popularity": 0.2, "filter_beta": 0.3, "wait_seconds": 0}
    system = make_system("exact", settings)
    train_folder(system, tiny_dataset(), path, TrainOptions(share=0.5, test=0.2))
    return path


def test_what_takes_long_to_make_anew_is_left_out_first_and_then_served_as_another_version(tmp_path: Path) -> None:
    folder = staged_folder(tmp_path / "run")
    ask(folder, "erase", "u2")
    report = apply(folder)
    after = load(folder)
    assert report.refresh_seconds > 0
    assert [one["stage"] for one in after.trained.log] == ["train", "unlearn", "refresh"]
    assert [one["form"] for one in after.trained.log] == ["spectral", "filter", "spectral"]
    assert after.version == 3
    assert after.metrics == report.metrics == measure(after.recommender(), after.interactions, after.test)
    assert verify_paths([folder])[0].checked[0] == "the chain of 3 version(s) is unbroken: train, unlearn, refresh"
    again = apply(folder)
    assert (again.refresh_seconds, load(folder).version) == (0, 3)


def test_a_kill_between_the_stages_leaves_the_filter_alone_and_the_next_unlearning_makes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = staged_folder(tmp_path / "run")
    ask(folder, "erase", "u2")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("retract.systems.exact.server.ExactServer.refresh", killed)
        with pytest.raises(KeyboardInterrupt):
            apply(folder)
    held = load(folder)
    assert (held.version, held.trained.config.form) == (2, "filter")
    assert not any(one.pending for one in requests(folder))
    assert recommend_folder(folder, "u1").items
    report = apply(folder)
    assert (report.requests, report.refresh_seconds > 0) == (0, True)
    assert (load(folder).version, load(folder).trained.config.form) == (3, "spectral")


def test_a_judge_sees_the_whole_model(tmp_path: Path) -> None:
    folder, seen = staged_folder(tmp_path / "run"), []
    ask(folder, "erase", "u2")
    unlearn_folder(TrainedFolder(folder), judge=lambda forgotten: seen.append(forgotten.after.trained) or {})
    assert [one.config.form for one in seen] == ["spectral"]
    assert load(folder).version == 2
