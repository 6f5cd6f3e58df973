"""PersonalFR beside the data: thousands of clients at once are what each of them is alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings as hypothesis_settings
from hypothesis import strategies as st

from retract.data import Interactions, Sharing
from retract.errors import DataError
from retract.federation import NOTHING_KEPT, Broadcast, Cohort, Kept, LocalEngine, TaskSpec, payload_bytes
from retract.models.learn.autoencoder import decode, initial
from retract.models.widths import DECODER, ENCODER
from retract.stores.devices import MemoryDevices
from retract.systems.base import task_spec
from retract.systems.personalfr import PERSONALFR, PersonalFRConfig
from retract.systems.personalfr.asking import census
from retract.systems.personalfr.config import (
    LOCAL_TRAINING,
    NAME,
    bytes_fetched,
    bytes_sent,
    census_update,
    layers_of,
    training_update,
)
from retract.systems.personalfr.encoding import tensors
from retract.systems.personalfr.local_training import LocalTraining
from retract.systems.personalfr.reading import PersonalFRRecommender, RatingRecommender
from tests.samples import numbered_catalog
from tests.systems.personalfr_oracle import DenseAutoEncoder, train_one_client

N_USERS, N_ITEMS, SEED = 12, 40, 3


def rated(seed: int = 0, rated: bool = True) -> Interactions:
    """Users with few and with many of the items; one with all of them."""
    draw = np.random.default_rng(seed)
    touched = draw.random((N_USERS, N_ITEMS)) < draw.uniform(0.05, 0.6, (N_USERS, 1))
    touched[0] = True
    touched[:, 0] = True
    users, items = np.nonzero(touched)
    return Interactions.of(
        numbered_catalog(N_USERS, N_ITEMS), users, items, draw.integers(1, 6, len(users)) if rated else None
    )


def settings(**given: object) -> PersonalFRConfig:
    return PersonalFRConfig.model_validate({"feedback": "explicit", "hidden": 16, "code": 8, "rate": 0.3, **given})


def start(config: PersonalFRConfig, layers=(*ENCODER, *DECODER)) -> dict[str, torch.Tensor]:
    """A model that is not at its beginning: gains, offsets and biases are moved too."""
    draw = torch.Generator().manual_seed(1)
    tables = initial(layers, N_ITEMS, config.widths, SEED)
    return {name: table + 0.1 * torch.randn(table.shape, generator=draw) for name, table in tables.items()}


def broadcast_of(config: PersonalFRConfig, round: int = 2, mean: float = 3.2) -> Broadcast:
    tables = {name: table.numpy() for name, table in start(config, layers_of(config)).items()}
    about = {"mean": np.float32(mean if config.feedback == "explicit" else 0.0), "rate": np.float32(0.7)}
    return Broadcast(round, {**tables, **about})


def model_of(config: PersonalFRConfig) -> dict:
    """What the server of this broadcast would publish."""
    scale = {"lowest": np.float32(1.0), "highest": np.float32(5.0), "support": np.full(N_ITEMS, 9)}
    return {**broadcast_of(config).tables, **scale}


def spec_of(config: PersonalFRConfig, task: str = LOCAL_TRAINING) -> TaskSpec:
    return task_spec(config, NAME, task, "run", training_update(config, N_ITEMS))


def engine_on(data: Interactions, **options) -> LocalEngine:
    devices = MemoryDevices(Sharing.by_ratio(data, 0.5))
    return LocalEngine(devices, PERSONALFR().device.tasks, **options)


def common_of(broadcast: Broadcast) -> dict[str, torch.Tensor]:
    """The parameters in a broadcast."""
    return {name: table for name, table in tensors(broadcast.tables).items() if "." in name}


def assert_close(one, other, rtol=1e-5, atol=1e-5, name="") -> None:
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=rtol, atol=atol, err_msg=name)


def encoder_of(user: int, kept: Kept, config: PersonalFRConfig, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The dense private encoder of one user: its first layer moved along the user's own input."""
    (place,) = kept.places_of(np.array([user]))
    own = {name: torch.from_numpy(rows[place]) for name, rows in kept.state.items()}
    dense = dict(initial(ENCODER, N_ITEMS, config.widths, SEED))
    moved = own["input.moved"]
    dense["input.weight"] = dense["input.weight"] - torch.outer(x, moved)
    dense["input.bias"] = dense["input.bias"] - moved
    return {name: own.get(name, table) for name, table in dense.items()}


