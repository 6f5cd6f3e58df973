"""The suppression list by itself."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from retract.data import Catalog, Dataset, Interactions, Sharing
from retract.errors import FolderError
from retract.stores.admission import admitted
from retract.stores.suppression import ERASED, FREE, PRIVATE_ONLY, Suppressed, Suppression
from tests.samples import numbered_catalog, random_interactions
from tests.stores.folders import apply, ask, load, make_folder, pairs_on_disk, wanted

THEN, LATER = "2020-01-01T00:00:00+00:00", 1_600_000_000
ASKED = {(kind, f"u{user}"): THEN for kind in ("erase", "unshare") for user in range(12)}


def listed() -> Suppressed:
    """u0 is gone; u1 erased i0 and unshared i1."""
    catalog = numbered_catalog(12, 15)
    some = Suppressed().with_users({"u0": THEN})
    some = some.with_pairs(Interactions.of(catalog, [1], [0]), "erase", ASKED)  # type: ignore[arg-type]
    return some.with_pairs(Interactions.of(catalog, [1], [1]), "unshare", ASKED)  # type: ignore[arg-type]


def offered(times: list[int] | None = None) -> Interactions:
    return Interactions.of(numbered_catalog(12, 15), [0, 0, 1, 1, 1, 2], [0, 1, 0, 1, 2, 0], None, times)


def test_it_says_of_each_interaction_what_became_of_it() -> None:
    found = listed().verdicts(offered(), time.time())
    assert found.tolist() == [ERASED, ERASED, ERASED, PRIVATE_ONLY, FREE, FREE]


def test_what_happened_after_the_request_was_not_meant_and_a_time_to_come_is_none() -> None:
    now = time.time()
    found = listed().verdicts(offered([LATER, 1, LATER, LATER, 1, 1]), now)
    assert found.tolist() == [FREE, ERASED, FREE, FREE, FREE, FREE]
    assert listed().verdicts(offered([LATER * 1000] * 6), now).tolist()[:4] == [ERASED] * 3 + [PRIVATE_ONLY]


def test_a_consent_takes_users_and_pairs_off_the_list_and_no_others() -> None:
    catalog = numbered_catalog(12, 15)
    left = listed().without(Interactions.of(catalog, [0, 1], [9, 0]))
    assert left.verdicts(offered(), time.time()).tolist() == [FREE, FREE, FREE, PRIVATE_ONLY, FREE, FREE]


def test_it_is_the_same_after_it_was_written_and_tells_no_id() -> None:
    content = listed().to_bytes()
    again = Suppressed.from_bytes(content, "here")
    assert again.verdicts(offered(), time.time()).tolist() == [ERASED, ERASED, ERASED, PRIVATE_ONLY, FREE, FREE]
    assert b"u0" not in content
    for damaged in (b"", b"[]", b'{"key": "zz", "users": {}}', content[:-2]):
        with pytest.raises(FolderError, match="here is damaged"):
            Suppressed.from_bytes(damaged, "here")


def test_two_lists_hash_alike_ids_differently_and_pairs_that_read_alike_do_not_collide() -> None:
    catalog = Catalog(np.array(["ab", "a"]), np.array(["c", "bc"]))
    one = Suppressed().with_pairs(Interactions.of(catalog, [0], [0]), "erase", {("erase", "ab"): THEN})
    assert one.verdicts(Interactions.of(catalog, [1], [1]), 2e9).tolist() == [FREE]
    other = Suppressed().with_pairs(Interactions.of(catalog, [0], [0]), "erase", {("erase", "ab"): THEN})
    assert not one.users.keys() & other.users.keys()


@pytest.mark.slow
def test_the_servers_list_learns_nothing_of_what_devices_alone_knew(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", "fedshare")
    held = load(folder)
    private = held.sharing.private
    own = held.catalog.item_ids[private.items_of(held.catalog.user("u1"))].tolist()
    request = ask(folder, "erase", "u1", items=own)
    assert wanted(folder, request) == set(own)
    apply(folder)
    devices = Suppressed.from_bytes((folder / "devices" / "suppressed.json").read_bytes(), "devices")
    assert not (folder / "server" / "suppressed.json").exists()
    gone = private.of_users([held.catalog.user("u1")])
    assert (devices.verdicts(gone, time.time()) == ERASED).all()
    assert not pairs_on_disk(folder) & set(zip(gone.users.tolist(), gone.items.tolist(), strict=True))


def test_who_loses_all_by_the_list_is_not_known_and_flags_stay_with_their_rows() -> None:
    rows = random_interactions(3)
    shared = rows.items % 2 == 0
    data = Dataset("new", rows, shared, (), ~shared)
    gone = str(rows.catalog.user_ids[rows.users[0]])
    came = admitted(data, Suppression(Suppressed().with_users({gone: THEN})))
    left = came.dataset.interactions
    assert gone not in left.catalog.user_ids
    kept = rows.users != rows.users[0]

    def named(some: Interactions) -> list[tuple[str, str]]:
        ids = some.catalog
        return sorted(zip(ids.user_ids[some.users].tolist(), ids.item_ids[some.items].tolist(), strict=True))

    assert named(left) == named(rows.where(kept))
    assert named(left.where(came.dataset.is_test)) == named(rows.where(kept & shared))  # type: ignore[arg-type]
    assert came.notes == (
        f"left out because they were erased (again takes them in, on a new consent): {(~kept).sum()}",
    )


def test_what_was_unshared_comes_in_as_private_alone() -> None:
    rows = random_interactions(3)
    one = rows.where(np.arange(len(rows)) == 4)
    asked = {("unshare", str(rows.catalog.user_ids[one.users[0]])): THEN}
    known = Suppression(Suppressed().with_pairs(one, "unshare", asked))  # type: ignore[arg-type]
    came = admitted(Dataset("new", rows, None, ()), known)
    sharing, notes = came.kept(Sharing.by_ratio(came.dataset.interactions, 1.0))
    assert sharing.private == one
    assert sharing.everything == rows
    assert notes == ("kept private because they were unshared (again shares them, on a new consent): 1",)


@pytest.mark.slow
def test_a_million_rows_are_held_against_a_long_list_in_less_than_a_second() -> None:
    draw, n = np.random.default_rng(0), 1_000_000
    catalog = numbered_catalog(50_000, 5_000)
    rows = Interactions.of(catalog, draw.integers(0, 50_000, n), draw.integers(0, 5_000, n))
    gone = {f"u{user}": THEN for user in range(1000)}
    pairs = rows.where((rows.users >= 1000) & (rows.users < 2000) & (rows.items % 7 == 0))
    asked = {("erase", f"u{user}"): THEN for user in range(2000)}
    known = Suppression(Suppressed().with_users(gone).with_pairs(pairs, "erase", asked))  # type: ignore[arg-type]
    began = time.process_time()
    came = admitted(Dataset("new", rows, None, ()), known)
    seconds = time.process_time() - began
    assert len(came.dataset.interactions) == len(rows) - int((rows.users < 1000).sum()) - len(pairs)
    assert seconds < 1, seconds
