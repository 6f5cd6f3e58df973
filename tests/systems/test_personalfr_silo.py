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
from retract.federation import Clients, LocalEngine, sample_clients
from retract.models.learn.autoencoder import ENCODER, initial
from retract.systems import folder as folders
from retract.systems.base import withdraw
from retract.systems.personalfr import PersonalFR
from retract.systems.personalfr.client import LocalTraining
from retract.systems.personalfr.silo import SiloTraining
from retract.systems.registry import make_system
from tests.systems.personalfr_oracle import DenseAutoEncoder
from tests.systems.test_personalfr import system_of, tastes
from tests.systems.test_personalfr_client import N_ITEMS, N_USERS, SEED, broadcast_of, dense_row, rated, settings


def dealt(data, n_clients: int = 4) -> Clients:
    return Clients(Sharing.by_ratio(data, 0.5).held_by(n_clients, seed=1))


def run(task, config, clients: Clients, rounds: int = 2, **options):
    engine = LocalEngine(clients, **options)
    for round in range(2, 2 + rounds):
        update = engine.run(task, broadcast_of(config, round), engine.users, seed=SEED)
    return engine, update


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


@pytest.mark.parametrize("given", [{}, {"mode": "fedavg"}, {"read_published": False, "encoder_rate": 0.2}])
def test_a_client_of_many_users_is_one_dense_model_for_all_of_them(given):
    config, data, clients = settings(**given), rated(), dealt(rated())
    mode = config.mode
    engine, update = run(SiloTraining(config, N_ITEMS), config, clients)
    encoders = {c: dict(initial(ENCODER, N_ITEMS, config.widths, SEED)) for c in range(4)}
    for round in (2, 3):
        broadcast = broadcast_of(config, round)
        common = {name: table for name, table in broadcast.tensors.items() if "." in name}
        sums = {name: torch.zeros_like(table) for name, table in common.items()}
        for client, own in encoders.items():
            users = np.flatnonzero(clients.client_of == client)
            start = {**(own if mode == "personal" else {}), **common}
            after = dense_silo(config, data, users, start, broadcast, round)
            own.update({name: after[name] for name in own})
            for name, table in common.items():
                sums[name] += after[name] - table
    for name, expected in sums.items():
        torch.testing.assert_close(update.tensors[name], expected, rtol=1e-5, atol=1e-5)
    for client, own in encoders.items() if mode == "personal" else ():
        for name, expected in own.items():
            torch.testing.assert_close(engine.clients.state[name][client], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
@pytest.mark.parametrize("mode", ["personal", "joint"])
def test_with_one_user_each_it_is_what_all_clients_at_once_are(mode, feedback):
    config, data = settings(mode=mode, feedback=feedback), rated(rated=feedback == "explicit")
    one_by_one, slow = run(SiloTraining(config, N_ITEMS), config, Clients(Sharing.by_ratio(data, 1)))
    at_once, fast = run(LocalTraining(config), config, Clients(Sharing.by_ratio(data, 1)))
    for name, table in fast.tensors.items():
        torch.testing.assert_close(slow.tensors[name], table, rtol=1e-5, atol=1e-5)
    for name in {"code.weight", "code.bias", "code.gain", "input.offset"} & at_once.clients.state.keys():
        rows = one_by_one.clients.state[name]
        torch.testing.assert_close(rows, at_once.clients.state[name], rtol=1e-5, atol=1e-5)
    assert torch.equal(one_by_one.traffic.up, at_once.traffic.up)
    assert torch.equal(one_by_one.traffic.down, at_once.traffic.down)


def test_clients_are_never_parted_and_the_size_of_cohorts_never_matters():
    config, data = settings(), rated()
    task = SiloTraining(config, N_ITEMS)
    (engine, whole), (other, parts) = (
        run(task, config, dealt(data)),
        run(task, config, dealt(data), cohort_interactions=1),
    )
    for name, table in whole.tensors.items():
        torch.testing.assert_close(parts.tensors[name], table, rtol=1e-5, atol=1e-6)
    assert torch.equal(engine.traffic.up, other.traffic.up)
    assert (whole.clients, parts.clients, engine.traffic.updates) == (4, 4, 8)
    users = sample_clients(engine, 0.3, 0, 0)
    assert 0 < len(users) < N_USERS
    chosen = np.unique(engine.client_of[users])
    assert np.array_equal(users, np.flatnonzero(np.isin(engine.client_of, chosen)))


def test_it_learns_and_all_users_of_a_client_that_loses_data_get_new_encoders():
    data, held = tastes()
    system, clients = system_of(rounds=80), dealt(data, 5)
    trained = system.train(clients.sharing.shared, LocalEngine(clients), seed=0)
    assert rating_errors(system.recommender(trained, clients), data, held).rmse < 0.8
    assert clients.state["code.weight"].shape[0] == 5
    client = clients.client_of[7]
    trained = system.prepare(trained, LocalEngine(clients), seed=0)
    after, withdrawal = withdraw(clients, "erase", data.of_users([7]))
    new = system.unlearn(trained, withdrawal, LocalEngine(after), seed=0)
    assert after.started.tolist() == [number != client for number in range(5)]
    scores = system.recommender(new, after).scores(np.flatnonzero(clients.client_of == client), after.interactions)
    assert torch.isfinite(scores).all()


def test_who_holds_what_is_kept_in_the_folder(tmp_path):
    data, held = tastes()
    system, clients = system_of(rounds=2), dealt(data, 5)
    trained = system.train(clients.sharing.shared, LocalEngine(clients), seed=0)
    folders.save(tmp_path / "run", trained, clients, held)
    back = folders.load(tmp_path / "run")
    assert np.array_equal(back.clients.client_of, clients.client_of)
    assert isinstance(back.system, PersonalFR)
    users = np.arange(40)
    before = system.recommender(trained, clients).scores(users, data)
    assert torch.equal(back.recommender().scores(users, data), before)


def test_a_system_of_one_user_per_client_refuses_others():
    clients = dealt(tastes()[0])
    with pytest.raises(ConfigError, match=r"^fedshare has one user per client: leave --clients out$"):
        make_system("fedshare", {"rounds": "1"}).train(clients.sharing.shared, LocalEngine(clients), seed=0)


@pytest.mark.parametrize("n_clients", [0, 41])
def test_users_are_dealt_evenly_and_to_no_more_clients_than_there_are_users(n_clients):
    sharing = Sharing.by_ratio(tastes()[0], 0.5)
    with pytest.raises(ConfigError, match=rf"^clients is {n_clients}: it must lie between 1 and the 40 users$"):
        sharing.held_by(n_clients)
    assert np.bincount(sharing.held_by(7, seed=2).client_of).tolist() == [6, 6, 6, 6, 6, 5, 5]
    assert np.array_equal(sharing.held_by(7, seed=2).unshare(sharing.shared).client_of, sharing.held_by(7, 2).client_of)
