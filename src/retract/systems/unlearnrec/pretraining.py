"""Pre-training an influence encoder: forget sets drawn again and again, and what each of them should lead to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax, softplus

from retract import streams
from retract.data import Interactions
from retract.models.learn.backbones import Moment
from retract.models.learn.losses import aligned_info_nce
from retract.systems.backbone_training import descend, make_loss
from retract.systems.base import Progress, Stopwatch
from retract.systems.unlearnrec.config import UnlearnRecConfig
from retract.systems.unlearnrec.encoder import Encoder, Removal

RATES = (0.005, 0.1)
"""Part of the edges that the paper's forget sets take, log-uniform between the two."""
WHOLE_USERS = 0.02
"""Part of the users of whom a forget set takes everything."""
HEAVY = {0.02: 0.5, 0.05: 0.25}
"""Part of the users, and what part of theirs is withheld: requests come in all sizes."""
CLASSES = 4
"""Quantiles of degree, of users and of items, within which margins are held against the twin's."""
IN_BATCH = 1024
"""Retained positives whose order among each other is preserved, and nodes that are told apart."""


def withheld(shared: Interactions, part: float, seed: int) -> Interactions:
    """What a twin of the model is to be trained without: from everything of some users to a little of most."""
    who = streams.uniform(seed, 0, np.arange(shared.n_users), "withheld users")
    of_user, bound = np.full(shared.n_users, part), WHOLE_USERS
    of_user[who < bound] = 1.0
    for users, theirs in HEAVY.items():
        of_user[(who >= bound) & (who < bound + users)] = max(theirs, part)
        bound += users
    draw = streams.uniform(seed, 0, shared.users, "withheld", shared.items)
    return shared.where(draw < of_user[shared.users])


def part_of(withheld: Interactions, number: int, seed: int) -> Interactions:
    """All that was withheld, for number 0, and then smaller and smaller parts of it, by users and by edges."""
    keep = 0.6**number
    of_user = streams.uniform(seed, number, withheld.users, "forget set users") < keep
    of_edge = streams.uniform(seed, number, withheld.users, "forget set", withheld.items) < keep
    return withheld.where(of_user & of_edge)


def any_part(shared: Interactions, number: int, seed: int) -> Interactions:
    """A forget set as the paper draws it: edges at a rate of `RATES`, or all edges of some users."""
    low, high = np.log(RATES)
    rate = np.exp(low + (high - low) * streams.uniform(seed, number, 0, "rate")[0])
    if number % 4 == 3:
        return shared.where(streams.uniform(seed, number, shared.users, "whole users") < min(rate, WHOLE_USERS))
    return shared.where(streams.uniform(seed, number, shared.users, "forget set", shared.items) < rate)


@dataclass(frozen=True, eq=False)
class Margins:
    """How far the forgotten stand above other items of like popularity, by classes of degree.

    Parameters
    ----------
    users, items, others
        Forgotten edges, and for each an item that its user never had; shape [n].
    classes
        The class of each, shape [n].
    """

    users: Tensor
    items: Tensor
    others: Tensor
    classes: Tensor

    @classmethod
    def of(cls, forget: Interactions, held: Interactions, kept: Interactions, seed: int) -> Margins:
        """Those of a forget set.

        Parameters
        ----------
        held
            All that users had.
        kept
            What is known to the model that they are held against: users of whom it knows nothing are left out.
        """
        drawn = streams.below(len(held), seed, 0, forget.users, "other item", forget.items)
        others = held.items[drawn]  # of a random edge: as popular as what is forgotten
        fair = ~np.isin(forget.users * held.n_items + others, held.keys) & (kept.user_degrees()[forget.users] > 0)
        users, items = forget.users[fair], forget.items[fair]
        classes = _quantile(kept.user_degrees()[users]) * CLASSES + _quantile(kept.item_degrees()[items])
        return cls(*(torch.from_numpy(column) for column in (users, items, others[fair], classes)))

    def each(self, table: Tensor, n_users: int) -> Tensor:
        """The margin of each edge under a table of embeddings (shape [n_nodes, d]), shape [n]; differentiable."""
        items, others = (table.index_select(0, codes + n_users) for codes in (self.items, self.others))
        return (table.index_select(0, self.users) * (items - others)).sum(dim=1)

    def apart(self, margins: Tensor, target: Tensor, clear: float = 0.0) -> Tensor:
        """How far the classes' mean margins lie from those of `target` (shape [n] both), relative to the latter's size.

        The mean square, by the sizes of the classes; tables of any scale count alike. With `clear` > 0, a part of that
        size, a margin counts by its tanh in units of it: an attack goes by order, and a mean that the widest margins
        decide may be right where the order is not.
        """
        counts = torch.bincount(self.classes, minlength=CLASSES**2).float()
        size = (target.norm() / max(len(target), 1) ** 0.5).clamp_min(1e-12)
        counted = [torch.tanh(each / (clear * size)) if clear else each / size for each in (margins, target)]
        sums = torch.zeros(CLASSES**2).index_add(0, self.classes, counted[0] - counted[1])
        return (sums.square() / counts.clamp_min(1)).sum() / counts.sum().clamp_min(1)


