"""What some systems can do beyond training and forgetting; a caller asks with isinstance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Engine
from retract.systems.base import Kind, Progress, ServerSide, Trained, Withdrawal, no_progress

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Extendable(Protocol):
    """A server's half that takes in new data without training again."""

    def extend(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Add what is newly shared, over the catalog of `trained` or over one that appends to it."""
        ...


@runtime_checkable
class FixedItems(Protocol):
    """A server's half whose model has a place for the items that it was trained on, and for no others."""

    fixed_items: Literal[True]


@runtime_checkable
class Preparing(Protocol):
    """A server's half that spends time after training so as to forget fast later.

    `train` alone never prepares: the oracle and the shadow models need nothing to forget by, and what a request costs
    is compared with training alone.
    """

    def prepare(self, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """The same model, with what unlearning needs in its memory."""
        ...


@runtime_checkable
class Staged(Protocol):
    """A server's half that forgets in two stages: a part of its model at once, and what takes longer is made later."""

    def at_once(self, trained: Trained, withdrawal: Withdrawal) -> Trained | None:
        """A model that knows nothing of what is withdrawn, fast to make; None where `unlearn` is as fast."""
        ...

    def awaits(self, trained: Trained) -> bool:
        """Whether a part of this model is still to be made."""
        ...

    def refresh(self, trained: Trained) -> Trained:
        """The whole model of what is shared now: what training on it gives."""
        ...


@runtime_checkable
class Continuing(Protocol):
    """A server's half that can go on training where a model stands: for baselines, and for the time of relearning.

    `train` never does: only what is called so continues.
    """

    def continue_training(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        rounds: int,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """`rounds` more rounds on what is now shared and on what the devices now hold."""
        ...


Learnt = Literal["everything", "shared", "nothing"]
"""Of what users hold: shared and private alike, what is shared, or none of it."""


@runtime_checkable
class LearnsFromPrivate(Protocol):
    """A server's half whose model may come from private interactions too, as sums over clients."""

    def learnt(self, kind: Kind) -> Learnt:
        """What the model would change by if it were withdrawn so; said without being shown any of it."""
        ...


def learnt_from(server: ServerSide, kind: Kind) -> Learnt:
    """What a server's model would change by if it were withdrawn so: what is shared, unless it says another thing."""
    return server.learnt(kind) if isinstance(server, LearnsFromPrivate) else "shared"


Objective = Callable[["Tensor", int], "Tensor"]
"""A server's loss, of a node table (shape [n_users + n_items, d]) and of the step that keys its draws."""


@runtime_checkable
class Differentiable(Protocol):
    """A server's half that fits one table of nodes by gradients: what influence functions and ascent need."""

    def nodes(self, trained: Trained) -> NDArray[np.float32]:
        """The table as it stands: users, then items; shape [n_users + n_items, d]."""
        ...

    def objective(self, shared: Interactions, *, seed: int, among: Interactions | None = None) -> Objective:
        """The loss that training on `shared` minimises; with `among`, the part of it that these edges make up."""
        ...

    def with_nodes(self, trained: Trained, nodes: NDArray[np.float32], shared: Interactions) -> Trained:
        """The model that this table gives over the graph of `shared`."""
        ...
