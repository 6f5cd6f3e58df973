"""PersonalFR's step of forgetting, against gradients and Hessians of dense models, one client at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from retract.data import Sharing
from retract.federation import Broadcast, Clients, Cohort, LocalEngine
from retract.systems.personalfr.client import Histories, LocalTraining, Wanted
from retract.systems.personalfr.influence import balance, ridge, without
from retract.systems.personalfr.pull import PULLING, Pull
from retract.systems.personalfr.reading import Reader
from tests.systems.test_personalfr_client import N_ITEMS, N_USERS, SEED, broadcast_of, dense_row, rated, settings


def world(feedback: str = "explicit", n_clients: int | None = None, **given: object):
    """Clients after a round, some of which have no encoder yet, and the broadcast that they pull at."""
    config, data = settings(feedback=feedback, **given), rated(rated=feedback == "explicit")
    sharing = Sharing.by_ratio(data, 1)
    clients = Clients(sharing if n_clients is None else sharing.held_by(n_clients))
    if n_clients is None:
        LocalEngine(clients).run(LocalTraining(config), broadcast_of(config), np.arange(2, N_USERS), seed=SEED)
    return config, data, clients, Broadcast(PULLING, broadcast_of(config).tensors)


def pulls(config, clients, broadcast, users=None, cohort_interactions=10**6):
    engine = LocalEngine(clients, cohort_interactions)
    everyone = engine.users if users is None else users
    return engine.run(Pull(config), broadcast, everyone, seed=SEED).tensors, engine


def chances(config, data) -> torch.Tensor:
    """How likely each item is in each user's round: 1 for what it touched; shape [N_USERS, N_ITEMS]."""
    found = torch.zeros(N_USERS, N_ITEMS)
    for user in range(N_USERS):
        held = data.items_of(user)
        if config.feedback == "implicit" and len(held) < N_ITEMS:
            found[user] = 1 - (1 - 1 / (N_ITEMS - len(held))) ** len(held)
        found[user, held] = 1
    return found


