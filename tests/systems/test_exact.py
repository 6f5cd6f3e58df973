"""Exact on data with a known answer, its scores against the textbook's, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError, FederationError
from retract.evaluation.ranking import evaluate
from retract.federation import Broadcast, LocalEngine, payload_bytes
from retract.models.gram import gram_of
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of
from retract.systems.base import new_run, task_spec
from retract.systems.exact.config import TERM, term_update
from retract.systems.system import System
from tests.samples import checkerboard, numbered_catalog, random_interactions
from tests.systems.exact_forms import FORMS, assert_same_tables, copied, exact, reader, train, unlearn

TRAIN, TEST = checkerboard()
DATA = random_interactions(1, n_users=50, n_items=60)


def recall(system: System, trained, devices: MemoryDevices, users=None) -> float:
    found = evaluate(reader(system, trained, devices), devices.interactions, TEST)
    return found.mean(users)["recall@20"]


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 1])
@pytest.mark.parametrize("form", FORMS)
def test_it_finds_the_held_out_items(form, share):
    system = exact(form, head=20)
    trained, devices = train(system, TRAIN, share)
    assert recall(system, trained, devices) > 0.95


@pytest.mark.parametrize("form", FORMS)
def test_a_user_who_shares_nothing_is_recommended_from_a_private_history(form):
    system, keeping = exact(form, head=20), np.arange(6)
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


def textbook_ease(data: Interactions, head: np.ndarray, exponent: float, ridge: float) -> np.ndarray:
    """B of Steck's Algorithm 1, with weighted users."""
    full = data.csr().toarray().astype(float)
    weights = np.maximum(full.sum(1), 1) ** -exponent
    part = full[:, head]
    inverse = np.linalg.inv(part.T @ (weights[:, None] * part) + ridge * np.eye(len(head)))
    matrix = inverse / -np.diag(inverse)
    np.fill_diagonal(matrix, 0)
    return matrix


def textbook_scores(form: str, shared: Interactions, history: np.ndarray, system: System) -> np.ndarray:
    config, full, degrees = system.config, shared.csr().toarray().astype(float), np.maximum(shared.item_degrees(), 1)
    head = np.arange(shared.n_items)
    if form == "ease":
        return history @ textbook_ease(shared, head, config.ease_exponent, config.ridge)
    gram = full.T @ (np.maximum(full.sum(1), 1)[:, None] ** -config.filter_exponent * full)
    scores = history * degrees**-config.source_exponent @ gram * degrees**-config.target_exponent
    if form == "block":
        head = np.sort(np.argsort(-shared.item_degrees(), kind="stable")[: config.head])
        scores *= config.blend
        scores[:, head] += history[:, head] @ textbook_ease(shared, head, config.ease_exponent, config.ridge)
    return scores


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_the_textbooks_for_few_users_and_for_many(form):
    system = exact(form, exponent=0.7)
    trained, devices = train(system, DATA, share=0.6)
    model, history = reader(system, trained, devices), devices.interactions
    want = textbook_scores(form, trained.shared, history.csr().toarray().astype(float), system)
    many, order = model.scores(np.arange(50), history), np.random.default_rng(0).permutation(50)
    few = [model.scores(part, history) for part in np.split(order, 5)]
    np.testing.assert_allclose(many, want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.concatenate(few), want[order], rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize("settings", [{"form": "filter"}, {"form": "block"}, {"form": "auto", "memory_gb": 1e-6}])
def test_private_interactions_cannot_count_where_the_sum_would_be_too_large(settings):
    with pytest.raises(ConfigError, match=r"count_private sums dense matrices, and 60 items are too many"):
        train(exact(**settings, count_private=True), DATA)


# --- forms, refusals and requests that change nothing -----------------------------------------------------------------


def test_auto_takes_ease_where_its_memory_suffices_and_says_why():
    needed = 24 * 60**2 / 1e9
    for gigabytes, form, word in ((needed, "ease", "at most"), (0.99 * needed, "filter", "more than")):
        trained, _ = train(exact("auto", memory_gb=gigabytes), DATA)
        assert trained.log[0]["form"] == form
        assert f"EASE of 60 items takes 8.64e-05 GB, {word} the {gigabytes:g} GB" in trained.log[0]["why"]
        assert_same_tables(trained.model, train(exact(form), DATA)[0].model)
        assert trained.memory.nbytes == 0


def test_a_catalog_that_outgrows_ease_gets_the_other_form():
    system = exact("auto", memory_gb=24 * 60**2 / 1e9)
    trained, devices = train(system, DATA)
    new = Interactions.of(numbered_catalog(50, 61), [0], [60])
    larger = system.server.extend(trained, new, engine_of(system, devices), seed=0)
    assert (trained.log[0]["form"], larger.log[-1]["form"]) == ("ease", "filter")
    assert_same_tables(larger.model, train(system, DATA.over(new.catalog) | new)[0].model)


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
