"""PersonalFR in closed form: every formula against a slow one, what it learns, and that it forgets exactly."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from retract.auditing.cell import Cell
from retract.data import Dataset, Interactions, Sharing
from retract.errors import ConfigError, DataError, FederationError
from retract.evaluation.ranking import evaluate
from retract.evaluation.rating import rating_errors
from retract.federation import NOTHING_KEPT, Broadcast, Cohort, LocalEngine, NoDevices
from retract.federation.updates import payload_bytes
from retract.models.recommender import PredictsRatings
from retract.models.subspace import LARGEST_DIMENSION, dimension_for
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.base import task_spec
from retract.systems.personalfr import PERSONALFR, PersonalFRConfig
from retract.systems.personalfr.asking import census
from retract.systems.personalfr.config import NAME, RATING_STEP, rating_update
from retract.systems.personalfr.decoder import RatingServer, Start
from retract.systems.personalfr.paper import PaperServer
from retract.systems.personalfr.rating_step import RatingStep
from retract.systems.personalfr.solving import RatingDecoder
from tests.samples import checkerboard, numbered_catalog
from tests.systems.test_personalfr import assert_same, tastes, train

TRAIN, TEST = checkerboard()
N_USERS, N_ITEMS, D, LINKS = 14, 11, 4, 2
SMALL = {"dimension": 6, "links": 3, "degree_prior": 5.0}


def system_of(**settings: object):
    return PERSONALFR(PersonalFRConfig.model_validate({**SMALL, **settings}))


def rated(seed: int = 0, n_users: int = N_USERS) -> Interactions:
    draw = np.random.default_rng(seed)
    users, items = np.nonzero(draw.random((n_users, N_ITEMS)) < draw.uniform(0.1, 0.9, (n_users, 1)))
    return Interactions.of(numbered_catalog(n_users, N_ITEMS), users, items, draw.integers(1, 6, len(users)))


def unrated(data: Interactions) -> Interactions:
    return Interactions.of(data.catalog, data.users, data.items)


def tables(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    made = {
        "items": draw.normal(size=(N_ITEMS, LINKS)),
        "rating.items": draw.normal(size=(N_ITEMS, D)),
        "rating.bias": draw.normal(size=N_ITEMS),
        "rating.linked": draw.normal(size=(LINKS, D + 1)) * 0.1,
        "rating.noise": np.asarray(0.7),
        "rating.user_bias": np.asarray(0.3),
        "mean": np.asarray(3.2),
    }
    return {name: table.astype(np.float32) for name, table in made.items()}


def step_of(data: Interactions, clients=None, users=None):
    config = PersonalFRConfig(dimension=D, links=LINKS, feedback="explicit")
    spec = task_spec(config, NAME, RATING_STEP, "run", rating_update(config, N_ITEMS))
    users = np.arange(data.n_users) if users is None else np.array(users)
    return RatingStep(spec)(Broadcast(9, tables()), Cohort.of(data, users, clients), {}, 0)


def log_likelihood(data: Interactions, known: dict[str, np.ndarray]) -> float:
    """Of all ratings, every user's vector integrated out: one dense Gaussian a user, straight from the model."""
    total = 0.0
    ahead = np.pad(known["rating.items"].astype(float), ((0, 0), (0, 1)), constant_values=1)
    links = known["items"].astype(float) * N_ITEMS**0.5
    prior = np.diag(np.append(np.ones(D), float(known["rating.user_bias"])))
    for user in data.active_users():
        at = data.users == user
        own, ratings = data.items[at], data.ratings[at].astype(float)
        mean = links[own].sum(axis=0) / len(own) ** 0.5 @ known["rating.linked"]
        left = ratings - known["mean"] - known["rating.bias"][own] - ahead[own] @ mean
        covariance = ahead[own] @ prior @ ahead[own].T + float(known["rating.noise"]) * np.eye(len(own))
        total -= 0.5 * (left @ np.linalg.solve(covariance, left) + np.linalg.slogdet(covariance)[1])
    return total


# --- formulas ---------------------------------------------------------------------------------------------------------


def test_the_expected_rating_is_that_of_the_dense_gaussian():
    data, known = rated(), tables()
    predicted = RatingDecoder.among(known).ratings(Cohort.of(data, np.arange(N_USERS)))
    ahead = np.pad(known["rating.items"].astype(float), ((0, 0), (0, 1)), constant_values=1)
    prior = np.diag(np.append(np.ones(D), float(known["rating.user_bias"])))
    for user in range(N_USERS):
        at = data.users == user
        own = data.items[at]
        mean = (known["items"][own] * N_ITEMS**0.5).sum(axis=0) / max(len(own), 1) ** 0.5 @ known["rating.linked"]
        centre = known["mean"] + known["rating.bias"] + ahead @ mean
        joint = ahead @ prior @ ahead.T
        inner = joint[np.ix_(own, own)] + float(known["rating.noise"]) * np.eye(len(own))
        expected = centre + joint[:, own] @ np.linalg.solve(inner, data.ratings[at] - centre[own])
        np.testing.assert_allclose(predicted[user], expected, rtol=1e-4)


