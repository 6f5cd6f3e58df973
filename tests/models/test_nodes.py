"""Facts of the user-item graph as node numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retract.models.nodes import affected_nodes, endpoints, node_degrees, without_isolated
from tests.samples import random_interactions


@given(st.integers(0, 1000))
def test_the_affected_are_the_ends_of_what_is_forgotten_and_whoever_shares_one_with_them(seed):
    data = random_interactions(seed)
    forget = data.where(np.random.default_rng(seed).random(len(data)) < 0.2)
    pairs = set(zip(data.users.tolist(), data.items.tolist(), strict=True))
    gone = set(zip(forget.users.tolist(), forget.items.tolist(), strict=True))
    want = {node for user, item in gone for node in (user, data.n_users + item)}
    want |= {user for user, item in pairs if any(item == other for _, other in gone)}
    want |= {data.n_users + item for user, item in pairs if any(user == other for other, _ in gone)}
    assert affected_nodes(data - forget, forget).tolist() == sorted(want)


def test_who_loses_the_last_edge_is_zero_and_what_was_given_stays_as_it_was():
    data = random_interactions(3)
    forget = data.where((data.users == data.users[0]) | (data.items == data.items[-1]))
    nodes = np.ones((data.n_users + data.n_items, 2), np.float32)
    after = without_isolated(nodes, data - forget, forget)
    lost = (node_degrees(data) > 0) & (node_degrees(data - forget) == 0)
    assert np.flatnonzero(~after.any(axis=1)).tolist() == np.flatnonzero(lost).tolist() != []
    assert nodes.all()


def test_the_endpoints_are_the_nodes_with_a_degree():
    data = random_interactions(4, density=0.1)
    assert endpoints(data).tolist() == np.flatnonzero(node_degrees(data)).tolist()