def dense_row(data: Interactions, user: int, broadcast: Broadcast) -> torch.Tensor:
    own, row = slice(data.indptr[user], data.indptr[user + 1]), torch.zeros(N_ITEMS)
    values = 1.0 if data.ratings is None else torch.from_numpy(data.ratings[own]) - float(broadcast.tables["mean"])
    row[torch.from_numpy(data.items[own])] = values
    return row


def run(config: PersonalFRConfig, data: Interactions, rounds: int = 2, **options: object):
    """Some rounds over the same tables; the engine and the last round's result."""
    engine, spec = engine_on(data, **options), spec_of(config)
    results = [engine.run(spec, broadcast_of(config, round), engine.users, seed=SEED) for round in range(2, 2 + rounds)]
    return engine, results[-1]


def one_by_one(config: PersonalFRConfig, data: Interactions, rounds: int = 2):
    """The same by the oracle: the sums of the last round, and every user's dense encoder."""
    encoders = {u: dict(initial(ENCODER, N_ITEMS, config.widths, SEED)) for u in range(N_USERS)}
    for round in range(2, 2 + rounds):
        broadcast = broadcast_of(config, round)
        common = common_of(broadcast)
        sums = {name: torch.zeros_like(table) for name, table in common.items()}
        for user in range(N_USERS):
            row = dense_row(data, user, broadcast)
            items = data.items_of(user)
            after = train_one_client(
                user, items, row[torch.from_numpy(items)].numpy(),
                {**(encoders[user] if config.mode == "personal" else {}), **common}, config, N_ITEMS,
                rate=config.rate * 0.7, seed=SEED, round=round,
            )  # fmt: skip
            encoders[user] = {name: after[name] for name in encoders[user]}
            for name, table in common.items():
                sums[name] += after[name] - table
    return sums, encoders