def test_a_round_sends_the_gradient_of_the_marginal_likelihood():
    data, sums = rated(), step_of(rated()).update.tensors
    for name, key in (("gradient", "rating.items"), ("bias", "rating.bias")):
        table = tables()[key].astype(np.float64)
        for place in [(0, 0), (3, 2), (10, 3)] if table.ndim == 2 else [(0,), (5,)]:
            ends = []
            for step in (1e-4, -1e-4):
                moved = table.copy()
                moved[place] += step
                ends.append(log_likelihood(data, {**tables(), key: moved}))
            expected = 0.7 * (ends[0] - ends[1]) / 2e-4  # times σ²
            assert float(sums[name][place]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_steps_climb_the_likelihood():
    data = rated(n_users=60)
    system = system_of(dimension=D, links=LINKS, rounds=1, start_pull=0.0, bias_prior=0.0, link_ridge=1e-3, step=0.5)
    found = []
    for rounds in (1, 4, 12):
        longer = PERSONALFR(system.config.model_copy(update={"rounds": rounds}))
        model = train(longer, data)[0].model
        found.append(log_likelihood(data, {**model, "items": model["items"][:, :LINKS]}))
    assert found[0] < found[1] < found[2]


def test_a_sum_over_clients_is_the_same_however_they_are_grouped():
    data = rated()
    whole = step_of(data).update
    alone = [step_of(data, users=[user]) for user in range(N_USERS)]
    for name, table in whole.tensors.items():
        together = np.sum([reply.update.tensors[name].astype(np.float64) for reply in alone], axis=0)
        np.testing.assert_allclose(table, together, rtol=1e-4, atol=1e-4)
    for reply in alone:
        assert reply.upload_bytes.tolist() == [payload_bytes(reply.update)]
    of_two = step_of(data, clients=np.arange(N_USERS) // 7)
    assert of_two.update.clients == 2
    held = [len(np.unique(data.items[data.users // 7 == client])) for client in range(2)]
    assert (np.diff(of_two.upload_bytes) == np.diff(held) * (12 + 4 * D)).all()
    assert_same(of_two.update.tensors, whole.tensors)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_it_predicts_ratings_and_finds_what_was_held_out():
    data, held = tastes()
    system = system_of(start_pull=1.0, rounds=20)  # of 40 users: nobody can tell tastes from what they touch
    trained, devices, engine = train(system, data)
    model = reader_of(system, trained, devices)
    assert isinstance(model, PredictsRatings)
    assert rating_errors(model, data, held).rmse < 0.8 < held.ratings.std()
    said = model.ratings(np.arange(40), data)
    assert 2 <= said.min() <= said.max() <= 5
    assert engine.traffic.rounds == 1 + 8 + 20
    trained, devices, engine = train(system, TRAIN)
    assert evaluate(reader_of(system, trained, devices), TRAIN, TEST, k=4).mean()["recall@4"] > 0.9
    assert engine.traffic.rounds == 1 + 8


@pytest.mark.parametrize("data", [unrated(tastes()[0]), tastes()[0]], ids=["implicit", "ratings"])
def test_clients_of_many_users_learn_the_same_model_and_who_joins_is_read_like_all(data):
    system, sharing = system_of(), Sharing.by_ratio(data, 0.5)
    one_each, silos = MemoryDevices(sharing), MemoryDevices(sharing.held_by(5, 0))
    models = [system.server.train(one.sharing.shared, engine_of(system, one), seed=0) for one in (one_each, silos)]
    for name, table in models[0].model.items():
        np.testing.assert_allclose(models[1].model[name], table, rtol=1e-3, atol=1e-4, err_msg=name)
    known = system.device.reader(models[0].published, one_each.kept(models[0].run))
    unknown = system.device.reader(models[0].published, NOTHING_KEPT)
    users = np.arange(5)
    np.testing.assert_array_equal(known.scores(users, data), unknown.scores(users, data))


def test_lists_of_ratings_weigh_both_how_likely_a_touch_is_and_how_liked():
    data, _ = tastes()
    lists = {taste: train(system_of(taste=taste), data)[:2] for taste in (0.0, 1e6)}
    scores = {t: reader_of(system_of(), *found) for t, found in lists.items()}
    users = np.arange(40)
    ratings = scores[0.0].ratings(users, data)
    by_rating = scores[1e6].scores(users, data)
    assert [np.corrcoef(a, b)[0, 1] > 0.999 for a, b in zip(by_rating, ratings, strict=True)] == [True] * 40
    assert np.corrcoef(scores[0.0].scores(users, data)[0], ratings[0])[0, 1] < 0.99


@pytest.mark.parametrize(
    "data",
    [
        Interactions.of(numbered_catalog(5, 4), [0, 1, 2, 3, 4], [0, 1, 2, 3, 0], [4] * 5),
        Interactions.of(numbered_catalog(3, 5), [0, 0, 1, 2], [0, 1, 1, 4], [1, 5, 3, 2]),
        Interactions.of(numbered_catalog(6, 1), np.arange(6), [0] * 6, [1, 2, 3, 4, 5, 5]),
        Interactions.of(numbered_catalog(4, 3), [0, 1, 2, 3], [0, 1, 2, 0]),
    ],
    ids=["one value, one rating each", "an item nobody touches", "one item", "no ratings"],
)
def test_little_data_trains_and_is_answered_within_the_scale(data):
    trained, devices, _ = train(system_of(), data)
    model = reader_of(system_of(), trained, devices)
    assert np.isfinite(model.scores(np.arange(data.n_users), data)).all()
    if data.ratings is not None:
        said = model.ratings(np.arange(data.n_users), data)
        assert data.ratings.min() <= said.min() <= said.max() <= data.ratings.max()


def test_a_history_without_ratings_is_refused_where_they_are_read():
    data, _ = tastes()
    trained, _, _ = train(system_of(), data)
    with pytest.raises(DataError, match="the model predicts ratings, and this history has none: give them"):
        system_of().server.recommender(trained).scores(np.arange(3), unrated(data))


# --- forgetting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [TRAIN, tastes()[0]], ids=["implicit", "ratings"])
@pytest.mark.parametrize("dimension", [6, 0], ids=["given", "found"])
def test_an_erasure_gives_the_oracles_model_bit_for_bit(data, dimension):
    system = system_of(dimension=dimension)
    trained, devices, _ = train(system, data, seed=3)
    gone = [1, 4, 7] if dimension else range(0, data.n_users, 2)
    after, withdrawal = withdraw(devices, "erase", data.of_users(gone))
    result = system.server.unlearn(trained, withdrawal, engine_of(system, after), seed=9)
    oracle = system.server.train(after.sharing.shared, engine_of(system, after), seed=3)
    assert_same(result.model, oracle.model)
    assert result.run != trained.run
    assert result.log[-1]["rounds"] == 8 + (0 if data.ratings is None else 6)
    assert len(result.shared.of_users(gone)) == 0
    assert not result.memory.tables
    assert (result.model["items"].shape[1] < trained.model["items"].shape[1]) == (not dimension)


def test_more_data_bear_a_larger_dimension():
    def borne(n: int, degree: int) -> int:
        return dimension_for(np.full(n, degree), n)

    assert borne(1_000, 3) < borne(1_000, 30) < borne(10_000, 30) < borne(10**6, 30) == LARGEST_DIMENSION
    assert borne(10, 0) == 1


def test_an_unshare_changes_nothing_for_nothing_shared_was_read():
    system = system_of()
    trained, devices, _ = train(system, TRAIN)
    after, withdrawal = withdraw(devices, "unshare", devices.sharing.shared.of_users([1, 2]))
    result = system.server.unlearn(trained, withdrawal, NoDevices(), seed=0)
    assert_same(result.model, trained.model)
    assert result.shared == after.sharing.shared


def test_an_erasure_that_reaches_nobody_is_refused():
    system = system_of()
    trained, devices, _ = train(system, TRAIN)
    _, withdrawal = withdraw(devices, "erase", TRAIN.of_users([1]))
    with pytest.raises(FederationError, match="none with an interaction can be reached from here: nothing was"):
        system.server.unlearn(trained, withdrawal, NoDevices(), seed=0)


@pytest.mark.slow
def test_the_audit_finds_no_difference_from_the_oracle():
    data, held = tastes()
    dataset = Dataset("tastes", data | held, np.isin(np.arange(len(data | held)), _places(held, data | held)), ())
    (row, *_) = Cell("personalfr", {key: str(value) for key, value in SMALL.items()}, "users:0.1", "erase", 0.5, 0).run(
        dataset, ("own",)
    )
    assert row["attack_auc_after"] == row["attack_auc_oracle"]


def _places(some: Interactions, of: Interactions) -> np.ndarray:
    return np.flatnonzero(some.contains(of))


def test_a_form_is_that_of_its_model():
    trained, _, _ = train(system_of(), TRAIN)
    paper = PERSONALFR(PersonalFRConfig(form="paper"))
    assert isinstance(paper.server, PaperServer)
    with pytest.raises(ConfigError, match="this model is of form other, and form is set to closed: use one of them"):
        PERSONALFR(PersonalFRConfig()).server.config_of(
            type(trained)(**{**trained.__dict__, "config": trained.config.model_copy(update={"form": "other"})})
        )


def test_references_are_of_the_papers_form():
    assert PersonalFRConfig.model_validate({"mode": "joint"}).form == "paper"
    with pytest.raises((ConfigError, ValidationError), match="mode=joint is of the paper's form only"):
        PersonalFRConfig.model_validate({"mode": "joint", "form": "closed"})


def test_a_round_in_which_nobody_answers_changes_nothing():
    data, _ = tastes()
    config, devices = system_of().config.resolved("explicit"), MemoryDevices(Sharing.by_ratio(data, 0.0))
    facts = census(LocalEngine(devices, system_of().device.tasks), config, data.n_items, "run", 0)
    server = RatingServer(Start(np.ones((data.n_items, config.dimension), dtype=np.float32), 1.0), facts, config)
    server.bias = server.bias + 1  # a step of empty sums would take it back
    before = server.kept
    server.apply(rating_update(config, data.n_items).zeros())
    assert_same(server.kept, before)
