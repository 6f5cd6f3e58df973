"""Unlikely edges: new, keyed, as many as asked for, and what a model of the clean data would never recommend."""

from functools import reduce
from operator import or_

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.auditing.cell import Cell, _imitation, train
from retract.auditing.forget_sets import PLANTED, ForgetSet
from retract.auditing.unlikely import DIMENSION, unlikely_edges
from retract.data import Interactions, Sharing, load
from retract.errors import ConfigError
from retract.evaluation.ranking import evaluate
from retract.models.spectral import spectral_embeddings
from retract.stores.local import reader_of
from retract.systems.registry import make_system
from tests.auditing.worlds import clustered
from tests.samples import numbered_catalog, random_interactions


def spectral_scores(shared, edges, seed):
    table = spectral_embeddings(shared, DIMENSION, 1.0, seed)
    return (table[edges.users] * table[shared.n_users + edges.items]).sum(axis=1)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), amount=st.integers(1, 60), density=st.floats(0.1, 0.6))
def test_they_are_new_exactly_so_many_and_paired_with_others_that_are_new(seed, amount, density):
    shared, taken = random_interactions(seed % 97, 20, 30, density), random_interactions(seed % 89 + 1, 20, 30, density)
    taken = taken | shared
    if amount > ((30 - taken.user_degrees()) // 2)[shared.active_users()].sum():
        return
    planted, decoys = unlikely_edges(shared, taken, amount, seed)
    assert len(planted) == amount
    assert np.array_equal(planted.users, decoys.users)
    assert not len((planted | decoys) & taken)
    assert not len(planted & decoys)
    assert np.isin(planted.users, shared.active_users()).all()
    again = unlikely_edges(shared, taken, amount, seed)
    assert again == (planted, decoys)


def test_another_seed_gives_other_edges():
    shared = random_interactions(0, 40, 50, 0.3)
    one, two = (unlikely_edges(shared, shared, 30, seed)[0] for seed in (0, 1))
    assert len(one & two) < 15


def test_together_with_their_non_members_they_are_their_users_lowest_scores():
    shared, avoid = random_interactions(0, 40, 50, 0.3), random_interactions(1, 40, 50, 0.2)
    taken = shared | avoid
    planted, decoys = unlikely_edges(shared, taken, 100, 5)
    free = Interactions.of(shared.catalog, np.repeat(np.arange(40), 50), np.tile(np.arange(50), 40)) - taken
    found = planted | decoys
    scores = spectral_scores(shared, free, 5)
    for user in found.active_users():
        own = free.users == user
        lowest = np.argsort(scores[own])[: len(found.items_of(user))]
        assert set(free.items[own][lowest]) == set(found.items_of(user))


def test_a_model_of_the_clean_data_finds_them_less_likely_than_canaries_and_their_non_members_as_likely():
    held, test = clustered().split(seed=0)
    sharing = Sharing.by_ratio(held, 1.0)
    edges = {form: ForgetSet.parse(f"{form}:200").planted(sharing, test, 0).shared - held for form in PLANTED}
    scores = {form: spectral_scores(held, one, 0) for form, one in edges.items()}
    assert np.quantile(scores["unlikely"], 0.9) < np.quantile(scores["canary"], 0.1)
    decoys = spectral_scores(held, ForgetSet.parse("unlikely:200").decoys(sharing, test, 0), 0)
    spread = scores["canary"].std()
    assert abs(decoys.mean() - scores["unlikely"].mean()) < 0.1 * spread


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_the_attack_sees_them_before_and_cannot_tell_them_from_their_like_afterwards(kind):
    cell = Cell("exact", {"ridge": "5"}, "unlikely:150", kind, 1.0, 0, batches=(5,))
    own, naive = cell.run(clustered(), ["own", "naive"])
    assert own["attack"] == "learned"
    assert own["attack_auc_before"] >= 0.8
    assert abs(own["attack_auc_oracle"] - 0.5) < 0.1
    assert own["attack_auc_after"] == pytest.approx(own["attack_auc_oracle"], abs=1e-3)
    assert naive["attack_auc_after"] == naive["attack_auc_before"]
    assert own["difference_auc_5"] > 0.9


def accuracy(sharing, test, settings):
    system = make_system("exact", settings)
    clean, _ = train(system, sharing, 0)
    recommender = reader_of(system, clean.trained, clean.devices)
    return evaluate(recommender, sharing.everything, test, k=20).recall.mean()


def test_the_oracle_of_an_erasure_is_the_model_of_the_clean_data():
    """Edges that are only unshared stay in their users' own histories, for the oracle too."""
    cell = Cell("exact", {"ridge": "5"}, "unlikely:150", "erase", 1.0, 0)
    (row,) = cell.run(clustered(), ["own"])
    base, _, _, test = cell.drawn(clustered())
    assert row["recall@20_oracle"] == pytest.approx(accuracy(base, test, {"ridge": "5"}), 1e-5)
    assert row["recall@20_after"] == pytest.approx(row["recall@20_oracle"], abs=1e-6)


@pytest.mark.slow
def test_they_cost_more_accuracy_than_canaries_do(shared_data):
    held, test = load(shared_data / "ml-100k.parquet").split(seed=0)
    clean = Sharing.by_ratio(held, 1.0)
    canary, unlikely = (ForgetSet.parse(f"{form}:7000").planted(clean, test, 0) for form in PLANTED)
    left, attacked, whole = (accuracy(sharing, test, {"form": "ease"}) for sharing in (canary, unlikely, clean))
    assert attacked < left < whole
    assert whole - attacked > 0.02 * whole


def test_imitations_avoid_what_they_are_compared_with():
    cell = Cell("exact", {"ridge": "5"}, "unlikely:60", "erase", 1.0, 0)
    base, sharing, forget, test = cell.drawn(clustered())
    spec = ForgetSet.parse(cell.forget)
    decoys = spec.decoys(base, test, 0)
    taken = test | forget | decoys
    first, lacking = _imitation(spec, base, taken, 1)
    second, _ = _imitation(spec, base, taken | lacking, 2)
    assert first.decoys
    assert second.decoys
    parts = [forget, decoys, first.withdrawn, first.decoys, second.withdrawn, second.decoys]
    assert sum(map(len, parts)) == len(reduce(or_, parts)) == 360
    assert sharing.shared == base.shared | forget


def test_more_than_can_hide_are_refused():
    shared = Interactions.of(numbered_catalog(2, 6), [0, 0, 1], [0, 1, 1])
    planted, _ = unlikely_edges(shared, shared, 4, 0)
    assert planted.user_degrees().tolist() == [2, 2]
    with pytest.raises(ConfigError, match="only 4 unlikely edges have another to hide beside, and 5 are wanted"):
        unlikely_edges(shared, shared, 5, 0)
