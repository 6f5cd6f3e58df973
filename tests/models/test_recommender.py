"""Recommenders that need no training: a table read through a history, and what is popular."""

import numpy as np
import torch

from retract.data import Interactions
from retract.models.lightgcn import DotProduct
from retract.models.recommender import HistoryReader, OrPopular, read_history
from tests.samples import numbered_catalog, random_interactions


def test_a_history_is_the_sum_of_its_rows_over_the_root_of_their_number():
    history, table = random_interactions(1), torch.randn(15, 4)
    users = np.array([7, 0, 7, 3])
    want = [table[history.items_of(user)].sum(dim=0) / max(len(history.items_of(user)), 1) ** 0.5 for user in users]
    torch.testing.assert_close(read_history(users, history, table), torch.stack(want))
    torch.testing.assert_close(HistoryReader(table).scores(users, history), torch.stack(want) @ table.T)


def test_who_has_no_history_is_read_as_nothing():
    history = Interactions.of(numbered_catalog(3, 15), [0, 0], [1, 2])
    scores = HistoryReader(torch.randn(15, 4)).scores(np.array([1, 0]), history)
    assert scores[0].abs().max() == 0
    assert scores[1].abs().max() > 0


def test_the_known_get_the_model_and_all_others_what_is_popular():
    history = Interactions.of(numbered_catalog(4, 3), [0, 0, 1, 2], [1, 2, 2, 2])
    inner = DotProduct(torch.randn(4, 2), torch.randn(3, 2))
    model = OrPopular(inner, history.user_degrees() > 0, history.item_degrees())
    users = np.array([3, 1, 3, 0])
    scores = model.scores(users, history)
    torch.testing.assert_close(scores[[1, 3]], inner.scores(np.array([1, 0]), history))
    torch.testing.assert_close(scores[[0, 2]], torch.tensor([[0.0, 1 / 3, 1.0]]).expand(2, 3))


def test_where_nobody_has_anything_left_all_items_are_alike():
    empty = Interactions.empty(numbered_catalog(2, 3))
    model = OrPopular(DotProduct(torch.zeros(2, 2), torch.zeros(3, 2)), empty.user_degrees() > 0, empty.item_degrees())
    assert torch.equal(model.scores(np.arange(2), empty), torch.zeros(2, 3))
