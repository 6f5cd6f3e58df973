"""The paper's contrastive unlearning: from snapshots, on the retained graph, in a few steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from retract import streams
from retract.data import Interactions
from retract.models.learn.arrays import as_tensor
from retract.models.learn.losses import info_nce
from retract.models.nodes import affected_nodes, without_isolated
from retract.systems.base import Progress, no_progress
from retract.systems.fedshare.config import BETAS, FedShareConfig
from retract.systems.fedshare.graph import SharedGraph


class ContrastiveUnlearning:
    """Removes from the server's table what the forget set R ⊆ S put there.

    For every affected node (an endpoint of R or a neighbour of one) of a batch B, with Z(T; X) the global view of a
    table T over the edges X, the loss is

        InfoNCE(anchor = Z(E; S∖R),  positives = Z(E_k; S∖R) of every snapshot k,
                negatives = Z(E_0; S) - Z(E_0; S∖R), what R induced)
        + BPR on S∖R  +  L2  +  stay-close on the nodes that R does not touch,

    where E starts from E_0, the table as trained. Contrast against snapshots is the paper's; that the negatives are the
    *difference* R makes, the retained BPR, the stay-close term and an ascent on R are ours.

    It is here to be compared with. Against an attack that knows more than scores it leaves a trace: the snapshots it
    draws towards were themselves made with R (see docs/concepts.md).

    Parameters
    ----------
    retained
        S∖R.
    forget
        R.
    nodes
        E_0, as trained.
    snapshots
        E_k, kept in memory.
    config, seed
        Settings, and the key of all draws.
    """

    def __init__(
        self,
        retained: Interactions,
        forget: Interactions,
        nodes: Tensor,
        snapshots: Sequence[Tensor],
        config: FedShareConfig,
        seed: int,
    ) -> None:
        self.config, self.seed = config, seed
        self.graph = SharedGraph(retained, config)
        self.affected = torch.from_numpy(affected_nodes(retained, forget))
        start = _cleared(nodes, retained, forget)
        self.nodes = start.clone().requires_grad_()
        self.start = start
        self.positives = [
            self._view(_cleared(snapshot, retained, forget), self.graph)[self.affected] for snapshot in snapshots
        ]
        induced = self._view(nodes, SharedGraph(retained | forget, config)) - self._view(start, self.graph)
        self.induced = induced[self.affected]
        theirs = (retained | forget).of_users(np.unique(forget.users))
        self.withdrawn = SharedGraph(theirs, config)
        self.forgotten = forget.contains(theirs)
        self.share = len(theirs) / len(retained)
        self.adam = torch.optim.Adam([self.nodes], lr=config.unlearn_rate, betas=BETAS, eps=1e-15)

    def run(self, progress: Progress = no_progress) -> Tensor:
        """E after all steps."""
        for number in range(self.config.unlearn_steps):
            self.step(number)
            progress("shared graph", number + 1, self.config.unlearn_steps)
        return self.nodes.detach()

    def step(self, number: int) -> None:
        """One Adam step of E."""
        users, items = self.graph.global_view(self.nodes)
        loss = self.graph.ranking_loss(users, items, self.seed, number) + self.graph.penalty(self.nodes)
        loss = loss + self.config.unlearn_contrast * self._contrast(torch.cat([users, items]), number)
        loss = loss + self.config.stay_close * self._drift()
        if self.config.ascent:
            trace = self.withdrawn.ranking_loss(users, items, self.seed, number, self.forgotten)
            loss = loss - self.config.ascent * self.share * trace
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam.step()

    def _contrast(self, view: Tensor, number: int) -> Tensor:
        batch = self._batch(number)
        anchors = view[self.affected[batch]]
        losses = [
            info_nce(anchors, positives[batch], self.induced[batch], self.config.temperature).mean()
            for positives in self.positives
        ]
        return torch.stack(losses).mean()

    def _batch(self, number: int) -> Tensor:
        """A keyed batch of positions in `affected`."""
        order = streams.bits(self.seed, number, 0, "unlearning", np.arange(len(self.affected)))
        return torch.from_numpy(np.argsort(order)[: self.config.contrast_batch])

    def _drift(self) -> Tensor:
        """Mean squared move of the rows that R does not touch."""
        moved = (self.nodes - self.start).square().sum(dim=1)
        untouched = torch.ones(len(moved))
        untouched[self.affected] = 0
        return moved @ untouched / len(moved)

    @staticmethod
    def _view(nodes: Tensor, graph: SharedGraph) -> Tensor:
        return torch.cat(graph.global_view(nodes))


def _cleared(nodes: Tensor, retained: Interactions, forget: Interactions) -> Tensor:
    """A copy in which nodes that lost their last edge are zero."""
    return as_tensor(without_isolated(nodes.numpy(), retained, forget))
