"""Backbones against their papers' formulas, dense and layer by layer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from retract.data import Interactions
from retract.models.learn import backbones, graph
from retract.models.learn.backbones import SGL, LightGCN, Moment, SimGCL
from retract.models.learn.graph import BipartiteGraph
from retract.models.learn.pairwise import PairwiseLoss, batches
from retract.models.negatives import sample_negatives
from tests.models.test_graph import dense_adjacency
from tests.samples import random_interactions

AT = Moment(seed=3, epoch=5)
BACKBONES = {
    "lightgcn": LightGCN(3),
    "sgl": SGL(3, 0.5, 0.2, 0.4),
    "simgcl": SimGCL(3, 0.5, 0.2, 0.3),
}


def dense_layers(adjacency: torch.Tensor, nodes: torch.Tensor, layers: int) -> list[torch.Tensor]:
    """E^0 to E^L."""
    walk = [nodes]
    for _ in range(layers):
        walk.append(adjacency @ walk[-1])
    return walk


def slow_info_nce(left: torch.Tensor, right: torch.Tensor, temperature: float) -> torch.Tensor:
    """The mean over rows of -log of the share that the row's own partner has among all."""
    cosine = torch.nn.functional.cosine_similarity
    losses = []
    for row, anchor in enumerate(left):
        likeness = torch.stack([torch.exp(cosine(anchor, other, dim=0) / temperature) for other in right])
        losses.append(-torch.log(likeness[row] / likeness.sum()))
    return torch.stack(losses).mean()


def slow_views(backbone, edges: Interactions, nodes: torch.Tensor, at: Moment) -> list[torch.Tensor]:
    """Both views of all nodes."""
    views = []
    for purpose in ("left view", "right view"):
        if isinstance(backbone, SGL):
            kept = BipartiteGraph(edges).thinned(backbone.dropout, seed=at.seed, round=at.epoch, purpose=purpose)
            adjacency = dense_adjacency(kept.interactions)
            views.append(sum(dense_layers(adjacency, nodes, backbone.layers)) / (backbone.layers + 1))
            continue
        noise, layer, total = backbones._Noise(1.0, at, purpose), nodes, 0
        for depth in range(1, backbone.layers + 1):
            layer = dense_adjacency(edges) @ layer
            drawn = noise(torch.ones_like(layer), torch.arange(len(layer)), depth) - 1
            layer = layer + backbone.noise * torch.sign(layer).detach() * drawn
            total = total + layer / backbone.layers
        views.append(total)
    return views


def slow_final(backbone, edges: Interactions, nodes: torch.Tensor) -> torch.Tensor:
    walk = dense_layers(dense_adjacency(edges), nodes, backbone.layers)
    kept = walk[1:] if isinstance(backbone, SimGCL) else walk
    return torch.stack(kept).mean(dim=0)


def slow_contrast(backbone, edges: Interactions, nodes, users, items, at: Moment) -> torch.Tensor:
    if isinstance(backbone, LightGCN):
        return nodes.sum() * 0
    left, right = slow_views(backbone, edges, nodes, at)
    total = 0
    for rows in (users, items + edges.n_users):
        total = total + slow_info_nce(left[rows], right[rows], backbone.temperature)
    return backbone.weight * total


def slow_loss(loss: PairwiseLoss, edges: Interactions, nodes, drawn, negatives, users, items, at) -> torch.Tensor:
    """BPR edge by edge, L2 and contrast."""
    final, degrees = slow_final(loss.backbone, edges, nodes), edges.user_degrees()
    total, weight = 0, 0.0
    for edge in drawn:
        user, item = int(edges.users[edge]), int(edges.items[edge])
        if degrees[user] == edges.n_items:
            continue
        own = float(degrees[user]) ** -loss.activity_exponent
        difference = final[user] @ (final[edges.n_users + item] - final[edges.n_users + int(negatives[edge])])
        total, weight = total - own * logsigmoid(difference), weight + own
    penalty = nodes[: edges.n_users].square().sum(1).mean() + nodes[edges.n_users :].square().sum(1).mean()
    contrast = slow_contrast(loss.backbone, edges, nodes, users, items, at)
    return total / weight + 0.5 * loss.regularisation * penalty + contrast


