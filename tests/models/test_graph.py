"""Propagation against the dense normalised adjacency."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from retract.models.learn.graph import BipartiteGraph
from tests.samples import random_interactions


def dense_adjacency(interactions) -> torch.Tensor:
    n_users, n_items = interactions.n_users, interactions.n_items
    full = np.zeros((n_users + n_items, n_users + n_items))
    full[:n_users, n_users:] = interactions.csr().toarray()
    full += full.T
    degree = full.sum(axis=1)
    scale = np.where(degree > 0, np.maximum(degree, 1) ** -0.5, 0)
    return torch.from_numpy(scale[:, None] * full * scale).float()


@given(st.integers(0, 10_000), st.integers(0, 4))
def test_propagation_and_its_gradient_equal_the_dense_powers(seed, layers):
    interactions = random_interactions(seed)
    graph, adjacency = BipartiteGraph(interactions), dense_adjacency(interactions)
    embeddings = torch.randn(graph.n_nodes, 3, requires_grad=True)
    want = layer = embeddings
    for _ in range(layers):
        layer = adjacency @ layer
        want = want + layer
    got = graph.propagate(embeddings, layers)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    upstream = torch.randn_like(want)
    mine, plain = (torch.autograd.grad(out, embeddings, upstream)[0] for out in (got, want))
    torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def test_a_node_without_edges_keeps_its_embedding_and_gives_nothing():
    interactions = random_interactions(1).where(np.zeros(len(random_interactions(1)), dtype=bool))
    embeddings = torch.randn(interactions.n_users + interactions.n_items, 3)
    torch.testing.assert_close(BipartiteGraph(interactions).propagate(embeddings, 3), embeddings)
