"""Exact on data with a known answer, its scores against the textbook's, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError, FederationError
from retract.evaluation.ranking import evaluate
from retract.federation import Broadcast, LocalEngine, payload_bytes
from retract.models.gram import UNIT, gram_of
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of
from retract.systems.base import Trained, new_run, task_spec
from retract.systems.exact import EXACT, ExactConfig, settling
from retract.systems.exact.closed_form import solve
from retract.systems.exact.config import TERM, term_update
from retract.systems.exact.reading import recommender_of
from retract.systems.system import System
from tests.samples import checkerboard, numbered_catalog, random_interactions
from tests.systems.exact_forms import FORMS, assert_same_tables, copied, exact, reader, train, unlearn

TRAIN, TEST = checkerboard()
DATA = random_interactions(1, n_users=50, n_items=60)


MANY = {form: {"neighbours": 25} if form == "neighbours" else {} for form in FORMS}
"""A group of `TRAIN` has 20 items."""


def recall(system: System, trained, devices: MemoryDevices, users=None) -> float:
    found = evaluate(reader(system, trained, devices), devices.interactions, TEST)
    return found.mean(users)["recall@20"]


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 1])
@pytest.mark.parametrize("form", FORMS)
def test_it_finds_the_held_out_items(form, share):
    system = exact(form, **MANY[form])
    trained, devices = train(system, TRAIN, share)
    assert recall(system, trained, devices) > 0.95


@pytest.mark.parametrize("form", FORMS)
def test_a_user_who_shares_nothing_is_recommended_from_a_private_history(form):
    system, keeping = exact(form, **MANY[form]), np.arange(6)
    trained, devices = train(system, TRAIN, np.r_[np.zeros(6), np.ones(34)])
    assert len(trained.shared.of_users(keeping)) == 0
    assert recall(system, trained, devices, keeping) > 0.95
    assert not system.server.recommender(trained).scores(keeping, trained.shared).any()


@pytest.mark.slow
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(1, 80),
    st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True),
)
def test_the_sum_over_clients_is_the_gram_matrix_however_they_are_split(seed, exponent, cohort, part):
    data = random_interactions(seed, n_users=20)
    system = exact("ease", exponent)
    devices = MemoryDevices(Sharing.by_ratio(data, 0.5))
    engine = LocalEngine(devices, system.device.tasks, cohort_interactions=cohort)
    users = np.intersect1d(part, devices.users)
    if not len(users):
        return
    spec = task_spec(system.config, "exact", TERM, new_run(), term_update(data.n_items))
    result = engine.run(spec, Broadcast(0, {}), users, seed=seed)
    want = gram_of(data.of_users(users), exponent).toarray()
    np.testing.assert_array_equal(result.update.tensors["gram"], want)
    assert result.update.clients == len(users)
    assert result.answered.tolist() == users.tolist()
    assert devices.states == {}
    degrees = data.user_degrees()[users]
    assert result.bytes_up == (6 * degrees * (degrees + 1)).sum()
    alone = engine.run(spec, Broadcast(1, {}), users[:1], seed=seed)
    assert alone.bytes_up == payload_bytes(alone.update)


def test_a_sum_that_some_devices_did_not_answer_to_is_refused():
    system = exact("ease", count_private=True)
    devices = MemoryDevices(Sharing.by_ratio(DATA, 0.5))
    engine = engine_of(system, devices, dropout=0.3)
    with pytest.raises(FederationError, match=r"of 50 users' devices did not answer, and the sum must be over all"):
        system.server.train(devices.sharing.shared, engine, seed=0)


# --- scoring ----------------------------------------------------------------------------------------------------------


def textbook_ease(data: Interactions, exponent: float, ridge: float) -> np.ndarray:
    """B of Steck's Algorithm 1, with weighted users."""
    full = data.csr().toarray().astype(float)
    weights = np.maximum(full.sum(1), 1) ** -exponent
    inverse = np.linalg.inv(full.T @ (weights[:, None] * full) + ridge * np.eye(data.n_items))
    matrix = inverse / -np.diag(inverse)
    np.fill_diagonal(matrix, 0)
    return matrix


def textbook_filter(shared: Interactions, history: np.ndarray, config: ExactConfig) -> np.ndarray:
    """x D^-β R̃ᵀR̃ D^β."""
    full = shared.csr().toarray().astype(float)
    by_user, by_item = (np.maximum(full.sum(axis) + config.filter_prior, 1) for axis in (1, 0))
    gram = full.T @ (full / by_user[:, None])
    if config.neighbours:
        np.fill_diagonal(gram, 0)
        places = np.argsort(-np.rint(gram / UNIT), axis=1, kind="stable")[:, config.neighbours :]
        np.put_along_axis(gram, places, 0, axis=1)
    normalised = by_item[:, None] ** -0.5 * gram * by_item**-0.5
    return history * by_item**-config.filter_beta @ normalised * by_item**config.filter_beta


