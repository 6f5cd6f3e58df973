"""Asking for a withdrawal: what is chosen, what is refused, and that nothing else changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from retract.errors import SharingError, UnknownIdError
from retract.systems.folder import load
from retract.systems.lifecycle import (
    apply_requests,
    status,
)
from retract.systems.requests import add_request
from tests.stores.folders import items


def test_a_request_waits_in_the_folder_and_changes_nothing_else(folder: Path) -> None:
    before = load(folder)
    request, pending = add_request(folder, "unshare", "u1")
    after = load(folder)
    assert pending == 1
    assert after.requests == (request,)
    assert set(request.items) == items(before, "shared", "u1")
    assert request.count == len(request.items)
    assert after.trained.shared == before.trained.shared
    assert (status(folder).pending, status(folder).applied) == (1, 0)
    assert "items" not in status(folder).requests[0]


def test_all_means_the_shared_to_unshare_and_everything_to_erase(folder: Path) -> None:
    held = load(folder)
    assert set(add_request(folder, "unshare", "u1")[0].items) == items(held, "shared", "u1")
    erased = set(add_request(folder, "erase", "u2")[0].items)
    assert erased == items(held, "shared", "u2") | items(held, "private", "u2") | items(held, "test", "u2")


def test_a_fraction_is_a_part_that_the_seed_alone_decides(made: Path, tmp_path: Path) -> None:
    chosen = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 4), ("d", 5)):
        chosen[name] = add_request(Path(shutil.copytree(made, tmp_path / name)), "erase", "u1", fraction=0.4, seed=seed)
    a, b, *others = (set(request.items) for request, _ in chosen.values())
    assert len(a) == 2  # of five
    assert a == b
    assert any(a != other for other in others)


def test_a_second_fraction_takes_of_what_is_not_pending(folder: Path) -> None:
    first, _ = add_request(folder, "erase", "u1", fraction=0.6)
    second, pending = add_request(folder, "erase", "u1", fraction=0.6)
    assert not set(first.items) & set(second.items)
    assert (len(first.items), len(second.items), pending) == (3, 2, 2)
    with pytest.raises(SharingError, match="nothing left to erase that is not pending already; nothing was recorded"):
        add_request(folder, "erase", "u1", fraction=0.6)


def test_a_small_fraction_is_at_least_one_item(folder: Path) -> None:
    assert add_request(folder, "unshare", "u1", fraction=0.001)[0].count == 1


def test_what_others_asked_for_takes_nothing_from_a_request(folder: Path) -> None:
    counts = [add_request(folder, "unshare", f"u{user}")[0].count for user in range(12)]
    assert sum(counts) == status(folder).shared
    assert apply_requests(folder).forgotten == sum(counts)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_a_fraction_outside_its_range_is_refused(folder: Path, fraction: float) -> None:
    with pytest.raises(SharingError, match=r"fraction .* lies outside \(0, 1\]"):
        add_request(folder, "unshare", "u1", fraction=fraction)


def test_what_was_never_shared_is_named_per_item_and_nothing_is_recorded(folder: Path) -> None:
    held = load(folder)
    mine, private = min(items(held, "shared", "u1")), min(items(held, "private", "u1"))
    with pytest.raises(SharingError, match=rf"^item {private} of user u1 is not shared"):
        add_request(folder, "unshare", "u1", items=[mine, private])
    assert status(folder).pending == 0


def test_what_is_not_held_cannot_be_erased(folder: Path) -> None:
    held = load(folder)
    own = items(held, "shared", "u1") | items(held, "private", "u1") | items(held, "test", "u1")
    other = min(set(held.catalog.item_ids.tolist()) - own)
    with pytest.raises(SharingError, match=rf"item {other} of user u1 is not held"):
        add_request(folder, "erase", "u1", items=[other])


def test_an_item_that_is_pending_cannot_be_asked_for_again(folder: Path) -> None:
    item = min(items(load(folder), "shared", "u1"))
    add_request(folder, "unshare", "u1", items=[item])
    with pytest.raises(SharingError, match=f"already pending for user u1: item {item}; nothing was recorded"):
        add_request(folder, "unshare", "u1", items=[item])
    add_request(folder, "erase", "u1", items=[item])  # more than was asked before
    with pytest.raises(SharingError, match="already pending"):
        add_request(folder, "erase", "u1", items=[item])


@pytest.mark.parametrize(
    ("user", "item", "message"),
    [
        ("u99", None, r"unknown user 'u99'; nearest known ids: u9"),
        ("u1", ["i99"], r"unknown item 'i99'; nearest known ids: i9"),
    ],
)
def test_unknown_ids_are_answered_with_the_nearest(
    folder: Path, user: str, item: list[str] | None, message: str
) -> None:
    with pytest.raises(UnknownIdError, match=message):
        add_request(folder, "erase", user, items=item)
