"""Newton steps of all nodes at once against one node at a time, edge by edge, with dense curvatures."""

import numpy as np
import pytest
import torch

from retract.data import Interactions
from retract.models.learn import influence
from retract.models.learn.backbones import SGL, LightGCN, SimGCL
from retract.models.learn.graph import BipartiteGraph
from retract.models.learn.influence import local_influence, pulled_back, solved
from tests.samples import random_interactions

BACKBONES = {
    "lightgcn": LightGCN(2),
    "sgl": SGL(2, 0.1, 0.2, 0.1),
    "simgcl": SimGCL(2, 0.1, 0.2, 0.1),
}
REGULARISATION, EXPONENT = 0.1, 0.5
DIMENSION = 6


def nodes_of(data: Interactions, seed: int = 0) -> torch.Tensor:
    return torch.randn(data.n_users + data.n_items, DIMENSION, generator=torch.Generator().manual_seed(seed))


def found(backbone, data: Interactions, forget: Interactions, nodes: torch.Tensor) -> torch.Tensor:
    graph = BipartiteGraph(data - forget)
    return local_influence(backbone, graph, forget, nodes, regularisation=REGULARISATION, activity_exponent=EXPONENT)


class Slow:
    """The docstring's formulas for one node after the other, in double precision."""

    def __init__(self, backbone, data: Interactions, forget: Interactions, nodes: torch.Tensor) -> None:
        self.data, self.retained, self.forget = data, data - forget, forget
        final = self.standing(backbone, nodes).double().numpy()
        self.users, self.items = final[: data.n_users], final[data.n_users :]
        self.n_items = data.n_items
        self.degrees = [
            int(part) or int(whole)
            for part, whole in zip(self.retained.user_degrees(), data.user_degrees(), strict=True)
        ]
        edges = zip(self.retained.users, self.retained.items, strict=True)
        self.total = sum(self.raw_weight(user) for user, _ in edges)

    def standing(self, backbone, nodes: torch.Tensor) -> torch.Tensor:
        """Over the retained graph, or over all of it at a node that has nothing else."""
        left = np.concatenate([self.retained.user_degrees(), self.retained.item_degrees()])
        part, whole = (backbone.final(BipartiteGraph(edges), nodes) for edges in (self.retained, self.data))
        return torch.stack([whole[node] if left[node] == 0 else part[node] for node in range(len(nodes))])

    def raw_weight(self, user: int) -> float:
        return 0.0 if self.degrees[user] in (0, self.n_items) else float(self.degrees[user]) ** -EXPONENT

    def bent(self, user: int, item: int) -> tuple[float, float]:
        """a_e and w_e σ'(m_e)."""
        margin = np.mean([self.users[user] @ (self.items[item] - other) for other in self.items])
        weight, satisfied = self.raw_weight(user) / self.total, 1 / (1 + np.exp(-margin))
        return weight * (1 - satisfied), weight * satisfied * (1 - satisfied)

    def gradient(self, ends: list[tuple[int, int, bool]], table: np.ndarray, column: int) -> np.ndarray | None:
        """Of a node with these edges (user, item, forgotten); None without a retained one."""
        pulls = [(self.bent(user, item)[0], table[(user, item)[column]], gone) for user, item, gone in ends]
        if sum(pull for pull, _, gone in pulls if not gone) == 0:
            return None
        part = sum(pull for pull, _, gone in pulls if gone) / sum(pull for pull, _, _ in pulls)
        forgotten = sum((pull * end for pull, end, gone in pulls if gone), np.zeros(DIMENSION))
        return forgotten - part * sum(pull * end for pull, end, _ in pulls)

    def edges(self, user: int | None = None, item: int | None = None) -> list[tuple[int, int, bool]]:
        return [
            (int(one), int(other), gone)
            for part, gone in ((self.retained, False), (self.forget, True))
            for one, other in zip(part.users, part.items, strict=True)
            if user in (None, one) and item in (None, other)
        ]

    def user(self, user: int) -> np.ndarray:
        """Every retained edge against every item there is."""
        ends = self.edges(user=user)
        curvature = np.zeros((DIMENSION, DIMENSION))
        for _, item, _ in (end for end in ends if not end[2]):
            for other in self.items:
                apart = self.items[item] - other
                curvature += self.bent(user, item)[1] * np.outer(apart, apart) / self.n_items
        return self.step(self.gradient(ends, self.items, 1), curvature, len(self.users))

    def item(self, item: int) -> np.ndarray:
        """Every retained edge at the item, and of every edge the chance that the item is its negative."""
        curvature = np.zeros((DIMENSION, DIMENSION))
        for user, other, gone in self.edges():
            times = 0 if gone else (other == item) + 1 / self.n_items
            curvature += times * self.bent(user, other)[1] * np.outer(self.users[user], self.users[user])
        gradient = self.gradient(self.edges(item=item), self.users, 0)
        return self.step(gradient, curvature, self.n_items)

    def step(self, gradient: np.ndarray | None, curvature: np.ndarray, n_alike: int) -> np.ndarray:
        if gradient is None:
            return np.zeros(DIMENSION)
        ridge = np.eye(DIMENSION) * REGULARISATION / n_alike
        return np.linalg.solve(curvature + ridge, gradient)

    def table(self) -> torch.Tensor:
        rows = [self.user(user) for user in range(len(self.users))] + [self.item(item) for item in range(self.n_items)]
        return torch.from_numpy(np.stack(rows)).float()


