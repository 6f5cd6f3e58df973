"""PersonalFR where clients hold many users each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from retract import streams
from retract.data import Sharing
from retract.errors import ConfigError
from retract.evaluation.rating import rating_errors
from retract.federation import LocalEngine, payload_bytes, sample_clients
from retract.models.learn.autoencoder import initial
from retract.models.widths import ENCODER
from retract.stores.devices import MemoryDevices
from retract.stores.folder import TrainedFolder
from retract.stores.held import Held
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.personalfr import PERSONALFR
from retract.systems.personalfr.config import LOCAL_TRAINING, SILO_TRAINING
from retract.systems.registry import make_system
from tests.systems.personalfr_oracle import DenseAutoEncoder
from tests.systems.test_personalfr import system_of, tastes
from tests.systems.test_personalfr_client import (
    N_ITEMS,
    N_USERS,
    SEED,
    assert_close,
    broadcast_of,
    common_of,
    dense_row,
    rated,
    settings,
    spec_of,
)


def dealt(data, n_clients: int = 4) -> MemoryDevices:
    return MemoryDevices(Sharing.by_ratio(data, 0.5).held_by(n_clients, seed=1))


def run(task, config, devices: MemoryDevices, rounds: int = 2, **options):
    """Some rounds over the same tables; the engine and the last round's update."""
    engine = LocalEngine(devices, PERSONALFR().device.tasks, **options)
    for round in range(2, 2 + rounds):
        result = engine.run(spec_of(config, task), broadcast_of(config, round), engine.users, seed=SEED)
    return engine, result.update


def dense_silo(config, data, users, parameters, broadcast, round):
    """All parameters of one client after its local epochs, dense, every user's row by itself."""
    model = DenseAutoEncoder(parameters, config.read_published)
    sgd = model.sgd(config.rate * 0.7, config.encoder_rate)
    for epoch in range(config.local_epochs):
        losses = []
        for user in users:
            row, own = dense_row(data, user, broadcast), torch.from_numpy(data.items_of(user))
            counter = epoch * config.code + np.arange(config.code)
            kept = streams.uniform(SEED, round, user, "code dropout", counter) >= config.dropout
            said = model(row, torch.from_numpy(kept).float() / (1 - config.dropout))[own]
            losses.append(mse_loss(said, row[own]))
        sgd.zero_grad()
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        holders = torch.from_numpy(data.of_users(users).item_degrees()).clamp_min(1)
        for name in ("input_weight", "output_weight", "output_bias"):  # a row's mean is over who holds it
            grad = model.p[name].grad
            grad.mul_((len(users) / holders).view(-1, *[1] * (grad.dim() - 1)))
        sgd.step()
    return model.parameters_by_name()


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"mode": "fedavg"}, {"read_published": False, "encoder_rate": 0.2}])
def test_a_client_of_many_users_is_one_dense_model_for_all_of_them(given):
    config, data, devices = settings(**given), rated(), dealt(rated())
    mode = config.mode
    _, update = run(SILO_TRAINING, config, devices)
    encoders = {c: dict(initial(ENCODER, N_ITEMS, config.widths, SEED)) for c in range(4)}
    for round in (2, 3):
        broadcast = broadcast_of(config, round)
        common = common_of(broadcast)
        sums = {name: torch.zeros_like(table) for name, table in common.items()}
        for client, own in encoders.items():
            users = np.flatnonzero(devices.sharing.client_of == client)
            start = {**(own if mode == "personal" else {}), **common}
            after = dense_silo(config, data, users, start, broadcast, round)
            own.update({name: after[name] for name in own})
            for name, table in common.items():
                sums[name] += after[name] - table
    for name, expected in sums.items():
        assert_close(update.tensors[name], expected, name=name)
    for client, own in encoders.items() if mode == "personal" else ():
        for name, expected in own.items():
            assert_close(devices.kept("run").state[name][client], expected, name=name)


@pytest.mark.slow
@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
@pytest.mark.parametrize("mode", ["personal", "joint"])
def test_with_one_user_each_it_is_what_all_clients_at_once_are(mode, feedback):
    config, data = settings(mode=mode, feedback=feedback), rated(rated=feedback == "explicit")
    one_by_one, slow = run(SILO_TRAINING, config, MemoryDevices(Sharing.by_ratio(data, 1)))
    at_once, fast = run(LOCAL_TRAINING, config, MemoryDevices(Sharing.by_ratio(data, 1)))
    for name, table in fast.tensors.items():
        assert_close(slow.tensors[name], table, name=name)
    silos, users = (engine.devices.kept("run").state for engine in (one_by_one, at_once))
    for name in {"code.weight", "code.bias", "code.gain", "input.offset"} & users.keys():
        assert_close(silos[name], users[name], name=name)
    assert one_by_one.traffic.up == at_once.traffic.up
    assert one_by_one.traffic.down == at_once.traffic.down


