"""An audit that cannot fail is worth nothing: it must see canaries, fail what forgets nothing, pass the oracle."""

import time
from dataclasses import replace

import numpy as np
import pytest

from retract.auditing import timing
from retract.auditing.attacks import Seen
from retract.auditing.audit import Auditor, Cost, _farthest, distance, require_oracle, train_oracle
from retract.auditing.case import Case, Version
from retract.auditing.cell import Cell, train, unlearn
from retract.auditing.relearning import rounds_to_relearn
from retract.auditing.shadows import Shadows, imitations
from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError
from retract.systems.baselines import RECERASER
from retract.systems.exact import EXACT, ExactConfig
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.system import System
from tests.auditing.worlds import clustered
from tests.systems.preparing import registered

SYSTEM = EXACT(ExactConfig(form="ease", ridge=5.0))
SHARING = FEDSHARE(FedShareConfig(dimension=16))
COST = Cost(1.0, 0, 0)


def planted(system="exact", forget="canary:150", kind="unshare", seed=0, settings=None, methods=("own", "naive")):
    cell = Cell(system, settings or {"form": "ease", "ridge": "5"}, forget, kind, 1.0, seed)
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
    monkeypatch.setattr(timing, "LONG", 0.0)  # nothing is repeated to be timed
    rows = planted("preparing", methods=("own", "naive", "retrain"))
    # The model, the oracle, two shadow models, and retraining.
    assert system.calls == {"train": 5, "prepare": 1, "unlearn": 1}
    assert rows["own"]["prepare_seconds"] >= 0 == rows["naive"]["prepare_seconds"] == rows["retrain"]["prepare_seconds"]
    assert [rows[name]["memory_bytes"] for name in rows] == [40, 0, 0]
    assert rows["own"]["parameter_distance"] <= 1e-9
    assert all(row.keys() == rows["own"].keys() for row in rows.values())


@pytest.mark.slow
def test_a_pre_trained_encoder_is_audited_as_every_other_way_to_forget():
    small = {"dimension": "8", "epochs": "30", "layers": "2", "pretrain_steps": "5"}
    rows = planted("unlearnrec", settings=small, methods=("own", "naive", "retrain"))
    assert rows["own"].keys() == rows["naive"].keys() == rows["retrain"].keys()
    assert rows["own"]["prepare_seconds"] > 0 == rows["naive"]["prepare_seconds"]
    assert rows["own"]["memory_bytes"] > rows["naive"]["memory_bytes"]
    own, naive = rows["own"], rows["naive"]
    left = naive["attack_auc_after"] - naive["attack_auc_oracle"]
    assert left > 0.2
    assert abs(own["attack_auc_after"] - own["attack_auc_oracle"]) < 0.5 * left
    assert own["ks_after"] < 0.6 * naive["ks_after"]
    assert own["recall@20_after"] > 0.95 * own["recall@20_oracle"]  # so that no noise passes for forgetting


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
    return Case(system, kind, before.devices.sharing.shared.of_users(np.arange(12)), before, test, seed)


def test_a_random_model_hides_everything_and_fails_by_its_utility():
    case = case_of()
    after, _ = unlearn(SYSTEM, case.before, "unshare", case.forget, 0)
    random = np.eye(90) + 0.1 * np.random.default_rng(0).random((90, 90))
    broken = Version(replace(after.trained, model={"inverse": random + random.T}), after.devices)
    found = Auditor(case, train_oracle(case, after.devices.sharing)).judge(broken, COST)
    assert found.oracle is not None
    assert found.after.score_auc < 0.6
    assert found.after.recall < 0.7 * found.oracle.recall
    assert found.ks_after > 0.2


def test_forgetting_too_much_is_a_distance_too():
    """A model that pushes the forgotten to the bottom is as far from the oracle as one that keeps them on top."""
    case = case_of()
    after, _ = unlearn(SYSTEM, case.before, "unshare", case.forget, 0)

    class Pushed:
        def __init__(self, model):
            self.model = model

        def scores(self, users, history):
            return self.model.scores(users, history) - 10 * case.forget.csr()[users].toarray()

    class Pushing(type(SYSTEM.device)):
        def reader(self, model, kept):
            read = super().reader(model, kept)
            return Pushed(read) if model.tables is after.trained.model else read

    system = System(SYSTEM.type, SYSTEM.config)
    system.device = Pushing(SYSTEM.config)
    pushing = replace(case, system=system)
    found = Auditor(pushing, train_oracle(case, after.devices.sharing)).judge(after, COST)
    assert found.after.score_auc < 0.1
    assert found.ks_recommendations_after > 0.5
    assert found.after.mi_ng > 1