@pytest.mark.parametrize("n_clients", [None, 4])
@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
def test_a_pull_is_the_gradient_of_what_is_lost_on_average_and_its_shape_the_hessian(feedback, n_clients):
    config, data, clients, broadcast = world(feedback, n_clients)
    found, _ = pulls(config, clients, broadcast)
    tables, chance = broadcast.tensors, chances(config, data)
    rows = torch.cat([tables["output.weight"], tables["output.bias"][:, None]], dim=1)
    gradient, hessians = torch.zeros_like(rows), torch.zeros(N_ITEMS, rows.shape[1], rows.shape[1])
    holders = torch.zeros(N_ITEMS)
    reader = Reader(tables, config, SEED)
    for client in np.unique(clients.client_of):
        users = np.flatnonzero(clients.client_of == client)
        present = 1 - (1 - chance[users]).prod(dim=0)
        holders += present
        for user in users:
            alone = Cohort.of(data, np.array([user]))
            state = {name: values[[client]] for name, values in clients.state.items()}
            code = reader.codes(alone, np.zeros(1, dtype=np.int64), state)
            inner = code @ tables["hidden.weight"] + tables["hidden.bias"]
            normal = torch.nn.functional.layer_norm(inner, (config.hidden,), eps=1e-5)
            hidden = torch.tanh(normal * tables["hidden.gain"] + tables["hidden.offset"])
            ones = torch.from_numpy(data.csr().toarray()[user])
            wanted = dense_row(data, user, broadcast) if feedback == "explicit" else ones
            loss = mse_loss if feedback == "explicit" else binary_cross_entropy_with_logits
            weight = chance[user] / chance[user].sum() * present / chance[users].sum(dim=0).clamp_min(1e-9)

            def lost(own, hidden=hidden, wanted=wanted, loss=loss, weight=weight):
                return weight @ loss(own[:, :-1] @ hidden[0] + own[:, -1], wanted, reduction="none")

            own = rows.clone().requires_grad_()
            gradient += torch.autograd.grad(lost(own), own)[0]
            whole = torch.autograd.functional.hessian(lost, rows)
            for item in range(N_ITEMS):
                hessians[item] += whole[item, :, item]
    torch.testing.assert_close(found["pull"], gradient, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["shape"], hessians.sum(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["stiffness"], hessians[:, -1, -1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["holders"], holders, rtol=1e-4, atol=1e-5)


def test_untouched_items_count_as_often_as_training_draws_them():
    config, data, _, _ = world("implicit")
    cohort, rounds, drawn = Cohort.of(data, np.arange(N_USERS)), 400, torch.zeros(N_USERS, N_ITEMS)
    histories = Histories.of(cohort, explicit=False, mean=0.0)
    for round in range(rounds):
        places = Wanted.of(cohort, histories, config, SEED, round).places
        drawn[places.rows, places.column_index] += 1
    assert (drawn / rounds - chances(config, data)).abs().max() < 5 * (0.25 / rounds) ** 0.5
    assert (drawn / rounds - chances(config, data)).mean().abs() < 0.005


@pytest.mark.parametrize("n_clients", [None, 4])
def test_the_parts_that_bound_the_memory_never_matter(monkeypatch, n_clients):
    config, _, clients, broadcast = world("implicit", n_clients)
    whole, one = pulls(config, clients, broadcast)
    monkeypatch.setattr("retract.systems.personalfr.pull.CELLS", 3 * N_ITEMS)
    parts, other = pulls(config, clients, broadcast)
    for name, table in whole.items():
        torch.testing.assert_close(parts[name], table, rtol=1e-5, atol=1e-5)
    assert torch.equal(one.traffic.up, other.traffic.up)


@pytest.mark.parametrize("n_clients", [None, 4])
def test_cohorts_add_up_and_nothing_is_left_on_the_clients(n_clients):
    config, _, clients, broadcast = world(n_clients=n_clients)
    started, state = clients.started.clone(), {name: rows.clone() for name, rows in clients.state.items()}
    (whole, one), (parts, other) = (pulls(config, clients, broadcast, cohort_interactions=n) for n in (10**6, 1))
    for name, table in whole.items():
        torch.testing.assert_close(parts[name], table, rtol=1e-5, atol=1e-5)
    assert torch.equal(one.traffic.up, other.traffic.up)
    assert torch.equal(clients.started, started)
    assert clients.state.keys() == state.keys()
    assert all(torch.equal(clients.state[name], rows) for name, rows in state.items())


def test_bytes_are_those_of_the_rows_that_a_client_holds():
    config, _, clients, broadcast = world()
    _, engine = pulls(config, clients, broadcast)
    for user in range(N_USERS):
        sums, _ = pulls(config, clients, broadcast, np.array([user]))
        rows = np.flatnonzero(sums["holders"].numpy())
        sent = [sums[name].numpy()[rows].tobytes() for name in ("pull", "stiffness")]
        sent += [rows.astype(np.int32).tobytes()] if len(rows) < N_ITEMS else []
        sent.append(sums["shape"].numpy().tobytes())
        assert sum(map(len, sent)) == engine.traffic.up[user]


def test_where_all_rows_have_one_shape_the_step_is_newton_s():
    config, n_items, width = settings(output_decay=0.1, rounds=10**9, participation=1.0), 5, 17
    draw = torch.Generator().manual_seed(0)
    shape = torch.randn(width, 3 * width, generator=draw, dtype=torch.float64)
    shape = shape @ shape.T
    scale, holders = torch.rand(n_items, generator=draw) + 0.5, torch.tensor([3, 1, 4, 1, 0])
    scale[4] = 0
    tables = {"output.weight": torch.randn(n_items, width - 1, generator=draw), "output.bias": torch.randn(n_items)}
    found = {
        "pull": torch.randn(n_items, width, generator=draw),
        "stiffness": scale,
        "shape": (shape * scale.sum()).float(),
        "holders": holders,
    }
    now = balance(found, tables, config)
    then = now + torch.randn(n_items, width, generator=draw)
    last = without(found, then, tables, config)
    before = torch.cat([tables["output.weight"], tables["output.bias"][:, None]], dim=1)
    after = torch.cat([last["output.weight"], last["output.bias"][:, None]], dim=1)
    for item in range(4):
        damping = ridge(holders, config.output_decay, config)[item]
        hessian = scale[item] * shape + damping * torch.eye(width, dtype=torch.float64)
        step = torch.linalg.solve(hessian, (then - now)[item].double())
        torch.testing.assert_close(after[item], before[item] + step.float(), rtol=1e-3, atol=1e-5)
    assert not after[4].any()