def test_clients_are_never_parted_and_the_size_of_cohorts_never_matters():
    config, data = settings(), rated()
    (engine, whole), (other, parts) = (
        run(SILO_TRAINING, config, dealt(data)),
        run(SILO_TRAINING, config, dealt(data), cohort_interactions=1),
    )
    for name, table in whole.tensors.items():
        assert_close(parts.tensors[name], table, atol=1e-6)
    assert engine.traffic.up == other.traffic.up
    assert (whole.clients, parts.clients, engine.traffic.updates) == (4, 4, 8)
    users = sample_clients(engine, 0.3, 0, 0)
    assert 0 < len(users) < N_USERS
    everybody = np.arange(N_USERS)
    chosen = np.unique(engine.clients_of(users))
    assert np.array_equal(users, np.flatnonzero(np.isin(engine.clients_of(everybody), chosen)))


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"mode": "fedavg"}, {"compress": False}, {"feedback": "implicit"}])
def test_what_a_client_is_said_to_send_is_what_its_update_weighs(given):
    config, data = settings(**given), rated(rated=given.get("feedback") != "implicit")
    devices = dealt(data)
    engine, _ = run(SILO_TRAINING, config, devices, rounds=1)
    total = 0
    for client in range(4):
        alone = LocalEngine(dealt(data), PERSONALFR().device.tasks)
        users = np.flatnonzero(devices.sharing.client_of == client)
        result = alone.run(spec_of(config, SILO_TRAINING), broadcast_of(config), users, seed=SEED)
        assert result.bytes_up == payload_bytes(result.update)
        total += result.bytes_up
    assert engine.traffic.up == total


@pytest.mark.slow
def test_it_learns_and_all_users_of_a_client_that_loses_data_get_new_encoders():
    data, held = tastes()
    system, devices = system_of(rounds=80), dealt(data, 5)
    trained = system.server.train(devices.sharing.shared, engine_of(system, devices), seed=0)
    assert rating_errors(reader_of(system, trained, devices), data, held).rmse < 0.8
    assert devices.kept(trained.run).state["code.weight"].shape[0] == 5
    client = devices.sharing.client_of[7]
    trained = system.server.prepare(trained, engine_of(system, devices), seed=0)
    after, withdrawal = withdraw(devices, "erase", data.of_users([7]))
    new = system.server.unlearn(trained, withdrawal, engine_of(system, after), seed=0)
    assert after.kept(new.run).clients.tolist() == [number for number in range(5) if number != client]
    users = np.flatnonzero(devices.sharing.client_of == client)
    scores = reader_of(system, new, after).scores(users, after.interactions)
    assert np.isfinite(scores).all()


def test_who_holds_what_is_kept_in_the_folder(tmp_path):
    data, held = tastes()
    system, devices = system_of(rounds=2), dealt(data, 5)
    trained = system.server.train(devices.sharing.shared, engine_of(system, devices), seed=0)
    folder = TrainedFolder(tmp_path / "run")
    folder.save(Held(trained, devices, held))
    back = folder.load()
    assert np.array_equal(back.devices.sharing.client_of, devices.sharing.client_of)
    assert back.system.type == PERSONALFR
    users = np.arange(40)
    before = reader_of(system, trained, devices).scores(users, data)
    np.testing.assert_array_equal(back.recommender().scores(users, data), before)


def test_a_system_of_one_user_per_client_refuses_others():
    devices, system = dealt(tastes()[0]), make_system("fedshare", {"rounds": "1"})
    with pytest.raises(ConfigError, match=r"^fedshare has one user per client: leave --clients out$"):
        system.server.train(devices.sharing.shared, engine_of(system, devices), seed=0)


@pytest.mark.parametrize("n_clients", [0, 41])
def test_users_are_dealt_evenly_and_to_no_more_clients_than_there_are_users(n_clients):
    sharing = Sharing.by_ratio(tastes()[0], 0.5)
    with pytest.raises(ConfigError, match=rf"^clients is {n_clients}: it must lie between 1 and the 40 users$"):
        sharing.held_by(n_clients)
    assert np.bincount(sharing.held_by(7, seed=2).client_of).tolist() == [6, 6, 6, 6, 6, 5, 5]
    assert np.array_equal(sharing.held_by(7, seed=2).unshare(sharing.shared).client_of, sharing.held_by(7, 2).client_of)