@pytest.mark.slow
def test_what_is_given_as_oracle_must_be_one():
    case = case_of()
    after, _ = unlearn(SYSTEM, case.before, "unshare", case.forget, 0)
    oracle, _ = train_oracle(case, after.devices.sharing)
    require_oracle(case, after, oracle)
    other = EXACT(ExactConfig(form="ease", ridge=6.0))
    for wrong, message in (
        (case.before, "other data"),
        (train(SYSTEM, after.devices.sharing, 1)[0], "another seed"),
        (train(other, after.devices.sharing, 0)[0], "another configuration"),
        (train(SHARING, after.devices.sharing, 0)[0], "another system"),
    ):
        with pytest.raises(ConfigError, match=message):
            require_oracle(case, after, wrong)


def test_an_empty_forget_set_is_refused():
    case = case_of()
    with pytest.raises(ConfigError, match="empty"):
        replace(case, forget=Interactions.empty(case.forget.catalog))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_fedshare_comes_to_the_oracle_where_doing_nothing_does_not(kind):
    rows = planted("fedshare", kind=kind, settings={"dimension": "16"})
    own, naive = rows["own"], rows["naive"]
    assert naive["attack_auc_after"] - naive["attack_auc_oracle"] > 0.1
    assert abs(own["attack_auc_after"] - own["attack_auc_oracle"]) < 0.05
    assert own["ks_after"] < 0.5 * naive["ks_after"]


@pytest.mark.slow
def test_after_unsharing_what_devices_keep_is_not_attacked_and_after_erasing_it_is():
    case = case_of(SHARING, share=0.5)
    assert "devices" not in case.before.views(SHARING, "unshare")
    assert "devices" in case.before.views(SHARING, "erase")


def test_shadow_models_never_learn_of_the_forget_set_and_each_lacks_what_the_other_knows():
    case = case_of(share=0.5)
    retained = case.before.devices.sharing.unshare(case.forget)
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
    everything = case.before.devices.sharing.shared
    assert imitations(case.before.devices.sharing.unshare(everything), "unshare", everything, 0) is None


def test_there_are_no_shadow_models_where_nothing_can_be_attacked_or_one_user_would_be_left():
    case = case_of()
    retained = case.before.devices.sharing.erase(case.forget)
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
    one, other = {"a": np.array([3.0, 4.0])}, {"a": np.array([3.0, 5.0])}
    assert distance(one, one) == 0
    assert distance(other, one) == pytest.approx(0.2)
    assert distance(one, {"a": np.zeros(3)}) is None
    assert distance(one, {"b": np.zeros(2)}) is None


def test_tables_of_whole_numbers_are_no_part_of_the_distance():
    """Codes that differ by a thousand are as different as codes that differ by one."""
    one = {"a": np.array([3.0, 4.0], dtype=np.float32), "codes": np.array([1, 2])}
    assert distance({**one, "codes": np.array([1, 1002])}, one) == 0
    assert distance({"a": one["a"]}, one) == 0
    assert distance({**one, "a": np.array([3.0, 5.0])}, one) == pytest.approx(0.2)


def test_attacks_of_other_packages_are_run_where_they_are_named(install):
    room = "tests.auditing.plugged"
    install("retract.attacks", second=f"{room}:SECOND", difference=f"{room}:DIFFERENCE")
    case = case_of()
    after, _ = unlearn(SYSTEM, case.before, "unshare", case.forget, 0)
    retained = after.devices.sharing
    pair = imitations(retained, "unshare", case.forget, 0)
    shadows, oracle = Shadows.trained(SYSTEM, "unshare", pair, case.test, 0), train_oracle(case, retained)
    usual = Auditor(case, oracle, shadows).judge(after, COST)
    assert usual.before.attacks == {}
    found = Auditor(case, oracle, shadows, attacks=("second", "score", "difference"))
    audit = found.judge(after, COST)
    assert audit.before.attacks.keys() == audit.oracle.attacks.keys() == {"second", "difference"}
    assert audit.before.attacks["second"] == audit.before.score_auc  # Exact's second view is its first
    assert audit.before.attacks["difference"] > 0.9 > audit.after.attacks["difference"]
    assert replace(audit, **{name: getattr(usual, name) for name in ("before", "after", "oracle")}) == usual
    flat = audit.flat()
    assert flat["attack_second_auc_before"] == pytest.approx(audit.before.score_auc, abs=1e-5)
    assert "attacks_before" not in flat
    assert audit.to_json()["after"]["attacks"].keys() == {"second", "difference"}
    assert flat.keys() - usual.flat().keys() == {
        f"attack_{name}_auc_{model}" for name in ("second", "difference") for model in ("before", "after", "oracle")
    }
    with pytest.raises(ConfigError, match="unknown attack 'magic'"):
        Auditor(case, attacks=("magic",))


