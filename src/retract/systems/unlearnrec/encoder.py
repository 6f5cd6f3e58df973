"""Influence encoders: from a forget set to the change of the initial embeddings that takes it out of the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from retract.data import Interactions
from retract.models.learn.backbones import Backbone
from retract.models.learn.graph import BipartiteGraph
from retract.models.learn.influence import local_influence, pulled_back
from retract.models.nodes import node_degrees
from retract.systems.backbone_training import make_backbone
from retract.systems.unlearnrec.config import UnlearnRecConfig

GATE_WIDTH = 16
PULLED_BACK = (-1.5, 0.0)
"""Where the gates of two guesses begin, before softplus: each end alone is held to answer for the whole edge."""


@dataclass(frozen=True, eq=False)
class Removal:
    """A forget set, the graph without it, and the model that it is to leave.

    Parameters
    ----------
    graph
        Of the retained edges.
    forget
        The edges to forget, none of them retained.
    nodes
        Initial embeddings of the model as it stands, frozen; shape [n_nodes, d].
    config
        Settings of the backbone.
    """

    graph: BipartiteGraph
    forget: Interactions
    nodes: Tensor
    config: UnlearnRecConfig

    @cached_property
    def backbone(self) -> Backbone:
        """What takes initial to final embeddings."""
        return make_backbone(self.config)

    @cached_property
    def final(self) -> Tensor:
        """The final embeddings of the model as it stands, over the retained graph; shape [n_nodes, d]."""
        return self.backbone.final(self.graph, self.nodes)

    @cached_property
    def guesses(self) -> tuple[Tensor, ...]:
        """What the forgotten edges left in the initial embeddings, in closed form; shape [n_nodes, d] each.

        With x what they left at each of their ends: x. Pulled back, what changes the final embeddings by x, and what of
        x changes the initial ones alone. The two differ most where the final ones lack layer 0, as SimGCL's do.
        """
        influence = local_influence(
            self.backbone,
            self.graph,
            self.forget,
            self.nodes,
            regularisation=self.config.regularisation,
            activity_exponent=self.config.activity_exponent,
        )
        if not self.config.pull_back:
            return (influence,)
        both = torch.cat([influence, self.backbone.final(self.graph, influence)], dim=1)
        seen, again = pulled_back(self.backbone, self.graph, both).chunk(2, dim=1)
        return seen, influence - again

    @cached_property
    def degrees(self) -> Tensor:
        """Retained edges of each node, float32, shape [n_nodes]."""
        return torch.from_numpy(node_degrees(self.graph.interactions)).float()

    @cached_property
    def share(self) -> Tensor:
        """The part of each node's edges that is forgotten, shape [n_nodes]."""
        gone = torch.from_numpy(node_degrees(self.forget)).float()
        return gone / (gone + self.degrees).clamp_min(1)

    @cached_property
    def isolated(self) -> Tensor:
        """Nodes without an edge left, bool, shape [n_nodes]."""
        return self.degrees == 0

    @cached_property
    def features(self) -> Tensor:
        """What gates read of each node: log degree, forgotten part, and whether it is an item; shape [n_nodes, 3]."""
        is_item = torch.arange(self.graph.n_nodes) >= self.graph.n_users
        return torch.stack([self.degrees.log1p() / 5, 2 * self.share, is_item.float()], dim=1)

    def applied(self, encoder: Encoder) -> Tensor:
        """New initial embeddings; a node without an edge is zero, and says nothing of what it had."""
        changed = self.nodes + encoder(self)
        return torch.where(self.isolated[:, None], torch.zeros_like(changed), changed)


class FeedForward(nn.Module):
    """A residual feed-forward layer that starts as nothing: x + B tanh(A [x, E0]), B = 0.

    Parameters
    ----------
    dimension
        d.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2 * dimension, dimension), nn.Linear(dimension, dimension)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, change: Tensor, nodes: Tensor) -> Tensor:
        """Shape as `change`, [n_nodes, d]."""
        corrected: Tensor = change + self.outer(torch.tanh(self.inner(torch.cat([change, nodes], dim=1))))
        return corrected


class CalibratedEncoder(nn.Module):
    """Ours: closed-form guesses, gated node by node, and corrected by the feed-forward layer at the forgotten's ends.

        ΔE_v = f( -Σ_k g_k(deg_v, forgotten part of v, side) · guess_kv ),    f the identity but for fine-tuning

    Its parameters are shared by all nodes, so that it holds nothing about any single one.

    Parameters
    ----------
    dimension
        d.
    pulled_back
        Whether there are two guesses or one: see `Removal.guesses`.
    """

    def __init__(self, dimension: int, *, pulled_back: bool = False) -> None:
        super().__init__()
        read, weigh = nn.Linear(3, GATE_WIDTH), nn.Linear(GATE_WIDTH, len(PULLED_BACK) if pulled_back else 1)
        self.gate = nn.Sequential(read, nn.Tanh(), weigh)
        if pulled_back:
            with torch.no_grad():
                weigh.bias.copy_(torch.tensor(PULLED_BACK))
        self.feed_forward = FeedForward(dimension)

    def pretrained(self) -> list[nn.Parameter]:
        """The gate alone."""
        return list(self.gate.parameters())

    def forward(self, removal: Removal) -> Tensor:
        """ΔE, shape [n_nodes, d]."""
        gates = softplus(self.gate(removal.features))
        change = -(torch.stack(removal.guesses, dim=2) * gates[:, None]).sum(dim=2)
        touched = (removal.share > 0)[:, None]
        return torch.where(touched, self.feed_forward(change, removal.nodes), change)


class PaperEncoder(nn.Module):
    """The paper's: a table H over the forgotten edges, then over the retained ones, less a learnt part of Ê.

        Ĥ = Â_r-propagated( Σ_{l=0..L} Â_Δ^l H )  -  α Â_Δ^L (Ê ∘ w),    ΔE = FFN(Ĥ)

    Parameters
    ----------
    n_nodes, dimension
        Shape of the tables.
    layers, hops
        L over the forgotten edges, K over the retained ones.
    """

    def __init__(self, n_nodes: int, dimension: int, layers: int, hops: int) -> None:
        super().__init__()
        self.layers, self.hops = layers, hops
        self.table = nn.Parameter(torch.zeros(n_nodes, dimension))
        self.rate = nn.Parameter(torch.full((n_nodes, 1), 0.5))
        self.strength = nn.Parameter(torch.tensor(0.1))
        self.feed_forward = FeedForward(dimension)

    def pretrained(self) -> list[nn.Parameter]:
        """Everything."""
        return list(self.parameters())

    def forward(self, removal: Removal) -> Tensor:
        """ΔE, shape [n_nodes, d]."""
        forgotten = BipartiteGraph(removal.forget)
        spread = removal.graph.propagate(forgotten.propagate(self.table, self.layers), self.hops) / (self.hops + 1)
        withdrawn = removal.final * self.rate
        for _ in range(self.layers):
            withdrawn = forgotten.propagate(withdrawn, 1) - withdrawn
        change: Tensor = self.feed_forward(spread - self.strength * withdrawn, removal.nodes)
        return change


Encoder = CalibratedEncoder | PaperEncoder
"""An influence encoder: called with a `Removal`, it gives ΔE, shape [n_nodes, d]."""


def make_encoder(config: UnlearnRecConfig, n_nodes: int, seed: int) -> Encoder:
    """The encoder that the settings name, as it is before pre-training; weights keyed by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.encoder == "paper":
            return PaperEncoder(n_nodes, config.dimension, config.layers, config.hops)
        return CalibratedEncoder(config.dimension, pulled_back=config.pull_back)