def textbook_folding(shared: Interactions, history: np.ndarray, trained: Trained) -> np.ndarray:
    """Each user's ridge regression on the table's rows, one after the other."""
    config, table = trained.config, trained.model["items"].astype(float)
    degrees = np.maximum(shared.item_degrees(), 0.5) + config.degree_prior
    degrees = degrees / degrees.mean()
    read = degrees**-config.popularity / (degrees**-config.popularity).mean()
    mean, scores = len(shared) / len(shared.active_users()), []
    for own in history:
        ridge = config.fold_ridge * (own.sum() / mean) ** 0.5 * np.eye(table.shape[1])
        normal = config.unobserved * table.T @ table + (table * own[:, None]).T @ table + ridge
        scores.append(np.linalg.solve(normal, (own * read) @ table) @ table.T * degrees**config.popularity)
    return np.array(scores)


def textbook_scores(form: str, history: np.ndarray, trained: Trained) -> np.ndarray:
    shared, config = trained.shared, trained.config
    if form == "ease":
        return history @ textbook_ease(shared, config.ease_exponent, config.ridge)
    scores = textbook_filter(shared, history, config)
    if form != "spectral":
        return scores
    both = textbook_folding(shared, history, trained), scores
    first, second = ((part - part.mean(1, keepdims=True)) / part.std(1, keepdims=True) for part in both)
    return first + config.blend * second


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_the_textbooks_for_few_users_and_for_many(form):
    system = exact(form, exponent=0.7)
    trained, devices = train(system, DATA, share=0.6)
    model, history = reader(system, trained, devices), devices.interactions
    want = textbook_scores(form, history.csr().toarray().astype(float), trained)
    many, order = model.scores(np.arange(50), history), np.random.default_rng(0).permutation(50)
    few = [model.scores(part, history) for part in np.split(order, 5)]
    np.testing.assert_allclose(many, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(few), want[order], rtol=1e-4, atol=1e-5)


def test_the_subspace_is_that_of_the_normalised_graph_with_regularised_degrees():
    trained, _ = train(exact("spectral", dimension=5, steps=60), DATA)
    full = DATA.csr().toarray().astype(float)
    normalised = (full.sum(1, keepdims=True) + 2) ** -0.5 * full * (full.sum(0) + 2) ** -0.5
    leading = np.linalg.svd(normalised)[2][:5]
    table = trained.model["items"].astype(float)
    part = table / np.maximum(np.linalg.norm(table, axis=0), 1e-12)
    stands = np.linalg.norm(table, axis=0) > 0
    assert stands[0]
    np.testing.assert_allclose(np.abs((leading @ part).diagonal())[stands], 1, atol=1e-4)


# --- who counts -------------------------------------------------------------------------------------------------------


def test_where_private_interactions_count_the_model_is_the_same_whatever_is_shared():
    system = exact("ease", count_private=True)
    models = [train(system, DATA, share)[0].model for share in (0, 0.3, 1)]
    for model in models[1:]:
        assert_same_tables(model, models[0])
    everything_shared, _ = train(exact("ease"), DATA)
    assert_same_tables(models[0], everything_shared.model, inverse=1e-14)


def test_where_private_interactions_count_unsharing_changes_the_store_and_erasing_the_model():
    system = exact("ease", count_private=True)
    trained, devices = train(system, DATA, share=0.5)
    own, tables = devices.interactions.of_users([2, 3, 4]), copied(trained.model)
    unshared, after = unlearn(system, trained, devices, trained.shared & own)
    assert unshared.shared == trained.shared - own
    assert_same_tables(unshared.model, tables)
    assert "private interactions count too" in unshared.log[-1]["why"]
    erased, _ = unlearn(system, unshared, after, own, "erase")
    assert_same_tables(erased.model, train(system, DATA - own)[0].model)
    assert_same_tables(trained.model, tables)