def test_an_attack_that_needs_shadow_models_is_left_out_where_there_are_none(install):
    install("retract.attacks", difference="tests.auditing.plugged:DIFFERENCE")
    case = case_of()
    audit = Auditor(case, attacks=("learned", "difference")).judge(case.before, COST)
    assert audit.attack == "score"
    assert audit.after.attack_auc == audit.after.score_auc
    assert audit.after.attacks == {"difference": None}


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_a_server_can_audit_without_its_devices_where_everything_is_shared(kind):
    """Exact reads histories alone, so the server's own figures are those of the devices."""
    case = case_of(kind=kind)
    after, _ = unlearn(SYSTEM, case.before, kind, case.forget, 0)
    alone = replace(case, before=Version(case.before.trained, None))
    retained = Sharing.by_ratio(case.before.trained.shared - case.forget, 1.0)
    shadows = Shadows.trained(
        SYSTEM, kind, imitations(retained, kind, case.forget, 0), case.test, 0, read_devices=False
    )
    assert {version.devices for version in shadows.versions} == {None}
    oracle = train_oracle(alone, retained)
    assert oracle[0].devices is None
    found = Auditor(alone, oracle, shadows, relearn=True).judge(Version(after.trained, None), COST)
    assert found.ks_after == 0 < found.ks_before
    assert found.parameter_distance < 1e-9
    if kind == "erase":  # after "unshare" the devices' histories are longer than what the server holds
        both = Auditor(case, train_oracle(case, after.devices.sharing)).judge(after, COST)
        assert found.after.recall == both.after.recall
        assert found.before.score_auc == both.before.score_auc


@pytest.mark.slow
def test_an_oracle_of_a_federated_system_needs_its_devices():
    case = case_of(SHARING, share=0.5)
    alone = replace(case, before=Version(case.before.trained, None))
    with pytest.raises(DataError, match="no oracle can be trained"):
        train_oracle(alone, case.before.devices.sharing)


@pytest.mark.slow
def test_what_unlearning_and_the_oracle_took_is_counted_in_rounds_and_bytes():
    case = case_of(SHARING, share=0.5)
    after, cost = unlearn(SHARING, case.before, "unshare", case.forget, 0)
    found = Auditor(case, train_oracle(case, after.devices.sharing)).judge(after, cost)
    assert (found.rounds, found.oracle_rounds) == (0, 14)
    assert found.bytes_sent == 0 < found.oracle_bytes_sent


@pytest.mark.slow
def test_what_is_relearnt_goes_on_from_what_devices_keep_and_leaves_them_as_they_were():
    case = case_of(SHARING, kind="erase", share=0.5)
    after, _ = unlearn(SHARING, case.before, "erase", case.forget, 0)
    run = after.trained.run
    kept = after.devices.kept(run).state["vector"].copy()
    given = after.devices.given(case.before.devices.sharing)
    places = given.kept(run).places_of(after.devices.kept(run).clients)
    assert np.array_equal(given.kept(run).state["vector"][places], kept)
    assert rounds_to_relearn(case, after) in (1, 2, 4, 8, 16, 32, None)
    assert np.array_equal(after.devices.kept(run).state["vector"], kept)
    assert after.devices.sharing == case.before.devices.sharing.erase(case.forget)


def test_a_system_that_cannot_go_on_relearns_in_one_round_if_it_extends_and_else_never():
    case = case_of()
    assert rounds_to_relearn(case, case.before) == 1
    assert rounds_to_relearn(replace(case, system=RECERASER()), case.before) is None


def test_the_same_case_gives_the_same_figures():
    timed = {"seconds", "oracle_seconds", "speedup", "train_seconds", "prepare_seconds", "seconds_error", "timings"}
    one, two = (
        {name: value for name, value in planted(methods=("own",))["own"].items() if name not in timed} for _ in range(2)
    )
    assert one == two