def table(edges: Interactions, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(edges.n_users + edges.n_items, 4, generator=draw, requires_grad=True)


def negatives_of(edges: Interactions, at: Moment) -> np.ndarray:
    users = np.arange(edges.n_users)
    return sample_negatives(users, edges.indptr, edges.items, edges.n_items, seed=at.seed, round=at.epoch)[:, 0]


def assert_same_value_and_gradient(got: torch.Tensor, want: torch.Tensor, nodes: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    mine, plain = (torch.autograd.grad(loss, nodes, retain_graph=True)[0] for loss in (got, want))
    torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-5)


@pytest.fixture(params=["as they come", "renumbered"])
def numbering(request, monkeypatch):
    if request.param == "renumbered":
        monkeypatch.setattr(graph, "RENUMBER_FROM", 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.usefixtures("numbering")
def test_final_embeddings_and_their_gradient_equal_the_dense_layers(name):
    edges, backbone = random_interactions(7), BACKBONES[name]
    nodes = table(edges)
    got, want = backbone.final(BipartiteGraph(edges), nodes), slow_final(backbone, edges, nodes)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert_same_value_and_gradient(got.square().sum(), want.square().sum(), nodes)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.usefixtures("numbering")
def test_contrast_and_its_gradient_equal_the_formula_over_dense_views(name, layers):
    edges = random_interactions(8, density=0.6)
    kind = type(BACKBONES[name])
    backbone = kind(**{**vars(BACKBONES[name]), "layers": layers})
    nodes = table(edges)
    users, items = (torch.from_numpy(np.unique(codes)[1:]) for codes in (edges.users, edges.items))
    bipartite = BipartiteGraph(edges)
    got = backbone.contrast(bipartite, nodes, backbone.final(bipartite, nodes), users, items, AT) + 0 * nodes.sum()
    want = slow_contrast(backbone, edges, nodes, users, items, AT)
    assert (name == "lightgcn") == (want == 0)
    assert_same_value_and_gradient(got, want, nodes)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_loss_over_all_edges_equals_the_formula_edge_by_edge(name):
    edges = random_interactions(9, density=0.5)
    loss, nodes = PairwiseLoss(BACKBONES[name], 0.1, 0.5, contrasted=1000), table(edges)
    users, items = (torch.from_numpy(np.unique(codes)) for codes in (edges.users, edges.items))
    drawn, negatives = np.arange(len(edges)), negatives_of(edges, AT)
    want = slow_loss(loss, edges, nodes, drawn, negatives, users, items, AT)
    assert_same_value_and_gradient(loss(BipartiteGraph(edges), nodes, AT), want, nodes)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_loss_over_a_batch_of_all_edges_is_the_loss_over_all_edges(name):
    edges = random_interactions(10, density=0.5)
    loss, nodes = PairwiseLoss(BACKBONES[name], 0.1, 0.5, contrasted=1000), table(edges)
    bipartite = BipartiteGraph(edges)
    (batch,) = batches(edges, len(edges), AT.seed, AT.epoch)
    assert_same_value_and_gradient(loss.of_batch(bipartite, nodes, batch), loss(bipartite, nodes, AT), nodes)


@pytest.mark.parametrize("name", ["sgl", "simgcl"])
def test_a_batch_contrasts_the_edges_that_it_begins_with_and_no_more_than_are_asked_for(name):
    edges = random_interactions(10, density=0.5)
    loss, nodes = PairwiseLoss(BACKBONES[name], 0.1, 0.5, contrasted=5), table(edges)
    bipartite = BipartiteGraph(edges)
    (batch,) = batches(edges, len(edges), AT.seed, AT.epoch)
    final = loss.backbone.final(bipartite, nodes)
    first = batch.edges[:5]
    users, items = (torch.from_numpy(np.unique(codes[first])) for codes in (edges.users, edges.items))
    rest = loss.batch_ranking(bipartite, final, batch) + loss.penalty(bipartite, nodes)
    want = rest + slow_contrast(loss.backbone, edges, nodes, users, items, batch.at)
    assert_same_value_and_gradient(loss.of_batch(bipartite, nodes, batch), want, nodes)


@pytest.mark.slow
@given(st.integers(0, 1000), st.integers(1, 60), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_ranking_losses_of_an_epochs_batches_average_to_that_of_all_edges(seed, size, exponent):
    edges = random_interactions(seed)
    loss, nodes, bipartite = PairwiseLoss(LightGCN(2), 0.0, exponent, 1), table(edges, seed), BipartiteGraph(edges)
    final = loss.backbone.final(bipartite, nodes)
    parts = list(batches(edges, size, seed, 4))
    assert np.array_equal(np.sort(np.concatenate([part.edges for part in parts])), np.arange(len(edges)))
    mean = sum(len(part.edges) * loss.batch_ranking(bipartite, final, part) for part in parts) / len(edges)
    assert_same_value_and_gradient(mean, loss.ranking(bipartite, final, Moment(seed, 4)), nodes)


@pytest.mark.parametrize("name", ["sgl", "simgcl"])
def test_a_contrast_depends_on_its_key_alone(name):
    edges, backbone = random_interactions(11, density=0.6), BACKBONES[name]
    users, items = (torch.from_numpy(np.unique(codes)) for codes in (edges.users, edges.items))

    def contrast(at: Moment) -> float:
        bipartite, nodes = BipartiteGraph(edges), table(edges)
        return float(backbone.contrast(bipartite, nodes, backbone.final(bipartite, nodes), users, items, at).detach())

    assert contrast(AT) == contrast(AT)
    others = [Moment(4, 5), Moment(3, 6)] + [Moment(3, 5, 1)] * (name == "simgcl")
    assert len({contrast(AT), *map(contrast, others)}) == 1 + len(others)


@pytest.mark.slow
@given(st.integers(0, 1000), st.sampled_from(["left view", "right view"]))
@settings(deadline=None)
def test_noise_has_its_length_and_lies_in_the_rows_own_orthant(seed, purpose):
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed))
    noise = backbones._Noise(0.3, Moment(seed, 1, 2), purpose)
    added = noise(rows, torch.arange(40), 2) - rows
    torch.testing.assert_close(added.norm(dim=1), torch.full((40,), 0.3))
    assert ((torch.sign(added) == torch.sign(rows)) | (added.abs() < 1e-6)).all()
    assert not torch.allclose(added, noise(rows, torch.arange(40), 3) - rows)
    some = torch.tensor([7, 30, 2])
    torch.testing.assert_close(noise(rows[some], some, 2) - rows[some], added[some])


@given(st.integers(0, 1000), st.floats(0, 0.9))
@settings(deadline=None)
def test_a_thinned_graph_is_the_graph_of_its_edges(seed, dropout):
    edges = random_interactions(seed)
    thinned = BipartiteGraph(edges).thinned(dropout, seed=seed, round=2, purpose="left view")
    assert len(edges & thinned.interactions) == len(thinned.interactions)
    torch.testing.assert_close(thinned.adjacency.to_dense(), dense_adjacency(thinned.interactions))


def test_a_views_edges_are_dropped_as_often_as_asked_and_each_by_its_own_key():
    edges = random_interactions(1, n_users=200, n_items=200, density=0.5)
    kept = BipartiteGraph(edges).thinned(0.3, seed=0, round=1, purpose="left view").interactions
    share = len(kept) / len(edges)
    assert abs(share - 0.7) < 4 * (0.21 / len(edges)) ** 0.5
    half = edges.where(np.arange(len(edges)) % 2 == 0)
    kept_of_half = BipartiteGraph(half).thinned(0.3, seed=0, round=1, purpose="left view").interactions
    assert kept_of_half == half & kept