def test_where_private_interactions_count_newcomers_are_summed_with_all_they_hold():
    system = exact("ease", count_private=True)
    trained, devices = train(system, DATA, share=0.5)
    catalog = numbered_catalog(52, 63)
    new = Interactions.of(catalog, [50, 50, 51, 51], [0, 61, 62, 3])
    shared, private = new.where(new.users == 50), new.where(new.users == 51)
    sharing = Sharing(devices.sharing.shared.over(catalog) | shared, devices.sharing.private.over(catalog) | private)
    larger = system.server.extend(trained, shared, engine_of(system, MemoryDevices(sharing)), seed=0)
    assert larger.shared == sharing.shared
    assert_same_tables(larger.model, train(system, sharing.everything)[0].model)


@pytest.mark.parametrize("form", ["filter", "spectral"])
def test_private_interactions_count_in_ease_alone(form):
    with pytest.raises(
        ConfigError, match=f"count_private sums dense matrices, for EASE alone: set form=ease, not {form}"
    ):
        exact(form, count_private=True)


# --- forms, refusals and requests that change nothing -----------------------------------------------------------------

OPEN = {"filter_beta": None, "blend": None, "popularity": None}


def test_auto_takes_what_ranks_best_or_the_filter_where_that_is_as_good_and_says_why(monkeypatch):
    for as_good, form, why in (
        (2.0, "spectral", "it ranks best what"),
        (0.0, "filter", "the filter alone ranks as well"),
    ):
        monkeypatch.setattr(settling, "AS_GOOD", as_good)
        trained, _ = train(exact("auto", **OPEN), TRAIN)
        assert trained.log[0]["form"] == trained.config.form == form
        assert trained.log[0]["why"].startswith(why)
        assert trained.memory.nbytes == 0
        again = trained.config
        assert settling.settled(TRAIN, again, 5) == (again, {"why": f"form is set to {form}"}, None)
        assert_same_tables(trained.model, train(EXACT(again), TRAIN)[0].model)


def test_where_the_spectral_form_would_be_slow_auto_takes_the_filter():
    trained, _ = train(exact("auto", slow_seconds=1e-9, **OPEN), TRAIN)
    assert trained.config.form == "filter"
    assert trained.log[0]["why"].endswith("s, and 1e-09 s are slow")


@pytest.mark.parametrize("form", ["filter", "spectral"])
def test_what_is_left_open_is_the_best_on_what_is_held_out(form):
    trained, _ = train(exact(form, **OPEN), TRAIN)
    own, judge = settling.judges_of(TRAIN, settling.HELD_OUT, settling.JUDGES, 0)
    train_part = TRAIN - judge
    assert 0 < len(judge.active_users()) <= 20
    assert own == TRAIN.of_users(judge.active_users())
    assert own & judge == judge

    def ndcg(**settings: float) -> float:
        config = trained.config.model_copy(update=settings)
        return evaluate(recommender_of(solve(train_part, config).model, config), train_part, judge).mean()["ndcg@20"]

    chosen = ndcg()
    if form == "filter":
        assert chosen == max(ndcg(filter_beta=beta) for beta in settling.BETAS)
    else:
        assert chosen == pytest.approx(max(ndcg(blend=blend) for blend in settling.BLENDS), abs=1e-9)


@pytest.mark.parametrize("neighbours", [0, 3])
def test_judges_withdraw_their_part_or_all_is_trained_again_and_both_are_the_same(neighbours, monkeypatch):
    found = []
    for many in (0, 10**9):
        monkeypatch.setattr(settling, "MANY", many)
        found.append(train(exact("auto", neighbours=neighbours, **OPEN), TRAIN)[0])
    assert found[0].config == found[1].config
    assert_same_tables(found[0].model, found[1].model)


def test_data_of_which_nothing_can_be_held_out_trains_too():
    data = Interactions.of(numbered_catalog(3, 3), [0, 1, 2], [0, 1, 1])
    trained, _ = train(exact("auto", **OPEN), data)
    assert (trained.config.form, trained.config.filter_beta, trained.config.blend) == ("spectral", 0.3, 0.0)
    assert trained.config.popularity == 0.25


@pytest.mark.parametrize("form", FORMS)
def test_nothing_shared_is_refused(form):
    with pytest.raises(DataError, match="nothing is shared"):
        train(exact(form), DATA, share=0)


@pytest.mark.parametrize("form", FORMS)
def test_what_the_server_never_held_changes_nothing_when_it_is_erased_or_shared_again(form):
    system = exact(form)
    trained, devices = train(system, DATA, share=0.5)
    erased, after = unlearn(system, trained, devices, devices.sharing.private.of_users([1, 2]), "erase")
    again = system.server.extend(trained, trained.shared.of_users([1, 2]), engine_of(system, after), seed=0)
    for same in (erased, again):
        assert same.shared == trained.shared
        assert_same_tables(same.model, trained.model)
