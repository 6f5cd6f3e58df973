"""Users' devices: what happens to what they keep when their data changes, and cohorts of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retract.data import Interactions, Sharing
from retract.federation import Clients, Cohort
from tests.samples import numbered_catalog

USERS, ITEMS = np.nonzero(np.random.default_rng(0).random((6, 8)) < 0.6)
DATA = Interactions.of(numbered_catalog(6, 8), USERS, ITEMS, 1 + ITEMS % 5)


def devices(n_clients: int | None = None) -> Clients:
    """Every client has a state but the last."""
    sharing = Sharing.by_ratio(DATA, 0.5)
    clients = Clients(sharing if n_clients is None else sharing.held_by(n_clients))
    clients.started[:-1] = True
    clients.state["vector"] = torch.arange(1.0, len(clients.started) + 1)[:, None].repeat(1, 3)
    clients.state["vector"][-1] = 0
    return clients


@pytest.mark.parametrize("n_clients", [None, 3])
def test_a_client_whose_data_changed_starts_anew_and_the_others_stay(n_clients):
    clients = devices(n_clients)
    touched = clients.client_of[2]
    ways = {
        "erased": clients.erase(DATA.of_users([2])),
        "less": clients.with_sharing(clients.sharing.erase(DATA.of_users([2]))),
    }
    for after in ways.values():
        expected = clients.started.clone()
        expected[touched] = False
        assert torch.equal(after.started, expected)
        assert not after.state["vector"][touched].any()
        assert torch.equal(after.state["vector"][expected], clients.state["vector"][expected])
    assert clients.state["vector"][0].all()  # what was, stays as it was


def test_moving_data_from_shared_to_private_changes_no_client():
    clients = devices()
    after = clients.unshare(clients.sharing.shared)
    assert torch.equal(after.started, clients.started)
    assert torch.equal(after.state["vector"], clients.state["vector"])


def test_new_users_have_no_state_and_known_ones_keep_theirs_under_a_larger_catalog():
    clients, larger = devices(), numbered_catalog(8, 9)
    after = clients.with_sharing(clients.sharing.over(larger))
    assert after.started.tolist() == [*clients.started.tolist(), False, False]
    assert torch.equal(after.state["vector"][:6], clients.state["vector"])
    assert not after.state["vector"][6:].any()


def test_some_users_of_a_cohort_are_the_cohort_of_these_users():
    users = np.array([4, 0, 3, 1])
    chosen = np.array([True, False, True, True])
    part, expected = Cohort.of(DATA, users).where(chosen), Cohort.of(DATA, users[chosen])
    for name in ("users", "indptr", "items", "ratings"):
        assert np.array_equal(getattr(part, name), getattr(expected, name))
    assert len(Cohort.of(DATA, users).where(np.zeros(4, dtype=bool))) == 0
