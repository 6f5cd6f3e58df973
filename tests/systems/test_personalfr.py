"""PersonalFR end to end: what it learns, what it refuses, and what is left after a withdrawal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from retract.auditing.cell import Cell
from retract.data import Dataset, Interactions, Sharing
from retract.errors import ConfigError, DataError
from retract.evaluation.ranking import evaluate
from retract.evaluation.rating import rating_errors
from retract.federation import Clients, LocalEngine
from retract.models.recommender import PredictsRatings, recommend
from retract.systems.base import withdraw
from retract.systems.personalfr import PersonalFR, PersonalFRConfig
from retract.systems.registry import make_system
from tests.samples import checkerboard, numbered_catalog

TRAIN, TEST = checkerboard()
SMALL = {"hidden": 32, "code": 16, "rounds": 60, "participation": 0.5}


def system_of(**settings: object) -> PersonalFR:
    return PersonalFR(PersonalFRConfig.model_validate({**SMALL, **settings}))


def tastes(seed: int = 0) -> tuple[Interactions, Interactions]:
    """Even users rate even items 5 and odd ones 2, odd users the reverse; a part of the ratings is held out."""
    draw = np.random.default_rng(seed)
    users, items = np.nonzero(draw.random((40, 40)) < 0.5)
    ratings = np.where(users % 2 == items % 2, 5, 2)
    data = Interactions.of(numbered_catalog(40, 40), users, items, ratings)
    held = draw.random(len(data)) < 0.2
    return data.where(~held), data.where(held)


def train(system: PersonalFR, data: Interactions, share: float = 0.5, seed: int = 0):
    clients = Clients(Sharing.by_ratio(data, share))
    engine = LocalEngine(clients)
    return system.train(clients.sharing.shared, engine, seed=seed), clients, engine


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(table, other[name]) for name, table in one.items())


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["personal", "fedavg", "joint"])
def test_it_predicts_ratings_that_were_held_out(mode):
    data, held = tastes()
    system = system_of(mode=mode)
    trained, clients, _ = train(system, data)
    model = system.recommender(trained, clients)
    assert isinstance(model, PredictsRatings)
    assert rating_errors(model, data, held).rmse < 0.5 < held.ratings.std()
    assert trained.config.feedback == "explicit"
    assert (float(trained.model["lowest"]), float(trained.model["highest"])) == (2, 5)


@pytest.mark.parametrize("mode", ["personal", "fedavg", "joint"])
def test_it_finds_what_was_held_out_where_nothing_is_rated(mode):
    system = system_of(mode=mode)
    trained, clients, _ = train(system, TRAIN)
    assert evaluate(system.recommender(trained, clients), TRAIN, TEST, k=4).mean()["recall@4"] > 0.9
    assert trained.config.feedback == "implicit"


def test_the_seed_alone_decides_and_sharing_changes_nothing():
    system, (data, _) = system_of(rounds=5), tastes()
    one, again, all_shared, other = (
        train(system, data, share, seed)[0].model for share, seed in ((0.5, 1), (0.5, 1), (1, 1), (0.5, 2))
    )
    assert same(one, again)
    assert same(one, all_shared)
    assert not torch.allclose(one["output.weight"], other["output.weight"])


def test_the_server_keeps_no_encoder():
    trained, clients, _ = train(system_of(rounds=2), tastes()[0])
    assert trained.memory.nbytes == 0
    assert not any(name.startswith(("input", "code")) for name in trained.model)
    assert {"input.moved", "code.weight"} <= clients.state.keys()


def test_who_joins_after_training_is_served_almost_as_well():
    data, held = tastes()
    system = system_of()
    newcomers = np.arange(4)
    trained, _, _ = train(system, data - data.of_users(newcomers))
    model = system.recommender(trained, Clients(Sharing.by_ratio(data, 0)))
    assert rating_errors(model, data, held.of_users(newcomers)).rmse < 0.6


def test_what_few_have_rated_is_recommended_last():
    data, _ = tastes()
    rare = data.item_degrees() < np.median(data.item_degrees())
    system = system_of(rounds=5, min_support=int(np.median(data.item_degrees())))
    trained, clients, _ = train(system, data)
    unseen = data.where(np.zeros(len(data), dtype=bool))
    ranking = recommend(system.recommender(trained, clients), np.arange(40), unseen, 40).items
    assert (np.diff(rare[ranking].astype(int), axis=1) >= 0).all()


def test_a_user_whose_ratings_are_all_held_out_has_no_say_and_still_gets_a_list():
    data, _ = tastes()
    system = system_of(rounds=3)
    trained, clients, engine = train(system, data - data.of_users([5]))
    assert 5 not in engine.users
    scores = system.recommender(trained, clients).scores(np.array([5]), clients.interactions)
    assert torch.isfinite(scores).all()


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"feedback": "implicit"}, r"^implicit feedback is asked for and the data has ratings"),
        ({"highest": 4}, r"^\d+ ratings lie beyond 4, the highest of the scale: train with another highest=…$"),
        ({"lowest": 2.5}, r"^\d+ ratings lie beyond 2.5, the lowest of the scale"),
    ],
)
def test_ratings_that_are_not_what_is_said_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        train(system_of(**settings), tastes()[0])


def test_a_stated_scale_is_kept_and_one_beyond_what_is_looked_for_has_to_be_stated():
    data, _ = tastes()
    hundred = replace(data, ratings=data.ratings * 20)
    with pytest.raises(DataError, match=r"^ratings lie outside 0 to 10: state the scale's lowest=… and highest=…$"):
        train(system_of(rounds=2), hundred)
    trained, _, _ = train(system_of(rounds=2, lowest=0, highest=100), hundred)
    assert (float(trained.model["lowest"]), float(trained.model["highest"])) == (0, 100)


def test_a_scale_upside_down_is_refused():
    with pytest.raises(ConfigError, match="lowest is 5 and highest 1"):
        make_system("personalfr", {"lowest": "5", "highest": "1"})


def test_data_without_ratings_is_refused_where_they_are_asked_for():
    with pytest.raises(DataError, match=r"^explicit feedback is asked for and the data has no ratings: name their col"):
        train(system_of(feedback="explicit"), TRAIN)


def test_one_user_is_refused():
    with pytest.raises(DataError, match="fewer than two"):
        train(system_of(), TRAIN.of_users([3]))


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_unsharing_leaves_the_model_that_training_without_it_gives_bit_for_bit():
    system, (data, _) = system_of(rounds=5), tastes()
    trained, clients, _ = train(system, data)
    after, withdrawal = withdraw(clients, "unshare", trained.shared.of_users([1, 2]))
    engine = LocalEngine(after)
    new = system.unlearn(trained, withdrawal, engine, seed=9)
    oracle = system.train(after.sharing.shared, LocalEngine(Clients(after.sharing)), seed=0)
    assert same(new.model, oracle.model)
    assert new.shared == after.sharing.shared
    assert engine.traffic.updates == 0


def test_the_last_layer_stays_where_nobody_leaves():
    system, (data, _) = system_of(rounds=5), tastes()
    trained, clients, engine = train(system, data)
    trained = system.prepare(trained, engine, seed=0)
    after, nothing = withdraw(clients, "erase", data.of_users([]))
    new = system.unlearn(trained, nothing, LocalEngine(after), seed=0)
    for name, table in trained.model.items():
        torch.testing.assert_close(new.model[name], table, rtol=1e-5, atol=1e-6)


def test_what_was_not_prepared_to_forget_is_refused():
    system, (data, _) = system_of(rounds=2), tastes()
    trained, clients, _ = train(system, data)
    after, withdrawal = withdraw(clients, "erase", data.of_users([1]))
    with pytest.raises(
        ConfigError, match=r"^this personalfr was not prepared to forget what is erased: train it again$"
    ):
        system.unlearn(trained, withdrawal, LocalEngine(after), seed=0)


@pytest.mark.parametrize("mode", ["personal", "fedavg", "joint"])
def test_requests_add_up(mode):
    system, (data, _) = system_of(rounds=10, mode=mode), tastes()
    trained, clients, engine = train(system, data)
    trained = system.prepare(trained, engine, seed=0)
    for users in ([1, 2], [3]):
        clients, withdrawal = withdraw(clients, "erase", clients.interactions.of_users(users))
        trained = system.unlearn(trained, withdrawal, LocalEngine(clients), seed=0)
    (kept,) = system.prepare(trained, LocalEngine(clients), seed=0).memory.tensors.values()
    assert torch.equal(trained.memory.tensors["balance"], kept)
    assert trained.shared == clients.sharing.shared


def test_erasing_drops_the_encoders_of_those_who_ask_and_moves_the_decoder_without_them():
    system, (data, _) = system_of(rounds=10, participation=1.0), tastes()
    trained, clients, _ = train(system, data)
    trained = system.prepare(trained, LocalEngine(clients), seed=0)
    before = {name: table.clone() for name, table in trained.model.items()}
    after, withdrawal = withdraw(clients, "erase", data.of_users([1]))
    engine = LocalEngine(after)
    new = system.unlearn(trained, withdrawal, engine, seed=9)
    assert same(dict(trained.model), before)
    assert not torch.equal(new.model["output.weight"], before["output.weight"])
    assert torch.equal(new.model["support"], torch.from_numpy((data - data.of_users([1])).item_degrees()))
    assert not after.started[1]
    assert not after.state["code.weight"][1].any()
    assert engine.traffic.up[1] == 0


def test_an_audit_sees_that_erased_ratings_are_no_longer_known():
    data, held = tastes()
    everything = data | held
    noise = np.random.default_rng(1).integers(-1, 2, len(everything))
    noisy = replace(everything, ratings=everything.ratings + noise.astype(np.float32))
    dataset = Dataset("tastes", noisy, held.contains(noisy), ())
    given = {key: str(value) for key, value in SMALL.items()}
    cell = Cell("personalfr", given, "users:0.1", "erase", 0.5, 0)
    (row,) = cell.run(dataset, ["own"])
    before, after, oracle = (row[f"forgotten_rmse_{when}"] for when in ("before", "after", "oracle"))
    assert before < 0.9 * oracle
    assert after == pytest.approx(oracle, rel=0.1)
    assert row["rmse_after"] < 1.1 * row["rmse_oracle"]
    assert row["memory_bytes"] == 4 * data.n_items * (SMALL["hidden"] + 1)
