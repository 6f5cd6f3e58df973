from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retract.data import Catalog, Dataset, Interactions
from retract.errors import ConfigError, DataError, FolderError, UnknownIdError
from retract.systems.folder import load
from retract.systems.lifecycle import (
    apply_requests,
    measure,
    recommend_folder,
    status,
    train_folder,
)
from retract.systems.registry import make_system
from retract.systems.requests import add_request
from tests.cli.commands import on_disk
from tests.stores.folders import items, pairs_on_disk, tiny_dataset, tiny_system

# --- training ---------------------------------------------------------------------------------------------------------


def test_the_report_of_training_tells_what_the_folder_holds(tmp_path: Path) -> None:
    report = train_folder(tiny_system(), tiny_dataset(), tmp_path / "run", share=0.5)
    held = load(tmp_path / "run")
    assert (report.system, report.users, report.items) == ("fedshare", 12, 15)
    assert report.shared == len(held.trained.shared)
    assert report.shared + report.private + len(held.test) == 60
    assert report.metrics == measure(held.recommender(), held.clients.interactions, held.test)
    assert report.memory_bytes == held.trained.memory.nbytes
    assert min(report.bytes_up, report.bytes_down, report.client_updates_per_second, report.seconds) > 0
    assert 50 < report.peak_mb < 20_000


