"""Folding a history into items' vectors, against the plain ridge regression."""

import numpy as np
import pytest

from retract.models.fold_in import FoldIn
from tests.samples import random_interactions

SETTINGS = {"unobserved": 0.8, "ridge": 1.2, "popularity": 0.25, "prior": 20.0}


@pytest.mark.parametrize("dimension", [3, 40])
def test_a_user_is_the_ridge_solution_of_its_own_history(dimension):
    data, draw = random_interactions(2, 30, 25, 0.4), np.random.default_rng(1)
    items = draw.normal(size=(25, dimension)).astype(np.float32)
    items[:, -1] = 0  # beyond the rank
    found = FoldIn(items, data.item_degrees(), 5.0, **SETTINGS).scores(np.arange(30), data)
    degrees = np.maximum(data.item_degrees(), 0.5) + 20
    degrees = degrees / degrees.mean()
    read = degrees**-0.25 / (degrees**-0.25).mean()
    for user in range(30):
        own = data.items_of(user)
        normal = 0.8 * items.T @ items + items[own].T @ items[own]
        normal = normal + 1.2 * (max(len(own), 1e-9) / 5.0) ** 0.5 * np.eye(dimension)
        code = np.linalg.solve(normal, read[own] @ items[own])
        np.testing.assert_allclose(found[user], items @ code * degrees**0.25, rtol=1e-3, atol=1e-5)


def test_who_did_nothing_is_given_nothing():
    data = random_interactions(2, 5, 8, 0.0)
    found = FoldIn(np.ones((8, 2), dtype=np.float32), data.item_degrees(), 0.0, **SETTINGS).scores(np.arange(5), data)
    assert not found.any()