@dataclass(frozen=True, eq=False)
class Example:
    """A forget set to learn from.

    Parameters
    ----------
    removal
        The forget set.
    unlearning
        The loss that says whether it is forgotten, of initial and final embeddings (shape [n_nodes, d] each).
    thinned
        The same with some forgotten edges left out, which is to change little; None where that is not asked.
    """

    removal: Removal
    unlearning: Callable[[Tensor, Tensor], Tensor]
    thinned: Removal | None = None


def calibrated(
    removal: Removal, held: Interactions, twin: tuple[Tensor, Tensor], kept: Interactions, seed: int
) -> Example:
    """The forgotten are to stand where a model puts them that never knew them.

    Parameters
    ----------
    held
        What the model was trained on.
    twin, kept
        Initial and final embeddings of such a model (shape [n_nodes, d] each), and what it was trained on.
    """
    margins, n_users = Margins.of(removal.forget, held, kept, seed), held.n_users
    targets = [margins.each(table, n_users) for table in twin]

    def unlearning(*tables: Tensor) -> Tensor:
        pairs, clear = zip(tables, targets, strict=True), removal.config.clear_margin
        gaps = [margins.apart(margins.each(table, n_users), to, clear) for table, to in pairs]
        return torch.stack(gaps).sum()

    return Example(removal, unlearning)


def pushed_down(removal: Removal, drop: float, seed: int) -> Example:
    """The paper's: -log σ(-ŷ) on the forgotten, as if they were negatives."""
    users, items = (torch.from_numpy(codes) for codes in (removal.forget.users, removal.forget.items))

    def unlearning(_: Tensor, final: Tensor) -> Tensor:
        scores = (final.index_select(0, users) * final.index_select(0, items + removal.graph.n_users)).sum(dim=1)
        return softplus(scores).sum() / max(len(scores), 1)  # whole users may be none

    draw = streams.uniform(seed, 0, removal.forget.users, "forgotten edges dropped", removal.forget.items)
    thinned = replace(removal, forget=removal.forget.where(draw >= drop))
    return Example(removal, unlearning, thinned)


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, and with which key parameters are fitted."""

    stage: str
    steps: int
    rate: float
    seed: int
    seconds: float = math.inf


def fit_encoder(
    config: UnlearnRecConfig,
    encoder: Encoder,
    parameters: Iterable[Tensor],
    example: Callable[[int], Example],
    schedule: Schedule,
    progress: Progress,
) -> list[Mapping[str, Any]]:
    """Fit an encoder's parameters, and a record of each step.

    The loss of a step is the backbone's on the retained graph, and, each with its weight, the unlearning loss, the
    preservation loss, and the robustness loss where the example asks for it.

    Parameters
    ----------
    parameters
        Those of the encoder that are to move.
    example
        The forget set of a step.
    schedule
        No step begins after `seconds`.
    """
    adam = torch.optim.Adam(list(parameters), lr=schedule.rate, betas=(0.9, 0.99))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, schedule.steps)
    log: list[Mapping[str, Any]] = []
    watch = Stopwatch()
    for step in range(schedule.steps):
        if watch.seconds > schedule.seconds:
            break
        losses = _losses(config, encoder, example(step), schedule.seed, step)
        descend(adam, torch.stack(list(losses.values())).sum())
        decay.step()
        log.append({"stage": schedule.stage, "round": step, **{name: loss.item() for name, loss in losses.items()}})
        progress(schedule.stage, step + 1, schedule.steps)
    return log


def _losses(config: UnlearnRecConfig, encoder: Encoder, example: Example, seed: int, step: int) -> dict[str, Tensor]:
    """What a step descends, by name."""
    removal, at = example.removal, Moment(seed, step)
    nodes = removal.applied(encoder)
    final = removal.backbone.final(removal.graph, nodes)
    losses = {
        "loss": make_loss(config)(removal.graph, nodes, at, final=final),
        "unlearning": config.unlearn_weight * example.unlearning(nodes, final),
        "preservation": config.preserve_weight * _changed_order(removal, final, at),
    }
    if example.thinned is not None:
        rows = torch.from_numpy(streams.below(len(nodes), seed, step, 0, "nodes", np.arange(IN_BATCH)))
        views = (nodes[rows], example.thinned.applied(encoder)[rows])
        losses["robustness"] = config.robust_weight * aligned_info_nce(*views, config.temperature).mean()
    return losses


def _changed_order(removal: Removal, final: Tensor, at: Moment) -> Tensor:
    """Mean square of what changed in the log-softmax of retained positives among those of a batch."""
    edges = removal.graph.interactions
    drawn = streams.below(len(edges), at.seed, at.epoch, 0, "retained", np.arange(IN_BATCH))
    users, items = torch.from_numpy(edges.users[drawn]), torch.from_numpy(edges.items[drawn] + edges.n_users)
    before, after = (log_softmax(table[users] @ table[items].T, dim=1).diagonal() for table in (removal.final, final))
    return (after - before).square().mean()


def _quantile(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of CLASSES quantiles each value lies in."""
    if not len(values):
        return values
    bounds = np.quantile(values, np.arange(1, CLASSES) / CLASSES)
    classes: NDArray[np.int64] = np.searchsorted(bounds, values, side="left").astype(np.int64)
    return classes