def some(data: Interactions, seed: int) -> Interactions:
    return data.where(np.random.default_rng(seed).random(len(data)) < 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_steps_of_all_nodes_are_those_of_dense_curvatures_node_by_node(name, seed, monkeypatch):
    data = random_interactions(seed)
    everything_of_one = (data.users == data.users[seed]) | (data.items == data.items[-1 - seed])
    forget, nodes = some(data, seed) | data.where(everything_of_one), nodes_of(data, seed)
    want = Slow(BACKBONES[name], data, forget, nodes).table()
    near = found(BACKBONES[name], data, forget, nodes)
    monkeypatch.setattr(influence, "ITERATIONS", 30)
    exact = found(BACKBONES[name], data, forget, nodes)
    assert want.norm() > 0.1
    torch.testing.assert_close(exact, want, rtol=1e-3, atol=1e-4)
    assert (near - want).norm() < 0.1 * want.norm()


@pytest.mark.parametrize("name", BACKBONES)
def test_nodes_of_which_nothing_or_everything_is_forgotten_do_not_move(name):
    data = random_interactions(2, n_users=20, n_items=20)
    user, item = int(data.user_degrees().argmax()), int(data.item_degrees().argmax())
    forget = data.where((data.users == user) | (data.items == item))
    moved = found(BACKBONES[name], data, forget, nodes_of(data)).abs().sum(dim=1).numpy() > 0
    users, items = moved[: data.n_users], moved[data.n_users :]
    retained = data - forget
    assert not users[user]
    assert not items[item]
    assert set(np.flatnonzero(users)) == set(forget.users[retained.user_degrees()[forget.users] > 0])
    assert set(np.flatnonzero(items)) == set(forget.items[retained.item_degrees()[forget.items] > 0])


@pytest.mark.parametrize("name", BACKBONES)
def test_removals_of_any_size_give_finite_steps(name):
    data = random_interactions(3, density=0.5)
    nodes = 10 * nodes_of(data)
    for keep in (np.zeros(len(data), dtype=bool), np.arange(len(data)) == 0, data.users < 6, data.items < 7):
        assert torch.isfinite(found(BACKBONES[name], data, data.where(~keep), nodes)).all()


def test_who_touched_every_item_has_nothing_to_be_ranked_by_and_does_not_move():
    data = random_interactions(4)
    busy = Interactions.of(data.catalog, np.zeros(data.n_items, dtype=int), np.arange(data.n_items))
    forget = (data - busy).where(np.arange(len(data - busy)) % 4 == 0)
    steps = found(LightGCN(2), data | busy, forget, nodes_of(data))
    assert torch.isfinite(steps).all()
    assert steps[0].abs().max() == 0


def test_conjugate_gradients_solve_every_row_with_a_curvature_of_its_own(monkeypatch):
    draw = np.random.default_rng(0)
    factors = draw.normal(size=(7, DIMENSION, DIMENSION))
    curvatures = torch.from_numpy(factors @ factors.transpose(0, 2, 1) + np.eye(DIMENSION)).float()
    right = torch.from_numpy(draw.normal(size=(7, DIMENSION))).float()
    right[3] = 0
    monkeypatch.setattr(influence, "ITERATIONS", 30)
    steps = solved(lambda rows: torch.einsum("nij,nj->ni", curvatures, rows), right)
    torch.testing.assert_close(steps, torch.linalg.solve(curvatures, right), rtol=1e-3, atol=1e-4)
    assert steps[3].abs().max() == 0


@pytest.mark.parametrize("name", BACKBONES)
def test_a_change_of_final_embeddings_is_pulled_back_as_ridge_regression_would(name, monkeypatch):
    data, backbone = random_interactions(0), BACKBONES[name]
    graph, change = BipartiteGraph(data), nodes_of(data)
    forward = backbone.final(graph, torch.eye(graph.n_nodes)).double()
    torch.testing.assert_close(forward, forward.T)
    want = torch.linalg.solve(forward @ forward + influence.RIDGE * torch.eye(graph.n_nodes), forward @ change.double())
    monkeypatch.setattr(influence, "PULLS", 60)
    torch.testing.assert_close(pulled_back(backbone, graph, change), want.float(), rtol=1e-2, atol=1e-2)
