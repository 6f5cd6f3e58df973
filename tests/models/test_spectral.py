"""The spectral start against NumPy's dense decomposition."""

import numpy as np

from retract.data import Interactions
from retract.models.spectral import spectral_embeddings
from tests.samples import checkerboard, numbered_catalog, random_interactions


def test_users_and_items_span_the_leading_singular_vectors():
    data = random_interactions(2, 40, 30, 0.3)
    table = spectral_embeddings(data, 6, 0.1, seed=0).astype(np.float64)
    degrees = data.user_degrees()[data.users] * data.item_degrees()[data.items]
    dense = data.csr(degrees**-0.5).toarray().astype(np.float64)
    left, values, right = np.linalg.svd(dense)
    users, items = table[:40] / (0.1 * 40**0.5), table[40:] / (0.1 * 30**0.5)
    np.testing.assert_allclose(np.abs((left[:, :6] * users).sum(axis=0)), 1, atol=1e-2)
    np.testing.assert_allclose(np.abs((right[:6].T * items).sum(axis=0)), 1, atol=1e-2)
    np.testing.assert_allclose(((dense @ items) * users).sum(axis=0), values[:6], atol=1e-3)


def test_every_column_has_the_scale_and_what_lies_beyond_the_rank_is_zero():
    data, _ = checkerboard()
    two_groups = Interactions.of(data.catalog, *np.nonzero(np.add.outer(np.arange(40), np.arange(40)) % 2 == 0))
    table = spectral_embeddings(two_groups, 8, 0.3, seed=0)
    deviation = np.square(table[:40]).mean(axis=0) ** 0.5
    np.testing.assert_allclose(deviation[:2], 0.3, rtol=1e-5)
    assert (table[:, 2:] == 0).all()


def test_a_node_without_an_edge_is_zero_and_more_dimensions_than_nodes_are_fine():
    data = Interactions.of(numbered_catalog(4, 3), [0, 0, 1], [0, 1, 1])
    table = spectral_embeddings(data, 16, 0.1, seed=0)
    assert table.shape == (7, 16)
    assert (table[[2, 3, 6]] == 0).all()
    assert np.isfinite(table).all()


def test_it_is_a_function_of_the_edges_and_the_seed():
    data = random_interactions(2, 40, 30, 0.3)
    assert np.array_equal(spectral_embeddings(data, 6, 0.1, seed=0), spectral_embeddings(data, 6, 0.1, seed=0))
