"""What forgotten edges did to the embeddings of their ends: one Newton step per node, all nodes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retract.data import Interactions
from retract.models.learn.backbones import Backbone
from retract.models.learn.graph import BipartiteGraph
from retract.models.learn.losses import activity_weights
from retract.models.learn.sparse import Pattern, pair_scores, row_sums
from retract.models.nodes import node_degrees

ITERATIONS = 4
"""Of conjugate gradients, for every node: more of them change no audit."""
RIDGE = 0.002
"""What a square of initial embeddings counts beside a square of what is missed of the final ones."""
PULLS = 8
"""Of conjugate gradients, for all nodes together: with half of them accuracy suffers, twice as many change nothing."""


def local_influence(
    backbone: Backbone,
    graph: BipartiteGraph,
    forget: Interactions,
    nodes: Tensor,
    *,
    regularisation: float,
    activity_exponent: float,
) -> Tensor:
    """What the forgotten edges put into the initial embedding of each of their ends.

    Where training has ended, the pulls of a node's edges, of its negatives and of L2 balance. Without some of its edges
    it would stand elsewhere, all other nodes held: to first order, by an influence function (Koh and Liang, ICML 2017)
    of its own, off by

        x_v = H_v^{-1} ( Σ_{e ∈ F_v} a_e y_e  -  ρ_v Σ_{e ∈ F_v ∪ S_v} a_e y_e ),
        ρ_v = Σ_{e ∈ F_v} a_e / Σ_{e ∈ F_v ∪ S_v} a_e

    with y_e the final embedding at the other end of e, a_e = w_e σ(-m_e) its pull in BPR, m_e its margin over the mean
    item, w_e its activity weight: over S, or over F ∪ S at an end that S leaves without an edge. The second term is
    the pull of the negatives that go with the edges: where all balances, they pull as the positives do. H_v is the
    curvature of the retained loss at v alone,

        H_v = Σ_{e ∈ S_v} w_e σ'(m_e) y_e y_eᵀ + negatives + λ_v I.

    H_v x = g is solved by conjugate gradients for all nodes at once, by products over the edges; no H_v is ever formed.
    How much of a change of an initial embedding reaches the final one differs between backbones and is left out: x is
    a direction for every node, and a rough length.

    The formulation is ours. It takes the place of UnlearnRec's influence dependency matrix, which weighs all forgotten
    edges of a node alike.

    Parameters
    ----------
    graph
        Of the retained edges S.
    forget
        F, none of it in S.
    nodes
        Initial embeddings, trained on both; shape [n_nodes, d].
    regularisation, activity_exponent
        λ and a of the loss, see `retract.models.learn.pairwise.PairwiseLoss`.

    Returns
    -------
    Tensor
        x, shape [n_nodes, d]; to be subtracted. Zero where nothing is forgotten or nothing retained.
    """
    final, n_users = _standing(backbone, graph, forget, nodes), graph.n_users
    users, items = final[:n_users], final[n_users:]
    weights = _weights(graph.interactions, forget, activity_exponent)
    gone, left = (_Edges.of(edges, users, items, weights) for edges in (forget, graph.interactions))
    of_users = _UserCurvature(left, items, regularisation / n_users)
    of_items = _ItemCurvature(left, users, regularisation / graph.n_items)
    return torch.cat(
        [
            solved(of_users.times, _unbalanced(gone.per_user(items), left.per_user(items))),
            solved(of_items.times, _unbalanced(gone.per_item(users), left.per_item(users))),
        ]
    )


def pulled_back(backbone: Backbone, graph: BipartiteGraph, change: Tensor) -> Tensor:
    """The change of initial embeddings that makes a given one of the final ones, as nearly and as small as it can.

    With P what takes initial to final embeddings, linear and symmetric for every backbone,

        y = argmin |P y - x|² + μ |y|²,    (P² + μI) y = P x,

    by conjugate gradients, each column with its own steps. Nodes that forget nothing are to stay where they are: their
    x is zero, and what reaches them from their neighbours' y is held against it.

    Parameters
    ----------
    change
        x, shape [n_nodes, d].

    Returns
    -------
    Tensor
        y, shape [n_nodes, d]; not zero at neighbours of the changed.
    """

    def bend(columns: Tensor) -> Tensor:
        return backbone.final(graph, backbone.final(graph, columns)) + RIDGE * columns

    return solved(bend, backbone.final(graph, change), dim=0, iterations=PULLS)


@dataclass(frozen=True, eq=False)
class _Edges:
    """Edges, how hard BPR pulls at each, and how the pull bends.

    Parameters
    ----------
    pattern
        Users x items.
    pull, bend
        w σ(-m) and w σ'(m) of the margin m over the mean item, shape [n_edges].
    """

    pattern: Pattern
    pull: Tensor
    bend: Tensor

    @classmethod
    def of(cls, edges: Interactions, users: Tensor, items: Tensor, weights: Tensor) -> _Edges:
        """Those of some edges under final embeddings; `weights` has shape [n_users]."""
        pattern = Pattern(edges.indptr, edges.items, edges.n_items)
        margins = pair_scores(pattern, users, items) - (users @ items.mean(dim=0))[pattern.rows]
        satisfied, weight = torch.sigmoid(margins), weights[pattern.rows]
        return cls(pattern, weight * (1 - satisfied), weight * satisfied * (1 - satisfied))

    def per_user(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The pull at each user, shape [n_users, d], and its strength, shape [n_users]."""
        return self.pattern.times(self.pull, items), row_sums(self.pattern, self.pull)

    def per_item(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """The pull at each item, shape [n_items, d], and its strength, shape [n_items]."""
        strength = torch.zeros(self.pattern.n_columns).index_add(0, self.pattern.column_index, self.pull)
        return self.pattern.transposed_times(self.pull, users), strength


class _UserCurvature:
    """H of all users: their positives, and as many negatives, which are spread as all items are.

    Parameters
    ----------
    edges
        The retained ones.
    items
        Final embeddings, shape [n_items, d].
    ridge
        λ_v.
    """

    def __init__(self, edges: _Edges, items: Tensor, ridge: float) -> None:
        self.edges, self.ridge = edges, ridge
        self.centred = items - items.mean(dim=0)
        self.spread = self.centred.T @ self.centred / len(items)
        self.bends = row_sums(edges.pattern, edges.bend)[:, None]

    def times(self, rows: Tensor) -> Tensor:
        """H_u x_u of every user, shape [n_users, d]."""
        pattern = self.edges.pattern
        positives = pattern.times(self.edges.bend * pair_scores(pattern, rows, self.centred), self.centred)
        return positives + self.bends * (rows @ self.spread) + self.ridge * rows


class _ItemCurvature:
    """H of all items: their positives, and the users that they are a negative of, the same for all of them.

    Parameters
    ----------
    edges
        The retained ones.
    users
        Final embeddings, shape [n_users, d].
    ridge
        λ_v.
    """

    def __init__(self, edges: _Edges, users: Tensor, ridge: float) -> None:
        self.edges, self.users, self.ridge = edges, users, ridge
        self.negatives = (users * row_sums(edges.pattern, edges.bend)[:, None]).T @ users / edges.pattern.n_columns

    def times(self, rows: Tensor) -> Tensor:
        """H_i x_i of every item, shape [n_items, d]."""
        pattern = self.edges.pattern
        bent = self.edges.bend * pair_scores(pattern, self.users, rows)
        return pattern.transposed_times(bent, self.users) + rows @ self.negatives + self.ridge * rows


def _standing(backbone: Backbone, graph: BipartiteGraph, forget: Interactions, nodes: Tensor) -> Tensor:
    """Final embeddings over S; of a node that S leaves without an edge, those over F ∪ S, by which it pulled."""
    final, retained = backbone.final(graph, nodes), graph.interactions
    emptied = torch.from_numpy((node_degrees(retained) == 0) & (node_degrees(forget) > 0))
    if not emptied.any():
        return final
    return torch.where(emptied[:, None], backbone.final(BipartiteGraph(retained | forget), nodes), final)


def _weights(retained: Interactions, forget: Interactions, exponent: float) -> Tensor:
    """Of the edges of each user, shape [n_users]; their sum over the retained edges is 1."""
    degrees = retained.user_degrees()
    had = np.where(degrees > 0, degrees, forget.user_degrees())
    weights = activity_weights(had, retained.n_items, exponent)
    return weights / (weights @ torch.from_numpy(degrees).float()).clamp_min(1e-12)


def _unbalanced(gone: tuple[Tensor, Tensor], left: tuple[Tensor, Tensor]) -> Tensor:
    """The pull of the forgotten edges less that of their negatives; zero where no edge is left."""
    part = (gone[1] / (gone[1] + left[1]).clamp_min(1e-12))[:, None]
    pull = gone[0] - part * (gone[0] + left[0])
    return torch.where((left[1] > 0)[:, None], pull, torch.zeros_like(pull))


def solved(bend: Callable[[Tensor], Tensor], right: Tensor, *, dim: int = 1, iterations: int | None = None) -> Tensor:
    """H_v x_v = b_v by conjugate gradients (Hestenes and Stiefel, 1952), each v with its own steps.

    Parameters
    ----------
    dim
        What v runs over are the rows, for 1, or the columns, for 0.
    iterations
        How many; `ITERATIONS` if not given.
    """
    found, residual = torch.zeros_like(right), right.clone()
    direction, size = residual.clone(), residual.square().sum(dim=dim, keepdim=True)
    for _ in range(iterations or ITERATIONS):
        bent = bend(direction)
        step = size / (direction * bent).sum(dim=dim, keepdim=True).clamp_min(1e-30)
        found += step * direction
        residual -= step * bent
        last, size = size, residual.square().sum(dim=dim, keepdim=True)
        direction = residual + (size / last.clamp_min(1e-30)) * direction
    return found
