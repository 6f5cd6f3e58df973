"""An audit that cannot fail is worth nothing: it must see canaries, fail what forgets nothing, pass the oracle."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from retract.audit.attacks import Seen
from retract.audit.audit import Auditor, Cost, _farthest, distance, require_oracle, train_oracle
from retract.audit.case import Case, Version
from retract.audit.cell import Cell, train, unlearn
from retract.audit.shadows import Shadows, imitations
from retract.data import Interactions, Sharing
from retract.errors import ConfigError
from retract.systems.exact import Exact, ExactConfig
from retract.systems.fedshare import FedShare, FedShareConfig
from tests.audit.worlds import clustered
from tests.systems.preparing import registered

SYSTEM = Exact(ExactConfig(ridge=5.0))
FEDSHARE = FedShare(FedShareConfig(dimension=16, rounds=20))
COST = Cost(1.0, 0)


def planted(system="exact", forget="canary:150", kind="unshare", seed=0, settings=None, methods=("own", "naive")):
    cell = Cell(system, settings or {"ridge": "5"}, forget, kind, 1.0, seed)
    return {row["method"]: row for row in cell.run(clustered(), methods)}


@pytest.fixture(scope="module")
def canaries():
    return planted(methods=("own", "naive", "retrain"))


def test_the_attack_sees_planted_canaries_before(canaries):
    assert canaries["own"]["attack_auc_before"] >= 0.8
    assert canaries["own"]["attack_auc_before"] > canaries["own"]["score_auc_before"] - 0.02


def test_the_naive_baseline_fails(canaries):
    naive = canaries["naive"]
    assert naive["attack_auc_after"] == naive["attack_auc_before"]
    assert naive["attack_auc_after"] - naive["attack_auc_oracle"] > 0.2
    assert naive["ks_after"] > 0.3
    assert naive["parameter_distance"] > 1e-3


def test_the_oracle_passes(canaries):
    oracle = canaries["retrain"]
    assert oracle["attack_auc_after"] == oracle["attack_auc_oracle"]
    assert oracle["ks_after"] == oracle["parameter_distance"] == 0
    assert abs(oracle["attack_auc_oracle"] - 0.5) < 0.15


def test_forgetting_exactly_passes_as_the_oracle_does(canaries):
    own = canaries["own"]
    assert own["parameter_distance"] <= 1e-9
    assert own["attack_auc_after"] == pytest.approx(own["attack_auc_oracle"], abs=1e-3)
    assert own["recall@20_after"] == pytest.approx(own["recall@20_oracle"], abs=1e-6)
    assert own["relearn_rounds_after"] == 1


def test_who_holds_both_versions_sees_what_went_between_them(canaries):
    assert canaries["own"]["difference_auc"] > 0.9
    assert canaries["naive"]["difference_auc"] == 0.5


def test_only_the_systems_own_unlearning_is_prepared_and_only_once(monkeypatch):
    system = registered(monkeypatch, SYSTEM.config)
    rows = planted("preparing", methods=("own", "naive", "retrain"))
    # The model, the oracle, two shadow models, and retraining.
    assert system.calls == {"train": 5, "prepare": 1, "unlearn": 1}
    assert rows["own"]["prepare_seconds"] >= 0 == rows["naive"]["prepare_seconds"] == rows["retrain"]["prepare_seconds"]
    assert [rows[name]["memory_bytes"] for name in rows] == [40, 0, 0]
    assert rows["own"]["parameter_distance"] <= 1e-9
    assert all(row.keys() == rows["own"].keys() for row in rows.values())


def test_a_pre_trained_encoder_is_audited_as_every_other_way_to_forget():
    small = {"dimension": "8", "epochs": "30", "layers": "2", "pretrain_steps": "5"}
    rows = planted("unlearnrec", settings=small, methods=("own", "naive", "retrain"))
    assert rows["own"].keys() == rows["naive"].keys() == rows["retrain"].keys()
    assert rows["own"]["prepare_seconds"] > 0 == rows["naive"]["prepare_seconds"]
    assert rows["own"]["memory_bytes"] > rows["naive"]["memory_bytes"]
    assert rows["own"]["attack_auc_after"] != rows["naive"]["attack_auc_after"]


def test_what_preparing_took_stands_beside_training_and_in_no_speedup(monkeypatch):
    system = registered(monkeypatch, SYSTEM.config)
    prepare = system.prepare

    def slow(*arguments, **named):
        time.sleep(0.2)
        return prepare(*arguments, **named)

    monkeypatch.setattr(system, "prepare", slow)
    row = planted("preparing", methods=("own",))["own"]
    assert row["prepare_seconds"] >= 0.2
    assert row["speedup"] == pytest.approx(row["oracle_seconds"] / row["seconds"], rel=1e-3)


def case_of(system=SYSTEM, kind="unshare", seed=0, share=1.0):
    data = clustered()
    held, test = data.split(seed=0)
    before, _ = train(system, Sharing.by_ratio(held, share), seed)
    return Case(system, kind, before.clients.sharing.shared.of_users(np.arange(12)), before, test, seed)


def test_a_random_model_hides_everything_and_fails_by_its_utility():
    case = case_of()
    after, _ = unlearn(SYSTEM, case.before, "unshare", case.forget, 0)
    random = torch.eye(90, dtype=torch.float64) + 0.1 * torch.from_numpy(np.random.default_rng(0).random((90, 90)))
    broken = Version(replace(after.trained, model={"inverse": random + random.T}), after.clients)
    found = Auditor(case, train_oracle(case, after.clients)).judge(broken, COST)
    assert found.oracle is not None
    assert found.after.score_auc < 0.6
    assert found.after.recall < 0.7 * found.oracle.recall
    assert found.ks_after > 0.2


def test_forgetting_too_much_is_a_distance_too():
    """A model that pushes the forgotten to the bottom is as far from the oracle as one that keeps them on top."""
    case = case_of()
    after, _ = unlearn(SYSTEM, case.before, "unshare", case.forget, 0)

    class Pushing(Exact):
        def recommender(self, trained, clients):
            model, forget = super().recommender(trained, clients), case.forget

            class Pushed:
                def scores(self, users, history):
                    return model.scores(users, history) - torch.from_numpy(10 * forget.csr()[users].toarray())

            return Pushed() if trained is after.trained else model

    pushing = replace(case, system=Pushing(SYSTEM.config))
    found = Auditor(pushing, train_oracle(case, after.clients)).judge(after, COST)
    assert found.after.score_auc < 0.1
    assert found.ks_recommendations_after > 0.5
    assert found.after.mi_ng > 1


def test_what_is_given_as_oracle_must_be_one():
    case = case_of()
    after, _ = unlearn(SYSTEM, case.before, "unshare", case.forget, 0)
    oracle, _ = train_oracle(case, after.clients)
    require_oracle(case, after, oracle)
    other = Exact(ExactConfig(ridge=6.0))
    for wrong, message in (
        (case.before, "other data"),
        (train(SYSTEM, after.clients.sharing, 1)[0], "another seed"),
        (train(other, after.clients.sharing, 0)[0], "another configuration"),
        (train(FEDSHARE, after.clients.sharing, 0)[0], "another system"),
    ):
        with pytest.raises(ConfigError, match=message):
            require_oracle(case, after, wrong)


def test_an_empty_forget_set_is_refused():
    case = case_of()
    with pytest.raises(ConfigError, match="empty"):
        replace(case, forget=Interactions.empty(case.forget.catalog))


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_fedshare_comes_to_the_oracle_where_doing_nothing_does_not(kind):
    rows = planted("fedshare", kind=kind, settings={"rounds": "20", "dimension": "16", "erase_rounds": "20"})
    own, naive = rows["own"], rows["naive"]
    assert naive["attack_auc_after"] - naive["attack_auc_oracle"] > 0.1
    assert abs(own["attack_auc_after"] - own["attack_auc_oracle"]) < 0.05
    assert own["ks_after"] < 0.5 * naive["ks_after"]


def test_after_unsharing_what_devices_keep_is_not_attacked_and_after_erasing_it_is():
    case = case_of(FEDSHARE, share=0.5)
    assert "devices" not in case.before.views(FEDSHARE, "unshare")
    assert "devices" in case.before.views(FEDSHARE, "erase")


def test_shadow_models_never_learn_of_the_forget_set_and_each_lacks_what_the_other_knows():
    case = case_of(share=0.5)
    retained = case.before.clients.sharing.unshare(case.forget)
    pair = imitations(retained, "unshare", case.forget, 0)
    assert pair is not None
    first, second = (each.sharing for each in pair)
    one, two = (each.withdrawn for each in pair)
    for sharing in (first, second):
        assert not len(sharing.shared & case.forget)
    assert not len(one & two)
    assert len(one & first.shared) == len(one) > 0
    assert not len(one & second.shared)
    assert not len(two & first.shared)
    assert len(two & second.shared) == len(two) > 0
    shadows = Shadows.trained(SYSTEM, "unshare", pair, case.test, 0)
    assert shadows is not None
    assert {version.trained.seed for version in shadows.versions}.isdisjoint({case.before.trained.seed})


def test_there_are_no_shadow_models_where_nothing_is_left_to_imitate_with():
    case = case_of()
    everything = case.before.clients.sharing.shared
    assert imitations(case.before.clients.sharing.unshare(everything), "unshare", everything, 0) is None


def test_there_are_no_shadow_models_where_nothing_can_be_attacked_or_one_user_would_be_left():
    case = case_of()
    retained = case.before.clients.sharing.erase(case.forget)
    pair = imitations(retained, "erase", case.forget, 0)
    everything = Interactions.of(case.test.catalog, np.repeat(np.arange(120), 90), np.tile(np.arange(90), 120))
    assert Shadows.trained(SYSTEM, "erase", pair, everything, 0) is None
    lonely = Sharing.by_ratio(retained.shared.of_users([50, 51]), 1.0)
    pair = imitations(lonely, "erase", case.forget, 0)
    assert pair is not None
    assert Shadows.trained(SYSTEM, "erase", pair, case.test, 0) is None


def test_the_distance_over_all_views_compares_each_with_its_like():
    """A model without a table, as where nothing is shared any more, has fewer views than the one before."""
    places = np.linspace(0, 1, 40)
    one = Seen(
        ("recommendations", "shared items", "devices"),
        np.zeros((2, 3, 40)),
        np.stack([[places, places**9, places]] * 2),
    )
    two = Seen(("recommendations", "devices"), np.zeros((2, 2, 40)), np.stack([[places, places]] * 2))
    assert _farthest(one, two) == 0


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_distance_of_a_single_pair_warns_of_nothing():
    one, two = (Seen(("all",), np.full((2, 1, 1), rank), np.full((2, 1, 1), rank)) for rank in (0.2, 0.7))
    assert _farthest(one, two) == 1


def test_held_out_items_are_no_non_members_even_where_they_are_not_evaluated_on():
    case = case_of(kind="erase")
    nothing = Interactions.empty(case.test.catalog)
    for one in (case, replace(case, test=nothing, held_out=case.test)):
        others = Interactions.of(case.test.catalog, one.targets.users, one.targets.others)
        assert not len(others & case.test)


def test_the_distance_of_parameters_is_relative_and_none_between_shapes():
    one, other = {"a": torch.tensor([3.0, 4.0])}, {"a": torch.tensor([3.0, 5.0])}
    assert distance(one, one) == 0
    assert distance(other, one) == pytest.approx(0.2)
    assert distance(one, {"a": torch.zeros(3)}) is None
    assert distance(one, {"b": torch.zeros(2)}) is None


def test_the_same_case_gives_the_same_figures():
    timed = {"seconds", "oracle_seconds", "speedup", "train_seconds", "prepare_seconds"}
    one, two = (
        {name: value for name, value in planted(methods=("own",))["own"].items() if name not in timed} for _ in range(2)
    )
    assert one == two
