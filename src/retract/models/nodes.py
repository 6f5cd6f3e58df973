"""Facts of the user-item graph as node numbers: users come first, then items. NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions


def node_degrees(edges: Interactions) -> NDArray[np.int64]:
    """Edges of every user, then of every item; shape [n_users + n_items]."""
    return np.concatenate([edges.user_degrees(), edges.item_degrees()])


def endpoints(edges: Interactions) -> NDArray[np.int64]:
    """The nodes with an edge, ascending."""
    nodes: NDArray[np.int64] = np.union1d(edges.users, edges.items + edges.n_users)
    return nodes


def affected_nodes(retained: Interactions, forget: Interactions) -> NDArray[np.int64]:
    """Endpoints of the forget set and their neighbours in the graph as it was, node numbers ascending."""
    n_users = forget.n_users
    users, items = np.unique(forget.users), np.unique(forget.items)
    before = retained | forget
    near_users = before.users[np.isin(before.items, items)]
    near_items = before.items[np.isin(before.users, users)]
    nodes: NDArray[np.int64] = np.concatenate([users, near_users, items + n_users, near_items + n_users])
    return np.unique(nodes)


def without_isolated(nodes: NDArray[np.float32], retained: Interactions, forget: Interactions) -> NDArray[np.float32]:
    """A copy in which nodes that lost their last edge are zero: nothing of them is retained, so nothing may stay.

    Parameters
    ----------
    nodes
        Shape [n_users + n_items, d].
    """
    kept = nodes.copy()
    kept[np.setdiff1d(endpoints(forget), endpoints(retained))] = 0
    return kept
