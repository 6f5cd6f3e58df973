"""PersonalFR's step of forgetting, against gradients and Hessians of dense models, one client at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from retract.data import Sharing
from retract.federation import Broadcast, Cohort, LocalEngine, payload_bytes
from retract.stores.devices import MemoryDevices
from retract.systems.base import task_spec
from retract.systems.personalfr import PERSONALFR
from retract.systems.personalfr.config import NAME, PULL, PULLING, pull_update
from retract.systems.personalfr.encoding import Histories, Wanted, tensors
from retract.systems.personalfr.influence import balance, ridge, without
from retract.systems.personalfr.paper_reading import Reader
from tests.systems.test_personalfr_client import (
    N_ITEMS,
    N_USERS,
    SEED,
    assert_close,
    broadcast_of,
    dense_row,
    rated,
    settings,
    spec_of,
)


def world(feedback: str = "explicit", n_clients: int | None = None, **given: object):
    """Clients after a round, some of which have no encoder yet, and the broadcast that they pull at."""
    config, data = settings(feedback=feedback, **given), rated(rated=feedback == "explicit")
    sharing = Sharing.by_ratio(data, 1)
    devices = MemoryDevices(sharing if n_clients is None else sharing.held_by(n_clients))
    if n_clients is None:
        engine_on(devices).run(spec_of(config), broadcast_of(config), np.arange(2, N_USERS), seed=SEED)
    tables = {name: table for name, table in broadcast_of(config).tables.items() if name != "rate"}
    return config, data, devices, Broadcast(PULLING, tables)


def engine_on(devices, **options) -> LocalEngine:
    return LocalEngine(devices, PERSONALFR().device.tasks, **options)


def pulls(config, devices, broadcast, users=None, run="run", **options):
    """The sums, and all that an engine says of them."""
    engine = engine_on(devices, **options)
    spec = task_spec(config, NAME, PULL, run, pull_update(config, N_ITEMS))
    return engine.run(spec, broadcast, engine.users if users is None else users, seed=SEED)


def chances(config, data) -> torch.Tensor:
    """How likely each item is in each user's round: 1 for what it touched; shape [N_USERS, N_ITEMS]."""
    found = torch.zeros(N_USERS, N_ITEMS)
    for user in range(N_USERS):
        held = data.items_of(user)
        if config.feedback == "implicit" and len(held) < N_ITEMS:
            found[user] = 1 - (1 - 1 / (N_ITEMS - len(held))) ** len(held)
        found[user, held] = 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("n_clients", [None, 4])
@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
def test_a_pull_is_the_gradient_of_what_is_lost_on_average_and_its_shape_the_hessian(feedback, n_clients):
    config, data, devices, broadcast = world(feedback, n_clients)
    found, kept = pulls(config, devices, broadcast).update.tensors, devices.kept("run")
    tables, chance = tensors(broadcast.tables), chances(config, data)
    rows = torch.cat([tables["output.weight"], tables["output.bias"][:, None]], dim=1)
    gradient, hessians = torch.zeros_like(rows), torch.zeros(N_ITEMS, rows.shape[1], rows.shape[1])
    holders = torch.zeros(N_ITEMS)
    reader = Reader(tables, config, SEED)
    client_of = devices.clients_of(np.arange(N_USERS))
    for client in np.unique(client_of):
        users = np.flatnonzero(client_of == client)
        present = 1 - (1 - chance[users]).prod(dim=0)
        holders += present
        for user in users:
            alone = Cohort.of(data, np.array([user]))
            code = reader.codes(alone, kept.places_of(np.array([user])), kept.state)
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
    assert_close(found["pull"], gradient, rtol=1e-4)
    assert_close(found["shape"], hessians.sum(dim=0), rtol=1e-4)
    assert_close(found["stiffness"], hessians[:, -1, -1], rtol=1e-4)
    assert_close(found["holders"], holders, rtol=1e-4)


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
    config, _, devices, broadcast = world("implicit", n_clients)
    whole = pulls(config, devices, broadcast)
    monkeypatch.setattr("retract.systems.personalfr.pull.CELLS", 3 * N_ITEMS)
    parts = pulls(config, devices, broadcast)
    for name, table in whole.update.tensors.items():
        assert_close(parts.update.tensors[name], table)
    assert (whole.bytes_up, whole.bytes_down) == (parts.bytes_up, parts.bytes_down)


