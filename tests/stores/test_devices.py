"""Users' devices: what happens to what they keep when their data changes, and cohorts of them."""

from __future__ import annotations

import numpy as np
import pytest

from retract.data import Interactions, Sharing
from retract.errors import SharingError
from retract.federation import Cohort, LocalEngine
from retract.stores.devices import MemoryDevices
from retract.stores.held import devices_of, state_bytes
from retract.stores.local import withdraw
from tests.contracts.tasks import TASKS, broadcast, sharing, spec
from tests.samples import numbered_catalog

USERS, ITEMS = np.nonzero(np.random.default_rng(0).random((6, 8)) < 0.6)
DATA = Interactions.of(numbered_catalog(6, 8), USERS, ITEMS, 1 + ITEMS % 5)


def after_rounds(held: Sharing, *rounds: list[int] | None) -> MemoryDevices:
    """Devices after some rounds, each of some users or of all."""
    devices = MemoryDevices(held)
    for number, users in enumerate(rounds):
        play(devices, number, users)
    return devices


def play(devices: MemoryDevices, round: int, users: list[int] | None = None) -> None:
    asked = devices.users if users is None else np.array(users)
    LocalEngine(devices, TASKS).run(spec("write"), broadcast(round), asked, seed=1)


def seen(devices: MemoryDevices) -> dict[int, int]:
    kept = devices.kept("a")
    return dict(zip(kept.clients.tolist(), kept.state["seen"].tolist(), strict=True)) if kept.state else {}


def written(devices: MemoryDevices, round: int) -> list[int]:
    asked = spec("read", journal=round)
    return LocalEngine(devices, TASKS).run(asked, broadcast(9), devices.users, seed=1).update.tensors["items"].tolist()


@pytest.mark.parametrize("n_clients", [None, 3])
def test_a_client_whose_data_changed_starts_anew_and_the_others_stay(n_clients: int | None) -> None:
    devices = after_rounds(sharing(n_clients), None, None)
    before, held = seen(devices), devices.interactions
    touched = int(devices.clients_of(np.array([2]))[0])
    some = held.of_users([2]).where(np.arange(len(held.of_users([2]))) == 0)
    for after in (devices.erase(some), devices.with_sharing(devices.sharing.erase(some))):
        assert seen(after) == {client: count for client, count in before.items() if client != touched}
        left = after.interactions.where(after.clients_of(after.interactions.users) != touched)
        assert written(after, 1) == left.item_degrees().tolist()
    assert seen(devices) == before  # what was, stays as it was
    assert written(devices, 1) == held.item_degrees().tolist()


def test_who_erases_everything_is_hosted_no_more() -> None:
    devices = after_rounds(sharing(), None)
    after = devices.erase(devices.interactions.of_users([2]))
    assert after.users.tolist() == [0, 1, 4, 5, 6, 7]
    assert seen(after) == {user: count for user, count in seen(devices).items() if user != 2}


def test_moving_data_from_shared_to_private_changes_no_client() -> None:
    devices = after_rounds(sharing(), None, None)
    after = devices.unshare(devices.sharing.shared)
    assert seen(after) == seen(devices)
    play(after, 2)
    assert seen(after) != seen(devices)  # each goes on by itself
    assert seen(devices) == seen(after_rounds(sharing(), None, None))


def test_new_users_have_no_state_and_known_ones_keep_theirs_under_a_larger_catalog() -> None:
    devices, larger = after_rounds(sharing(), None), numbered_catalog(11, 9)
    new = Interactions.of(larger, [9, 10], [7, 8])
    grown = devices.sharing.over(larger)
    after = devices.with_sharing(
        Sharing(grown.shared, Interactions.of(larger, grown.private.users, grown.private.items) | new)
    )
    assert after.users.tolist() == [0, 1, 2, 4, 5, 6, 7, 9, 10]
    assert seen(after) == seen(devices)


def test_given_devices_all_go_on_from_the_state_they_have() -> None:
    devices = after_rounds(sharing(), None)
    less = devices.sharing.erase(devices.interactions.where(np.arange(len(devices.interactions)) % 3 == 0))
    after = devices.given(less)
    assert seen(after) == {user: seen(devices)[user] for user in after.users.tolist()}


@pytest.mark.parametrize("change", ["unshare", "erase", "copy"])
def test_a_retry_is_one_also_after_others_changed_their_data(change: str) -> None:
    devices, plain = after_rounds(sharing(), None, None), after_rounds(sharing(), None)
    of_one = devices.sharing.shared.of_users([1])
    ways = {
        "unshare": lambda one: one.unshare(of_one),
        "erase": lambda one: one.erase(of_one),
        "copy": MemoryDevices.copy,
    }
    devices, plain = ways[change](devices), ways[change](plain)
    for one in (devices, plain):
        play(one, 1)
    assert seen(devices) == seen(plain)


def test_a_copy_is_trained_by_itself() -> None:
    devices = after_rounds(sharing(), None)
    copy, before = devices.copy(), seen(devices)
    play(copy, 1)
    play(copy, 0)
    assert seen(devices) == before
    assert written(devices, 1) == [0] * 6


def test_of_all_runs_but_one_nothing_is_left() -> None:
    devices = after_rounds(sharing(), None)
    LocalEngine(devices, TASKS).run(spec("write", "b"), broadcast(0), devices.users, seed=1)
    devices.forget_runs(but="b")
    assert seen(devices) == {}
    assert len(devices.kept("b").clients) == 7
    assert written(devices, 0) == [0] * 6


@pytest.mark.parametrize("n_clients", [None, 3])
def test_what_devices_keep_of_a_run_can_be_written_down(n_clients: int | None) -> None:
    held = sharing(n_clients)
    devices = after_rounds(held, None, [1, 2])
    again = devices_of(state_bytes(devices, "a"), Sharing(held.shared, held.private), "a")
    assert seen(again) == seen(devices)
    assert again.clients_of(again.users).tolist() == devices.clients_of(devices.users).tolist()
    for one in (devices, again):
        play(one, 2)
    assert seen(again) == seen(devices)
    assert seen(devices_of(state_bytes(devices, "never"), held, "never")) == {}


def test_a_request_is_parted_into_what_devices_do_and_what_a_server_is_told() -> None:
    devices = MemoryDevices(sharing())
    everything = devices.interactions.of_users([1, 4])
    after, told = withdraw(devices, "erase", everything)
    assert told.forget == devices.sharing.shared & everything
    assert 0 < len(told.forget) < len(everything)
    assert (told.users.tolist(), after.users.tolist()) == ([1, 4], [0, 2, 5, 6, 7])
    with pytest.raises(SharingError, match="is not shared, so it cannot be unshared; nothing was applied"):
        withdraw(devices, "unshare", everything)


def test_some_users_of_a_cohort_are_the_cohort_of_these_users() -> None:
    users = np.array([4, 0, 3, 1])
    chosen = np.array([True, False, True, True])
    part, expected = Cohort.of(DATA, users).where(chosen), Cohort.of(DATA, users[chosen])
    for name in ("users", "indptr", "items", "ratings"):
        assert np.array_equal(getattr(part, name), getattr(expected, name))
    assert len(Cohort.of(DATA, users).where(np.zeros(4, dtype=bool))) == 0
