"""Subspace iteration with a matrix at hand, against NumPy's dense decomposition."""

import numpy as np
import pytest

from retract.models.gram import rows
from retract.models.subspace import Subspace, iterated, orthonormal
from tests.samples import random_interactions


def found(data, dimension=6, steps=40, **settings) -> Subspace:
    given = {"oversampling": 8, "prior": 2.0, "noise": 0.0, **settings}
    return iterated(Subspace(data.n_items, dimension, 0, **given), rows(data), steps)


def test_it_finds_the_leading_singular_vectors_of_the_normalised_graph():
    data = random_interactions(2, 40, 30, 0.3)
    full = data.csr().toarray().astype(float)
    dense = (full.sum(1, keepdims=True) + 2) ** -0.5 * full * (full.sum(0) + 2) ** -0.5
    _, values, right = np.linalg.svd(dense)
    leading = found(data).leading()
    np.testing.assert_allclose(leading.values, values[:6], rtol=1e-6)
    np.testing.assert_allclose(np.abs((leading.vectors * right[:6].T).sum(axis=0)), 1, atol=1e-4)


def test_it_is_the_same_to_the_last_bit_however_many_threads_share_the_rows(monkeypatch):
    data, tables = random_interactions(3, 70, 50, 0.2), []
    for count in (1, 2, 5):
        monkeypatch.setattr("retract.workers.threads", lambda count=count: count)
        tables.append(found(data, steps=8).embeddings(0.5)[0])
    for table in tables[1:]:
        np.testing.assert_array_equal(table, tables[0])


@pytest.mark.parametrize("shrink", [1.0, 1e-3, 1e-12, 0.0])
def test_a_basis_is_orthonormal_and_spans_the_columns_however_they_depend_on_each_other(shrink):
    draw = np.random.default_rng(0)
    image = draw.normal(size=(60, 5))
    image[:, 4] = image[:, 0] + shrink * image[:, 4]
    basis = orthonormal(image)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-7)
    np.testing.assert_allclose(basis @ (basis.T @ image), image, atol=1e-6)


def test_nothing_gives_nothing():
    table, standing = found(random_interactions(0, 5, 4, 0.0)).embeddings(0.5)
    assert table.shape == (4, 6)
    assert (table.any(), standing) == (False, 0.0)