@pytest.mark.parametrize("n_clients", [None, 4])
def test_cohorts_add_up_and_nothing_is_left_on_the_clients(n_clients):
    config, _, devices, broadcast = world(n_clients=n_clients)
    before = devices.copy().kept("run")
    whole, parts = (pulls(config, devices, broadcast, cohort_interactions=n) for n in (10**6, 1))
    for name, table in whole.update.tensors.items():
        assert_close(parts.update.tensors[name], table)
    assert (whole.bytes_up, whole.bytes_down) == (parts.bytes_up, parts.bytes_down)
    after = devices.kept("run")
    assert after.clients.tolist() == before.clients.tolist()
    assert after.state.keys() == before.state.keys()
    for name, rows in before.state.items():
        np.testing.assert_array_equal(after.state[name], rows)


def test_a_pull_reads_by_the_encoders_of_its_run_and_makes_one_where_there_is_none():
    config, data, devices, broadcast = world()
    took_part, new = np.array([5]), np.array([1])
    fresh = MemoryDevices(Sharing.by_ratio(data, 1))
    for users, same in ((took_part, False), (new, True)):
        kept, made = (pulls(config, each, broadcast, users).update.tensors["pull"] for each in (devices, fresh))
        assert np.array_equal(kept, made) == same
    other_run = pulls(config, devices, broadcast, took_part, run="another").update.tensors["pull"]
    np.testing.assert_array_equal(other_run, pulls(config, fresh, broadcast, took_part).update.tensors["pull"])


@pytest.mark.parametrize(("feedback", "compress"), [("explicit", True), ("explicit", False), ("implicit", True)])
def test_bytes_are_those_of_the_rows_that_a_client_holds(feedback, compress):
    config, data, devices, broadcast = world(feedback, compress=compress)
    whole, up, down = pulls(config, devices, broadcast), 0, 0
    for user in range(N_USERS):
        alone = pulls(config, devices, broadcast, np.array([user]))
        sums = alone.update.tensors
        sparse = compress and feedback == "explicit"
        rows = np.flatnonzero(sums["holders"]) if sparse else np.arange(N_ITEMS)
        sent = [sums[name][rows].tobytes() for name in ("pull", "stiffness", "holders")]
        sent += [rows.astype(np.int32).tobytes()] if sparse else []
        sent.append(sums["shape"].tobytes())
        assert alone.bytes_up == sum(map(len, sent)) == payload_bytes(alone.update)
        assert alone.bytes_down <= broadcast.nbytes
        if sparse:
            assert rows.tolist() == data.items_of(user).tolist()
        else:
            assert alone.bytes_down == broadcast.nbytes
        up, down = up + alone.bytes_up, down + alone.bytes_down
    assert (whole.bytes_up, whole.bytes_down) == (up, down)


def test_where_all_rows_have_one_shape_the_step_is_newton_s():
    config, n_items, width = settings(output_decay=0.1, rounds=10**9, participation=1.0), 5, 17
    draw = np.random.default_rng(0)

    def normal(*size: int) -> np.ndarray:
        return draw.normal(size=size).astype(np.float32)

    shape = draw.normal(size=(width, 3 * width))
    shape = shape @ shape.T
    scale, holders = draw.uniform(0.5, 1.5, n_items).astype(np.float32), np.array([3, 1, 4, 1, 0], dtype=np.float32)
    scale[4] = 0
    tables = {"output.weight": normal(n_items, width - 1), "output.bias": normal(n_items)}
    found = {
        "pull": normal(n_items, width),
        "stiffness": scale,
        "shape": (shape * scale.sum()).astype(np.float32),
        "holders": holders,
    }
    now = balance(found, tables, config)
    then = now + normal(n_items, width)
    last = without(found, then, tables, config)
    before = np.column_stack([tables["output.weight"], tables["output.bias"]])
    after = np.column_stack([last["output.weight"], last["output.bias"]])
    for item in range(4):
        damping = ridge(holders, config.output_decay, config)[item]
        hessian = scale[item] * shape + damping * np.eye(width)
        step = np.linalg.solve(hessian, (then - now)[item].astype(np.float64))
        assert_close(after[item], before[item] + step, rtol=1e-3)
    assert not after[4].any()
