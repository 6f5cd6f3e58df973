"""PersonalFR beside the data: thousands of clients at once are what each of them is alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st

from retract.data import Interactions, Sharing
from retract.errors import DataError
from retract.federation import NOTHING_KEPT, Broadcast, Kept, LocalEngine, TaskSpec, payload_bytes
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
from retract.systems.personalfr.paper_reading import PersonalFRRecommender, RatingRecommender
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
    return PersonalFRConfig.model_validate(
        {"form": "paper", "feedback": "explicit", "hidden": 16, "code": 8, "rate": 0.3, **given}
    )


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


@pytest.mark.slow
@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
@pytest.mark.parametrize("mode", ["personal", "fedavg", "joint"])
def test_a_cohort_is_its_clients_one_at_a_time_each_with_a_dense_model(mode, feedback):
    config, data = settings(mode=mode, feedback=feedback, negatives=2), rated(rated=feedback == "explicit")
    engine, result = run(config, data)
    sums, encoders = one_by_one(config, data)
    for name, expected in sums.items():
        assert_close(result.update.tensors[name], expected, name=name)
    if mode == "personal":
        kept = engine.devices.kept("run")
        for user in range(N_USERS):
            mine = encoder_of(user, kept, config, dense_row(data, user, broadcast_of(config)))
            for name, expected in encoders[user].items():
                assert_close(mine[name], expected)


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"clip": 1e-3}, {"clip": 1e3}, {"encoder_rate": 0.1}, {"read_published": False}])
def test_it_is_so_however_gradients_are_clipped_and_whatever_encoders_read(given):
    config, data = settings(**given), rated()
    _, result = run(config, data)
    for name, expected in one_by_one(config, data)[0].items():
        assert_close(result.update.tensors[name], expected)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["personal", "fedavg"])
def test_the_size_of_cohorts_never_matters(mode):
    config, data = settings(mode=mode), rated()
    (engine, whole), (other, parts) = run(config, data), run(config, data, cohort_interactions=1)
    for name, table in whole.update.tensors.items():
        assert_close(parts.update.tensors[name], table, atol=1e-6)
    one, two = (each.devices.kept("run").state for each in (engine, other))
    assert one.keys() == two.keys()
    for name, rows in one.items():
        assert_close(two[name], rows, atol=1e-6)
    assert (engine.traffic.up, engine.traffic.down) == (other.traffic.up, other.traffic.down)


@pytest.mark.slow
@drawn(st.integers(0, 10_000), st.integers(2, 4), st.sampled_from(["personal", "fedavg"]), st.booleans())
def test_the_update_of_all_equals_the_sum_over_any_split_of_the_users(seed, n_parts, mode, explicit):
    config = settings(mode=mode, feedback="explicit" if explicit else "implicit", local_epochs=2)
    data, spec = rated(seed, explicit), spec_of(config)
    colour = np.random.default_rng(seed).integers(0, n_parts, N_USERS)
    one, many = engine_on(data), engine_on(data)
    whole = one.run(spec, broadcast_of(config), one.users, seed=SEED).update
    total = spec.update.zeros()
    for part in range(n_parts):
        if len(users := np.flatnonzero(colour == part)):
            total = total + many.run(spec, broadcast_of(config), users, seed=SEED).update
    assert total.clients == whole.clients
    for name, table in whole.tensors.items():
        assert_close(total.tensors[name], table, name=name)
    for name, rows in one.devices.kept("run").state.items():
        assert_close(many.devices.kept("run").state[name], rows, name=name)


def test_an_epoch_writes_into_nothing_that_it_is_given():
    config, data = settings(), rated()
    engine, _ = run(config, data, rounds=1)
    task, broadcast, spec = LocalTraining(spec_of(config)), broadcast_of(config, 3), spec_of(config)
    (cohort,) = engine.devices.cohorts(spec, engine.users, 10**6)
    state = dict(engine.devices.kept("run").state)
    for array in (*state.values(), *(np.asarray(table) for table in broadcast.tables.values())):
        array.flags.writeable = False
    once, again = (task(broadcast, cohort, state, SEED) for _ in range(2))
    for name, table in once.update.tensors.items():
        np.testing.assert_array_equal(table, again.update.tensors[name])
    for name, rows in once.state.items():
        np.testing.assert_array_equal(rows, again.state[name])


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_published", [False, True])
def test_an_encoder_reads_another_history_as_the_dense_one_does(read_published):
    config, data = settings(read_published=read_published), rated()
    engine, _ = run(config, data)
    kept = engine.devices.kept("run")
    less = data.where(np.arange(len(data)) % 3 > 0)
    broadcast = broadcast_of(config)
    reader = PersonalFRRecommender(model_of(config), config, SEED, kept)
    codes = reader.codes(np.arange(N_USERS), less)
    decoded = decode(common_of(broadcast), torch.from_numpy(codes))
    for user in range(N_USERS):
        encoder = encoder_of(user, kept, config, dense_row(data, user, broadcast))
        dense = DenseAutoEncoder({**encoder, **common_of(broadcast)}, read_published)
        row = dense_row(less, user, broadcast)
        assert_close(codes[user], dense.code(row).detach())
        assert_close(decoded[user], dense(row).detach())


def test_who_joins_gets_the_encoder_that_training_against_a_frozen_decoder_gives():
    config, data = settings(join_steps=3, clip=1e3, dropout=0.0), rated()
    broadcast = broadcast_of(config)
    codes = PersonalFRRecommender(model_of(config), config, SEED).codes(np.arange(N_USERS), data)
    for user in range(N_USERS):
        start = {**initial(ENCODER, N_ITEMS, config.widths, SEED), **common_of(broadcast)}
        model = DenseAutoEncoder(start, config.read_published)
        sgd = torch.optim.SGD([p for n, p in model.p.items() if n.startswith(("input", "code"))], lr=config.rate)
        row, own = dense_row(data, user, broadcast), torch.from_numpy(data.items_of(user))
        for _ in range(3):
            sgd.zero_grad()
            (model(row)[own] - row[own]).square().mean().backward()
            sgd.step()
        assert_close(codes[user], model.code(row).detach(), rtol=1e-4)


def test_who_took_part_reads_by_the_encoder_kept_and_all_others_by_one_made_for_the_occasion():
    config, data = settings(), rated()
    engine, took_part = engine_on(data), np.array([1, 4, 7])
    engine.run(spec_of(config), broadcast_of(config), took_part, seed=SEED)
    kept, everybody = engine.devices.kept("run"), np.arange(N_USERS)
    assert kept.clients.tolist() == took_part.tolist()
    mixed = PersonalFRRecommender(model_of(config), config, SEED, kept).codes(everybody, data)
    made = PersonalFRRecommender(model_of(config), config, SEED, NOTHING_KEPT).codes(everybody, data)
    others = np.setdiff1d(everybody, took_part)
    np.testing.assert_array_equal(mixed[others], made[others])
    assert (np.abs(mixed[took_part] - made[took_part]).max(axis=1) > 1e-3).all()
    for user in took_part:
        encoder = encoder_of(user, kept, config, dense_row(data, user, broadcast_of(config)))
        dense = DenseAutoEncoder({**encoder, **common_of(broadcast_of(config))}, config.read_published)
        assert_close(mixed[user], dense.code(dense_row(data, user, broadcast_of(config))).detach())


def test_a_history_without_ratings_is_refused_by_a_model_for_ratings():
    config, data = settings(), rated()
    engine, _ = run(config, data)
    reader = RatingRecommender(model_of(config), config, SEED, engine.devices.kept("run"))
    with pytest.raises(DataError, match=r"^the model predicts ratings, and this history has none"):
        reader.ratings(np.arange(2), rated(rated=False))


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
@pytest.mark.parametrize("mode", ["personal", "fedavg"])
@pytest.mark.parametrize("compress", [True, False])
def test_bytes_are_those_of_the_arrays_that_a_client_alone_would_send(mode, compress, feedback):
    config, data = settings(mode=mode, compress=compress, feedback=feedback), rated(rated=feedback == "explicit")
    together, _ = run(config, data, rounds=1)
    up = down = 0
    for user in range(N_USERS):
        alone = engine_on(data).run(spec_of(config), broadcast_of(config), np.array([user]), seed=SEED)
        sums, sent, row_numbers = alone.update.tensors, [], 0
        for name, table in sums.items():
            layer = name.split(".")[0]
            by_item = compress and (name in ("input.weight", "output.weight", "output.bias") or "holders" in name)
            rows = np.flatnonzero(sums[f"{layer}.holders"]) if by_item else slice(None)
            sent.append(table[rows].tobytes())
            if by_item and name.endswith("weight"):
                sent.append(rows.astype(np.int32).tobytes())
            if "holders" in name:
                row_numbers += 4 * len(table[rows]) * (2 if compress else 1)
        assert alone.bytes_up == sum(map(len, sent)) == payload_bytes(alone.update)
        assert alone.bytes_down == alone.bytes_up - row_numbers + 8  # no holders and no row numbers; mean and rate
        up, down = up + alone.bytes_up, down + alone.bytes_down
    assert (together.traffic.up, together.traffic.down) == (up, down)
    if not compress:
        assert down == N_USERS * broadcast_of(config).nbytes


def test_a_compressed_message_is_a_small_part_of_a_whole_model():
    personal, fedavg = (
        PersonalFRConfig(form="paper"),
        PersonalFRConfig.model_validate({"mode": "fedavg", "compress": False}),
    )
    rows = {"output": np.array([238]), "input": np.array([119])}
    small, large = (bytes_sent(training_update(config, 3706), rows).item() for config in (personal, fedavg))
    assert small < 0.05 * large
    fetched, whole = (bytes_fetched(config, 3706, rows, numbers=2).item() for config in (personal, fedavg))
    assert fetched < 0.05 * whole


@pytest.mark.parametrize("rating", [True, False])
def test_a_census_counts_and_sends_what_it_says(rating):
    data = rated(rated=rating)
    config = settings(feedback="auto")
    facts = census(engine_on(data), config, N_ITEMS, "run", SEED)
    assert facts.feedback == ("explicit" if rating else "implicit")
    assert facts.support.tolist() == data.item_degrees().tolist()
    if rating:
        assert float(facts.mean) == pytest.approx(data.ratings.mean(), rel=1e-6)
        assert (float(facts.lowest), float(facts.highest)) == (data.ratings.min(), data.ratings.max())
    spec = task_spec(config, NAME, "census", "run", census_update(N_ITEMS, 3))
    places = Broadcast(-3, {"places": np.array([0, 3, 10], dtype=np.float32)})
    for user in range(N_USERS):
        result = engine_on(data).run(spec, places, np.array([user]), seed=SEED)
        held = len(data.items_of(user))
        assert result.bytes_up == payload_bytes(result.update) == 4 * 8 + 2 * 3 * 8 + 16 * held
        assert result.update.tensors["support"].sum() == held
