"""Every method of unlearning: what all of them owe, and what each of them is."""

from functools import cache

import numpy as np
import pytest
import torch

from retract.data import Interactions, Sharing
from retract.errors import ConfigError
from retract.federation import Clients, LocalEngine
from retract.models.graph import BipartiteGraph
from retract.systems.base import System, Trained, Withdrawal, withdraw
from retract.systems.baselines import GradientAscent, LightGCN, LightGCNConfig, make_method, method_names
from retract.systems.exact import Exact
from retract.systems.fedshare import FedShare, FedShareConfig
from tests.samples import checkerboard

TRAIN, TEST = checkerboard()
SYSTEMS = {
    "fedshare": FedShare(FedShareConfig(dimension=8, rounds=12, layers=2)),
    "lightgcn": LightGCN(LightGCNConfig(dimension=8, steps=40, layers=2)),
}
BOTH = [("fedshare", name) for name in method_names()] + [
    ("lightgcn", name) for name in method_names() if name not in {"fru"}
]


def assert_same_tables(one, other, **tolerance) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        torch.testing.assert_close(table, other[name], **tolerance)


@cache
def trained_by(system: str, method: str) -> tuple[System, Trained, Clients]:
    made = make_method(method, SYSTEMS[system])
    clients = Clients(Sharing.by_ratio(TRAIN, 0.5))
    return made, made.train(clients.sharing.shared, LocalEngine(clients), seed=0), clients


def forget_users(system: str, method: str, kind="unshare", seed: int = 5) -> tuple[Trained, Clients, Withdrawal]:
    """Everything that four users shared (unshare) or have (erase)."""
    made, trained, clients = trained_by(system, method)
    source = trained.shared if kind == "unshare" else clients.interactions
    after, withdrawal = withdraw(clients, kind, source.of_users([0, 1, 2, 3]))
    return made.unlearn(trained, withdrawal, LocalEngine(after), seed=seed), after, withdrawal


@pytest.mark.parametrize(("system", "method"), BOTH)
@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_a_method_forgets_in_the_store_and_leaves_what_it_was_given_as_it_was(system, method, kind):
    made, trained, clients = trained_by(system, method)
    model, memory = (
        {name: table.clone() for name, table in kept.items()} for kept in (trained.model, _memory(trained))
    )
    state = {name: rows.clone() for name, rows in clients.state.items()}
    new, after, withdrawal = forget_users(system, method, kind)
    assert_same_tables(trained.model, model, rtol=0, atol=0)
    assert_same_tables(_memory(trained), memory, rtol=0, atol=0)
    assert_same_tables(clients.state, state, rtol=0, atol=0)
    assert new.shared == trained.shared - withdrawal.forget
    if method != "own":
        assert (new.system, new.config) == (trained.system, SYSTEMS[system].config)
    assert torch.isfinite(made.recommender(new, after).scores(np.arange(6), after.interactions)).all()


@pytest.mark.parametrize(("system", "method"), BOTH)
def test_a_method_gives_the_same_result_for_the_same_seed(system, method):
    one, two = (forget_users(system, method)[0] for _ in range(2))
    assert_same_tables(one.model, two.model, rtol=0, atol=0)
    assert_same_tables(_memory(one), _memory(two), rtol=0, atol=0)


@pytest.mark.parametrize(("system", "method"), BOTH)
def test_a_method_bears_that_everything_shared_is_withdrawn(system, method):
    made, trained, clients = trained_by(system, method)
    if (system, method) in {("lightgcn", "own"), ("lightgcn", "retrain")}:
        pytest.skip("a central system cannot be trained on nothing")
    after, withdrawal = withdraw(clients, "unshare", trained.shared)
    new = made.unlearn(trained, withdrawal, LocalEngine(after), seed=0)
    assert len(new.shared) == 0
    assert torch.isfinite(made.recommender(new, after).scores(np.arange(6), after.interactions)).all()


@pytest.mark.parametrize("method", ["finetune", "ascent", "fru", "scif"])
def test_a_method_refuses_a_system_that_it_does_not_fit(method):
    if method not in method_names():
        pytest.skip("not there yet")
    with pytest.raises(ConfigError, match=rf"^{method} needs a system .*; (exact (cannot|has none)|got exact)$"):
        make_method(method, Exact())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("forget", {}, r"unknown method 'forget'; known methods: own, retrain, naive, finetune"),
        ("finetune", {"steps": 3}, r"finetune has no setting 'steps'; it has rounds"),
        ("finetune", {"rounds": "many"}, r"setting rounds of finetune is 'many': it must be a whole number at least 1"),
        ("own", {"rounds": 3}, r"own has no setting 'rounds'; it has none"),
    ],
)
def test_a_wrong_name_or_setting_is_refused_with_what_is_possible(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_method(name, SYSTEMS["fedshare"], settings)


def test_settings_reach_the_method_and_leave_the_systems_own_alone():
    method = make_method("ascent", SYSTEMS["fedshare"], {"stride": "0.3"})
    assert method.settings.stride == 0.3
    assert method.config == SYSTEMS["fedshare"].config


@pytest.mark.parametrize("system", SYSTEMS)
def test_ascent_lowers_the_scores_of_what_is_to_be_forgotten_and_goes_no_further_than_told(system):
    method = GradientAscent(SYSTEMS[system])
    trained = trained_by(system, "ascent")[1]
    forget = trained.shared.of_users([0, 1])
    nodes = method.system.nodes(trained)
    climbed = method.ascend(nodes, trained.shared, forget, seed=0)
    loss_of = method.system.objective(trained.shared, seed=0, among=forget)
    assert loss_of(climbed, 0) > loss_of(nodes, 0)
    own = np.union1d(forget.users, forget.items + forget.n_users)
    assert (climbed - nodes).norm() <= 1.001 * 5 * 0.1 * nodes[torch.from_numpy(own)].norm()
    before = graph_scores(system, trained, nodes, forget)
    assert (graph_scores(system, trained, climbed, forget) < before).float().mean() > 0.9


def graph_scores(system: str, trained: Trained, nodes: torch.Tensor, pairs: Interactions) -> torch.Tensor:
    """What the server's graph, as it was, gives to some pairs."""
    final = BipartiteGraph(trained.shared).propagate(nodes, SYSTEMS[system].config.layers)
    return (final[pairs.users] * final[pairs.items + pairs.n_users]).sum(dim=1)


def _memory(trained: Trained) -> dict[str, torch.Tensor]:
    return dict(trained.memory.tensors)