def test_two_trainings_with_one_seed_are_equal_and_with_another_are_not(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 4), ("d", 5)):
        train_folder(tiny_system(), tiny_dataset(), tmp_path / name, share=0.5, seed=seed)
    a, b, c = (load(tmp_path / name).trained.model["items"] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_items_that_nobody_touches_in_training_are_kept_and_reported(tmp_path: Path) -> None:
    catalog = Catalog(np.array(["a", "b"]), np.array([f"i{n}" for n in range(6)]))
    data = Dataset("gaps", Interactions.of(catalog, [0, 0, 1, 1], [0, 1, 1, 2]), np.array([0, 0, 0, 1], bool), ())
    report = train_folder(tiny_system(), data, tmp_path / "run", share=0.5)
    assert report.notes == ("items that nobody touches in the training part, kept all the same: 4 of 6",)
    assert load(tmp_path / "run").catalog.n_items == 6


def test_a_data_set_with_one_user_is_refused(tmp_path: Path) -> None:
    catalog = Catalog(np.array(["a"]), np.array(["x", "y", "z"]))
    data = Dataset("lonely", Interactions.of(catalog, [0, 0, 0], [0, 1, 2]), None, ())
    with pytest.raises(DataError, match="lonely: users with something to train on: 1; at least 2 are needed"):
        train_folder(tiny_system(), data, tmp_path / "run", share=0.5)
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_be_used_is_refused_before_training(folder: Path) -> None:
    system = tiny_system()
    system.train = None  # type: ignore[method-assign, assignment] # it would fail were it called
    with pytest.raises(FolderError, match="--force"):
        train_folder(system, tiny_dataset(), folder, share=0.5)


def test_a_centralised_system_lives_the_same_life(tmp_path: Path) -> None:
    report = train_folder(make_system("lightgcn", {"steps": "3"}), tiny_dataset(), tmp_path / "run", share=1.0)
    assert (report.memory_bytes, report.bytes_up, report.client_updates_per_second) == (0, 0, 0.0)
    add_request(tmp_path / "run", "unshare", "u1")
    apply_requests(tmp_path / "run")
    assert items(load(tmp_path / "run"), "shared", "u1") == set()


# --- recommending -----------------------------------------------------------------------------------------------------


def test_recommendations_are_the_best_of_what_the_user_has_not_had(folder: Path) -> None:
    held, found = load(folder), recommend_folder(folder, "u3", 10).items
    had = items(held, "shared", "u3") | items(held, "private", "u3")
    assert len(found) == 10
    assert not had & {line.item for line in found}
    assert [line.score for line in found] == sorted((line.score for line in found), reverse=True)
    assert all(line.title == f"Film {line.item[1:]}" for line in found)


def test_a_list_ends_where_nothing_unseen_is_left(folder: Path) -> None:
    held = load(folder)
    left = 15 - len(items(held, "shared", "u3") | items(held, "private", "u3"))
    assert len(recommend_folder(folder, "u3", 15).items) == left


@pytest.mark.parametrize("k", [0, -1, 16])
def test_a_list_of_impossible_length_is_refused(folder: Path, k: int) -> None:
    with pytest.raises(ConfigError, match=rf"k is {k}: it must lie between 1 and the 15 items"):
        recommend_folder(folder, "u3", k)


# --- unlearning -------------------------------------------------------------------------------------------------------


def test_what_is_unshared_is_private_afterwards_and_the_model_has_changed(folder: Path) -> None:
    before = load(folder)
    asked = set(add_request(folder, "unshare", "u1")[0].items)
    report = apply_requests(folder)
    after = load(folder)
    assert (report.requests, report.forgotten) == (1, len(asked))
    assert items(after, "shared", "u1") == set()
    assert items(after, "private", "u1") == items(before, "private", "u1") | asked
    assert after.clients.interactions == before.clients.interactions
    assert after.test == before.test
    assert not torch.equal(after.trained.model["items"], before.trained.model["items"])
    assert report.metrics == measure(after.recommender(), after.clients.interactions, after.test)
    assert report.metrics_before == measure(before.recommender(), before.clients.interactions, after.test)
    assert report.memory_bytes == after.trained.memory.nbytes


def test_what_is_erased_is_in_no_file(folder: Path) -> None:
    held = load(folder)
    user = held.catalog.user("u2")
    assert len({pair for pair in pairs_on_disk(folder) if pair[0] == user}) == 5
    names = set(add_request(folder, "erase", "u2")[0].items)
    report = apply_requests(folder)
    assert report.forgotten == 5
    assert not {pair for pair in pairs_on_disk(folder) if pair[0] == user}
    for name in ("requests.jsonl", "server/log.jsonl", "server/config.json", "manifest.json"):
        text = (folder / name).read_text()
        assert not [word for word in (*names, "u2") if f'"{word}"' in text], name
    after = load(folder)
    assert not after.clients.started[user] or not after.clients.state["vector"][user].any()
    assert status(folder).users == 11
    with pytest.raises(UnknownIdError, match="unknown user 'u2'"):
        recommend_folder(folder, "u2")


def test_an_erasure_of_some_items_leaves_the_others_where_they_were(folder: Path) -> None:
    before = load(folder)
    shared, private, held_out = (min(items(before, where, "u2")) for where in ("shared", "private", "test"))
    add_request(folder, "erase", "u2", items=[shared, private, held_out])
    apply_requests(folder)
    after = load(folder)
    for where, item in (("shared", shared), ("private", private), ("test", held_out)):
        assert items(after, where, "u2") == items(before, where, "u2") - {item}


def test_a_user_with_nothing_left_to_train_on_is_no_longer_tested(folder: Path) -> None:
    held = load(folder)
    add_request(folder, "erase", "u2", items=sorted(items(held, "shared", "u2") | items(held, "private", "u2")))
    apply_requests(folder)
    code = held.catalog.user("u2")
    assert len(held.test.items_of(code)) > 0
    assert len(load(folder).test.items_of(code)) == 0


def test_what_is_held_out_can_be_erased_without_changing_the_model(folder: Path) -> None:
    before = load(folder)
    add_request(folder, "erase", "u2", items=sorted(items(before, "test", "u2")))
    apply_requests(folder)
    after = load(folder)
    assert items(after, "test", "u2") == set()
    assert torch.equal(after.trained.model["items"], before.trained.model["items"])


def test_erasing_wins_over_unsharing_the_same_item(folder: Path) -> None:
    item = min(items(load(folder), "shared", "u1"))
    add_request(folder, "unshare", "u1", items=[item])
    add_request(folder, "erase", "u1", items=[item])
    report = apply_requests(folder)
    assert (report.requests, report.forgotten) == (2, 1)
    assert not {pair for pair in pairs_on_disk(folder) if pair == (1, int(item[1:]))}


def test_an_applied_request_keeps_its_count_and_no_item(folder: Path) -> None:
    for kind, user in (("unshare", "u1"), ("erase", "u2"), ("unshare", "u3")):
        add_request(folder, kind, user)  # type: ignore[arg-type]
    apply_requests(folder)
    held = load(folder)
    assert [request.items for request in held.requests] == [(), (), ()]
    assert [request.user for request in held.requests] == ["u1", "", "u3"]  # u2 has nothing left, not even the id
    assert min(request.count for request in held.requests) > 0
    logged = {record["request"] for record in held.trained.log if record["stage"] == "unlearn"}
    assert {request.withdrawal for request in held.requests} == logged
    assert (status(folder).pending, status(folder).applied) == (0, 3)


def test_nothing_pending_changes_nothing(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    report = apply_requests(folder)
    assert (report.requests, report.forgotten) == (0, 0)
    assert report.metrics == report.metrics_before
    assert (folder / "manifest.json").read_bytes() == before


def test_a_request_that_arrives_meanwhile_is_kept(folder: Path) -> None:
    add_request(folder, "unshare", "u1")
    late = []

    def ask_once(stage: str, done: int, total: int) -> None:
        if not late:
            late.append(add_request(folder, "unshare", "u3")[0])

    assert apply_requests(folder, progress=ask_once).requests == 1
    held = load(folder)
    assert held.pending == tuple(late)
    assert items(held, "shared", "u3") == set(late[0].items)
    apply_requests(folder)
    assert items(load(folder), "shared", "u3") == set()


def test_what_somebody_asks_for_while_being_erased_is_done_with_it(folder: Path) -> None:
    held, late = load(folder), []
    add_request(folder, "erase", "u2", items=sorted(items(held, "shared", "u2") | items(held, "private", "u2")))

    def ask_for_the_rest(stage: str, done: int, total: int) -> None:
        if not late:
            late.append(add_request(folder, "erase", "u2", items=sorted(items(held, "test", "u2")))[0])

    apply_requests(folder, progress=ask_for_the_rest)
    assert [(request.pending, request.items) for request in load(folder).requests] == [(False, ())] * 2
    add_request(folder, "unshare", "u3")
    assert apply_requests(folder).requests == 1


def test_of_two_unlearnings_at_once_the_later_one_is_refused(folder: Path) -> None:
    add_request(folder, "unshare", "u1")
    runs: list[int] = []

    def run_another(stage: str, done: int, total: int) -> None:
        if not runs:
            runs.append(1)
            apply_requests(folder)

    with pytest.raises(FolderError, match="was changed by somebody else in the meantime; nothing was applied"):
        apply_requests(folder, progress=run_another)
    assert len([record for record in load(folder).trained.log if record["stage"] == "unlearn"]) == 1


def test_erasing_everybody_is_refused_and_nothing_is_applied(folder: Path) -> None:
    for user in range(12):
        add_request(folder, "erase", f"u{user}")
    with pytest.raises(DataError, match="leave nobody with an interaction: nothing was applied; delete"):
        apply_requests(folder)
    assert status(folder).pending == 12


# --- withdrawals in batches -------------------------------------------------------------------------------------------


def test_a_batch_counts_users_and_not_requests(folder: Path) -> None:
    add_request(folder, "unshare", "u1", fraction=0.5)
    add_request(folder, "erase", "u1", fraction=0.5)
    add_request(folder, "erase", "u1")
    before = on_disk(folder)
    report = apply_requests(folder, at_least=2)
    assert (report.requests, report.forgotten, report.waiting, report.at_least) == (0, 0, 1, 2)
    assert report.metrics == report.metrics_before
    assert on_disk(folder) == before
    add_request(folder, "unshare", "u2")
    assert apply_requests(folder, at_least=3).waiting == 2
    report = apply_requests(folder, at_least=2)
    assert (report.requests, report.waiting, report.at_least) == (4, 0, 2)
    assert (status(folder).pending, status(folder).applied) == (0, 4)


def test_an_applied_request_fills_no_later_batch(folder: Path) -> None:
    add_request(folder, "unshare", "u1")
    assert apply_requests(folder).requests == 1
    add_request(folder, "unshare", "u2")
    assert apply_requests(folder, at_least=2).waiting == 1
    assert status(folder).pending == 1


@pytest.mark.parametrize("at_least", [0, -1])
def test_a_batch_of_nobody_is_refused(folder: Path, at_least: int) -> None:
    add_request(folder, "unshare", "u1")
    with pytest.raises(ConfigError, match=f"at-least is {at_least}: a batch has at least 1 user"):
        apply_requests(folder, at_least=at_least)
    assert status(folder).pending == 1


# --- the registry -----------------------------------------------------------------------------------------------------


def test_settings_given_as_text_are_read_as_their_type() -> None:
    config = make_system("fedshare", {"rounds": "7", "mix": "0.25"}).config
    assert config.model_dump()["rounds"] == 7
    assert config.model_dump()["mix"] == 0.25


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fedsharre", {}, r"unknown system 'fedsharre'; known systems: exact, fedshare, lightgcn"),
        ("fedshare", {"round": 3}, r"fedshare has no setting 'round'; it has dimension, layers, rounds"),
        ("fedshare", {"rounds": 0}, r"setting rounds of fedshare is 0: it must be a whole number at least 1$"),
        ("fedshare", {"mix": "2"}, r"setting mix of fedshare is '2': it must be a number at least 0 and at most 1$"),
        ("fedshare", {"item_rate": "fast"}, r"item_rate of fedshare is 'fast': it must be a number above 0$"),
        ("lightgcn", {"steps": "1.5"}, r"setting steps of lightgcn is '1.5': it must be a whole number at least 1$"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_possible(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_system(name, settings)
