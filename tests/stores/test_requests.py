"""Asking for a withdrawal: what is chosen, what is refused, and that nothing else changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from retract.errors import SharingError, UnknownIdError
from retract.stores.folder import TrainedFolder
from retract.stores.ledger import Request
from retract.stores.requests import Wish, add_request
from retract.stores.status import status
from tests.stores.folders import apply, ask, items, load, on_disk, requests, wanted


def test_a_request_waits_in_the_folder_and_changes_nothing_else(folder: Path) -> None:
    before = load(folder)
    request, pending = add_request(TrainedFolder(folder), Wish("unshare", "u1"))
    after = load(folder)
    assert pending == 1
    assert requests(folder) == (request,)
    assert set(request.items) == items(before, "shared", "u1")
    assert request.count == len(request.items)
    assert after.trained.shared == before.trained.shared
    assert (status(folder).pending, status(folder).applied) == (1, 0)
    assert "items" not in status(folder).requests[0]


def test_all_means_the_shared_to_unshare_and_everything_to_erase(folder: Path) -> None:
    held = load(folder)
    assert wanted(folder, ask(folder, "unshare", "u1")) == items(held, "shared", "u1")
    erased = wanted(folder, ask(folder, "erase", "u2"))
    assert erased == items(held, "shared", "u2") | items(held, "private", "u2") | items(held, "test", "u2")


def test_a_fraction_is_a_part_that_the_seed_alone_decides(made: Path, tmp_path: Path) -> None:
    chosen = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 4), ("d", 5)):
        folder = Path(shutil.copytree(made, tmp_path / name))
        chosen[name] = wanted(folder, ask(folder, "erase", "u1", fraction=0.4, seed=seed))
    a, b, *others = chosen.values()
    assert len(a) == 2  # of five
    assert a == b
    assert any(a != other for other in others)


def test_a_second_fraction_takes_of_what_is_not_pending(folder: Path) -> None:
    first, second = (wanted(folder, ask(folder, "erase", "u1", fraction=0.6)) for _ in range(2))
    assert not first & second
    assert (len(first), len(second), status(folder).pending) == (3, 2, 2)
    with pytest.raises(SharingError, match="nothing left to erase that is not pending already; nothing was recorded"):
        ask(folder, "erase", "u1", fraction=0.6)


def test_a_small_fraction_is_at_least_one_item(folder: Path) -> None:
    assert ask(folder, "unshare", "u1", fraction=0.001).count == 1


def test_what_others_asked_for_takes_nothing_from_a_request(folder: Path) -> None:
    counts = [ask(folder, "unshare", f"u{user}").count for user in range(12)]
    assert sum(counts) == status(folder).shared
    assert apply(folder).forgotten == sum(counts)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_a_fraction_outside_its_range_is_refused(folder: Path, fraction: float) -> None:
    with pytest.raises(SharingError, match=r"fraction .* lies outside \(0, 1\]"):
        ask(folder, "unshare", "u1", fraction=fraction)


def test_what_was_never_shared_is_named_per_item_and_nothing_is_recorded(folder: Path) -> None:
    held = load(folder)
    mine, private = min(items(held, "shared", "u1")), min(items(held, "private", "u1"))
    with pytest.raises(SharingError, match=rf"^item {private} of user u1 is not shared"):
        ask(folder, "unshare", "u1", items=[mine, private])
    assert status(folder).pending == 0


def test_what_is_not_held_cannot_be_erased(folder: Path) -> None:
    held = load(folder)
    own = items(held, "shared", "u1") | items(held, "private", "u1") | items(held, "test", "u1")
    other = min(set(held.catalog.item_ids.tolist()) - own)
    with pytest.raises(SharingError, match=rf"item {other} of user u1 is not held"):
        ask(folder, "erase", "u1", items=[other])


def test_an_item_that_is_pending_cannot_be_asked_for_again(folder: Path) -> None:
    item = min(items(load(folder), "shared", "u1"))
    ask(folder, "unshare", "u1", items=[item])
    with pytest.raises(SharingError, match=f"already pending for user u1: item {item}; nothing was recorded"):
        ask(folder, "unshare", "u1", items=[item])
    ask(folder, "erase", "u1", items=[item])  # more than was asked before
    with pytest.raises(SharingError, match="already pending"):
        ask(folder, "erase", "u1", items=[item])


@pytest.mark.parametrize(
    ("user", "item", "message"),
    [
        ("u99", None, r"unknown user 'u99'$"),
        ("u1", ["i99"], r"unknown item 'i99'; nearest known ids: i9"),
    ],
)
def test_unknown_ids_are_refused(folder: Path, user: str, item: list[str] | None, message: str) -> None:
    with pytest.raises(UnknownIdError, match=message):
        ask(folder, "erase", user, items=item)


# --- what is recorded where -------------------------------------------------------------------------------------------


def test_the_servers_half_names_of_an_erasure_only_what_the_server_holds(folder: Path) -> None:
    held = load(folder)
    request = ask(folder, "erase", "u2")
    assert set(request.items) == items(held, "shared", "u2")
    assert request.count == 5
    private = items(held, "private", "u2") | items(held, "test", "u2")
    assert set(TrainedFolder(folder).inbox.told_to_devices(request)) == private
    half = {name: content for name, content in on_disk(folder / "server").items() if "versions/" not in name}
    for item in private:
        assert not [name for name, content in half.items() if f'"{item}"'.encode() in content]


def test_what_only_the_server_holds_is_told_to_no_device(folder: Path) -> None:
    ask(folder, "unshare", "u1")
    ask(folder, "erase", "u2", items=sorted(items(load(folder), "shared", "u2")))
    assert not (folder / "devices" / "requests").exists()


# --- the caller's key -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_key_again_returns_the_first_request_and_records_nothing(folder: Path) -> None:
    first = ask(folder, "erase", "u1", key="k", fraction=0.4)
    before = on_disk(folder)
    assert add_request(TrainedFolder(folder), Wish("erase", "u1", fraction=0.4), "k") == (first, 1)
    assert on_disk(folder) == before
    apply(folder)
    again = ask(folder, "erase", "u1", key="k", fraction=0.4)
    assert (again.id, again.status, status(folder).pending) == (first.id, "completed", 0)


def test_the_same_key_returns_the_first_request_when_its_user_is_gone(folder: Path) -> None:
    first = ask(folder, "erase", "u2", key="k")
    apply(folder)
    again = ask(folder, "erase", "u2", key="k")
    assert (again.id, again.user, again.status) == (first.id, "", "completed")


def test_a_key_of_another_wish_is_refused(folder: Path) -> None:
    item = min(items(load(folder), "shared", "u1"))
    ask(folder, "unshare", "u1", key="k", items=[item])
    others = [Wish("erase", "u1", [item]), Wish("unshare", "u3"), Wish("unshare", "u1", [item, "i0", "i1"])]
    for wish in others:
        with pytest.raises(SharingError, match=r"key 'k' was used for another request"):
            add_request(TrainedFolder(folder), wish, "k")
    assert status(folder).pending == 1


def test_of_two_who_use_a_key_at_once_the_later_one_leaves_nothing_behind(folder: Path) -> None:
    trained = TrainedFolder(folder)
    first, late = Request.of("erase", "u2", 2, ["i1"]), Request.of("erase", "u2", 2, ["i1"])
    other = Request.of("erase", "u3", 2, ["i1"])
    assert trained.inbox.record(first, ["i2"], "k") == first
    assert trained.inbox.record(late, ["i2"], "k") == first  # it had looked for the key before the first was recorded
    with pytest.raises(SharingError, match="key 'k' was used for another request"):
        trained.inbox.record(other, ["i2"], "k")
    assert [path.stem for path in trained.inbox.beside.iterdir()] == [first.id]


# --- requests that others overtook ------------------------------------------------------------------------------------


def test_a_request_of_somebody_who_is_gone_by_now_is_done_by_the_next_unlearning(folder: Path) -> None:
    ask(folder, "erase", "u2")
    late = Request.of("unshare", "u2", 1, [min(items(load(folder), "shared", "u2"))])
    apply(folder)
    TrainedFolder(folder).inbox.record(late)  # it was checked before the erasure was applied
    ask(folder, "unshare", "u1")
    assert apply(folder).requests == 1
    assert (status(folder).pending, [request.user for request in requests(folder)]) == (0, ["", "", "u1"])


def test_a_request_for_what_another_withdrew_meanwhile_is_done_with_the_next_batch(folder: Path) -> None:
    item = min(items(load(folder), "shared", "u1"))
    first, late = (Request.of("unshare", "u1", 1, [item]) for _ in range(2))
    trained = TrainedFolder(folder)
    trained.inbox.record(first)
    apply(folder)
    trained.inbox.record(late)
    ask(folder, "unshare", "u3")
    assert apply(folder).requests == 2
    assert (status(folder).pending, item in items(load(folder), "private", "u1")) == (0, True)
