"""PersonalFR's step of forgetting, against gradients and Hessians of dense models, one client at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from retract.data import Sharing
from retract.federation import Broadcast, Clients, Cohort, LocalEngine
from retract.systems.personalfr.client import LocalTraining, Wanted
from retract.systems.personalfr.influence import balance, ridge, without
from retract.systems.personalfr.pull import PULLING, Pull
from retract.systems.personalfr.reading import Reader
from tests.systems.test_personalfr_client import N_ITEMS, N_USERS, SEED, broadcast_of, rated, settings


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


@pytest.mark.parametrize("n_clients", [None, 4])
@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
def test_a_pull_is_the_gradient_of_every_client_s_mean_loss_and_its_shape_the_hessian(feedback, n_clients):
    config, data, clients, broadcast = world(feedback, n_clients)
    found, _ = pulls(config, clients, broadcast)
    tables = broadcast.tensors
    rows = torch.cat([tables["output.weight"], tables["output.bias"][:, None]], dim=1)
    gradient, hessians = torch.zeros_like(rows), torch.zeros(N_ITEMS, rows.shape[1], rows.shape[1])
    reader = Reader(tables, config, SEED)
    cohorts = [Cohort.of(data, np.array([user])) for user in range(N_USERS)]
    wants = [Wanted.of(alone, reader.histories(alone), config, SEED, PULLING) for alone in cohorts]
    counts = torch.zeros(N_USERS, N_ITEMS)
    for client, wanted in zip(clients.client_of, wants, strict=True):
        counts[client, wanted.places.column_index] += 1
    for user, (alone, wanted) in enumerate(zip(cohorts, wants, strict=True)):
        client = clients.client_of[user]
        state = {name: values[[client]] for name, values in clients.state.items()}
        code = reader.codes(alone, np.zeros(1, dtype=np.int64), state)
        hidden = torch.tanh(
            torch.nn.functional.layer_norm(
                code @ tables["hidden.weight"] + tables["hidden.bias"], (config.hidden,), eps=1e-5
            )
            * tables["hidden.gain"]
            + tables["hidden.offset"]
        )
        places = wanted.places.column_index
        loss = mse_loss if feedback == "explicit" else binary_cross_entropy_with_logits

        part = 1 / counts[client, places]

        def mean_loss(own, hidden=hidden, wanted=wanted, loss=loss, part=part):
            losses = loss(own[:, :-1] @ hidden[0] + own[:, -1], wanted.values, reduction="none")
            return (part * losses).mean()

        own = rows[places].clone().requires_grad_()
        gradient[places] += torch.autograd.grad(mean_loss(own), own)[0]
        whole = torch.autograd.functional.hessian(mean_loss, rows[places])
        for n, item in enumerate(places):
            hessians[item] += whole[n, :, n]
    torch.testing.assert_close(found["pull"], gradient, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["shape"], hessians.sum(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["stiffness"], hessians[:, -1, -1], rtol=1e-4, atol=1e-6)


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
        sent += [rows.astype(np.int32).tobytes(), sums["shape"].numpy().tobytes()]
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