@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
@pytest.mark.parametrize("mode", ["personal", "fedavg", "joint"])
def test_a_cohort_is_its_clients_one_at_a_time_each_with_a_dense_model(mode, feedback):
    config, data = settings(mode=mode, feedback=feedback, negatives=2), rated(rated=feedback == "explicit")
    engine, update = run(config, data)
    sums, encoders = one_by_one(config, data)
    for name, expected in sums.items():
        torch.testing.assert_close(
            update.tensors[name], expected, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    if mode == "personal":
        for user in range(N_USERS):
            mine = encoder_of(user, engine.clients.state, config, dense_row(data, user, broadcast_of(config)))
            for name, expected in encoders[user].items():
                torch.testing.assert_close(mine[name], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", [{"clip": 1e-3}, {"clip": 1e3}, {"encoder_rate": 0.1}, {"read_published": False}])
def test_it_is_so_however_gradients_are_clipped_and_whatever_encoders_read(given):
    config, data = settings(**given), rated()
    _, update = run(config, data)
    for name, expected in one_by_one(config, data)[0].items():
        torch.testing.assert_close(update.tensors[name], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["personal", "fedavg"])
def test_the_size_of_cohorts_never_matters(mode):
    config, data = settings(mode=mode), rated()
    (engine, whole), (other, parts) = run(config, data), run(config, data, cohort_interactions=1)
    for name, table in whole.tensors.items():
        torch.testing.assert_close(parts.tensors[name], table, rtol=1e-5, atol=1e-6)
    for name, rows in engine.clients.state.items():
        torch.testing.assert_close(other.clients.state[name], rows, rtol=1e-5, atol=1e-6)
    assert torch.equal(engine.traffic.up, other.traffic.up)


@pytest.mark.parametrize("read_published", [False, True])
def test_an_encoder_reads_another_history_as_the_dense_one_does(read_published):
    config, data = settings(read_published=read_published), rated()
    engine, _ = run(config, data)
    less = data.where(np.arange(len(data)) % 3 > 0)
    broadcast = broadcast_of(config)
    model = {**broadcast.tensors, "lowest": torch.tensor(1.0), "highest": torch.tensor(5.0)}
    reader = PersonalFRRecommender(model, engine.clients, config, SEED)
    codes = reader.codes(np.arange(N_USERS), less)
    for user in range(N_USERS):
        encoder = encoder_of(user, engine.clients.state, config, dense_row(data, user, broadcast))
        tables = {k: v for k, v in broadcast.tensors.items() if "." in k}
        dense = DenseAutoEncoder({**encoder, **tables}, read_published)
        row = dense_row(less, user, broadcast)
        torch.testing.assert_close(codes[user], dense.code(row), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(decode(model, codes)[user], dense(row), rtol=1e-5, atol=1e-5)


def test_who_joins_gets_the_encoder_that_training_against_a_frozen_decoder_gives():
    config, data = settings(join_steps=3, clip=1e3, dropout=0.0), rated()
    broadcast = broadcast_of(config)
    reader = PersonalFRRecommender(dict(broadcast.tensors), Clients(Sharing.by_ratio(data, 1)), config, SEED)
    codes = reader.codes(np.arange(N_USERS), data)
    for user in range(N_USERS):
        tables = {k: v for k, v in broadcast.tensors.items() if "." in k}
        start = {**initial(ENCODER, N_ITEMS, config.widths, SEED), **tables}
        model = DenseAutoEncoder(start, config.read_published)
        sgd = torch.optim.SGD([p for n, p in model.p.items() if n.startswith(("input", "code"))], lr=config.rate)
        row, own = dense_row(data, user, broadcast), torch.from_numpy(data.items_of(user))
        for _ in range(3):
            sgd.zero_grad()
            (model(row)[own] - row[own]).square().mean().backward()
            sgd.step()
        torch.testing.assert_close(codes[user], model.code(row), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["personal", "fedavg"])
@pytest.mark.parametrize("compress", [True, False])
def test_bytes_are_those_of_the_arrays_that_a_client_alone_would_send(mode, compress):
    config, data = settings(mode=mode, compress=compress), rated()
    engine, _ = run(config, data, rounds=1)
    for user in range(N_USERS):
        cohort = Cohort.of(data, np.array([user]))
        task, broadcast = LocalTraining(config), broadcast_of(config)
        state = {name: rows[[user]] for name, rows in engine.clients.state.items()}
        sums = task(broadcast, cohort, state, SEED).update.tensors
        sent = []
        for name, table in sums.items():
            if name.endswith("holders"):
                continue
            layer = name.split(".")[0]
            by_item = name in ("input.weight", "output.weight", "output.bias")
            rows = np.flatnonzero(sums[f"{layer}.holders"].numpy()) if by_item and compress else slice(None)
            sent.append(table.numpy()[rows].tobytes())
            if compress and name.endswith("weight") and by_item:
                sent.append(rows.astype(np.int32).tobytes())
        assert sum(map(len, sent)) == engine.traffic.up[user]
    numbers = 4 * len(data) * (2 if mode == "fedavg" else 1) if compress else 0
    assert engine.traffic.down.sum() == engine.traffic.up.sum() - numbers


def test_a_compressed_message_is_a_small_part_of_a_whole_model():
    personal, fedavg = PersonalFRConfig(), PersonalFRConfig.model_validate({"mode": "fedavg", "compress": False})
    wanted, held = torch.tensor([238]), torch.tensor([119])
    small, large = (messages(config, 3706, wanted, held)[0].item() for config in (personal, fedavg))
    assert small < 0.05 * large


def test_a_history_without_ratings_is_refused_by_a_model_for_ratings():
    config, data = settings(), rated()
    engine, _ = run(config, data)
    model = {**broadcast_of(config).tensors, "lowest": torch.tensor(1.0), "highest": torch.tensor(5.0)}
    reader = RatingRecommender(model, engine.clients, config, SEED)
    with pytest.raises(DataError, match=r"^the model predicts ratings, and this history has none"):
        reader.ratings(np.arange(2), rated(rated=False))
