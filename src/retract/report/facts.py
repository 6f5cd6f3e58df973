"""The facts that a demo page shows: frozen.

`retract.auditing.demo` measures them; `charts`, `findings` and `page` read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from retract.systems.base import SystemConfig

T = TypeVar("T")
U = TypeVar("U")
NAMES = ("before", "after", "oracle")


@dataclass(frozen=True)
class Trio(Generic[T]):
    """One quantity of three models.

    Parameters
    ----------
    before
        Of the model as trained, which is also what remains if only the store is cleaned.
    after
        Of the model after unlearning.
    oracle
        Of the model trained again without what was withdrawn: the target.
    """

    before: T
    after: T
    oracle: T

    def __iter__(self) -> Iterator[T]:
        return iter((self.before, self.after, self.oracle))

    def map(self, change: Callable[[T], U]) -> Trio[U]:
        """The trio of `change` of each."""
        return Trio(change(self.before), change(self.after), change(self.oracle))

    def items(self) -> Iterator[tuple[str, T]]:
        """Names and values."""
        return zip(NAMES, self, strict=True)


@dataclass(frozen=True)
class Accuracy:
    """Means over some users, in [0, 1]; NaN where none of them was tested."""

    recall: float
    ndcg: float


@dataclass(frozen=True)
class CurvePoint:
    """The published model after some rounds of training."""

    round: int
    ndcg: float


@dataclass(frozen=True)
class Level:
    """A model trained with everyone sharing the same part.

    Parameters
    ----------
    ratio
        The shared part of everyone's interactions.
    accuracy
        Of the trained model, over all users.
    curve
        NDCG along the training.
    seconds
        Training time.
    """

    ratio: float
    accuracy: Accuracy
    curve: tuple[CurvePoint, ...]
    seconds: float


@dataclass(frozen=True)
class Listed:
    """A recommended item.

    Parameters
    ----------
    title
        For people to read.
    moved
        In the list before: it is gone after unlearning. In the lists after and of the oracle: it was not there before.
    held_out
        Whether it is in the user's test part: a hit.
    """

    title: str
    moved: bool
    held_out: bool


@dataclass(frozen=True)
class Forgotten:
    """A withdrawn item and its position in the user's list of all items, 1 being the top."""

    title: str
    position: Trio[int]


@dataclass(frozen=True)
class Person:
    """A withdrawer whose lists are shown.

    Parameters
    ----------
    user
        The original id.
    kept, withdrawn
        How many interactions were private all along, and how many were shared until the withdrawal.
    examples
        Some of the withdrawn items.
    lists
        The top of the recommendations.
    """

    user: str
    kept: int
    withdrawn: int
    examples: tuple[Forgotten, ...]
    lists: Trio[tuple[Listed, ...]]


@dataclass(frozen=True)
class Agreement:
    """How many of the oracle's top items stand in the other two lists, mean over all withdrawers."""

    k: int
    before: float
    after: float


@dataclass(frozen=True)
class Trace:
    """Where the forgotten items stand, one number per interaction: 0 is the top of the user's list, 1 the bottom."""

    ranks: Trio[tuple[float, ...]]

    @property
    def means(self) -> Trio[float]:
        """Mean percentile ranks."""
        return self.ranks.map(lambda ranks: float(np.mean(ranks)))

    @property
    def medians(self) -> Trio[float]:
        """Median percentile ranks."""
        return self.ranks.map(lambda ranks: float(np.median(ranks)))


@dataclass(frozen=True)
class Group:
    """Some users' accuracy under the three models."""

    name: str
    users: int
    accuracy: Trio[Accuracy]


@dataclass(frozen=True)
class Spent:
    """What one way to forget took: seconds, and bytes over the network, all clients together."""

    seconds: float
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class Costs:
    """What forgetting cost.

    Parameters
    ----------
    unlearning, retraining
        The two ways.
    memory
        Bytes that the server keeps to be able to unlearn.
    update_log
        Bytes that a log of all client updates of the same training would take.
    """

    unlearning: Spent
    retraining: Spent
    memory: int
    update_log: int


@dataclass(frozen=True)
class About:
    """Where the figures come from.

    Parameters
    ----------
    data, notes
        The data set's name and what it says of itself.
    own_split
        Whether the part to test on came with the data.
    users, items, interactions
        How many, those to test on included.
    tested
        Users with something to test.
    seed, config
        Key of every draw, and the settings.
    """

    data: str
    notes: tuple[str, ...]
    own_split: bool
    users: int
    items: int
    interactions: int
    tested: int
    seed: int
    config: SystemConfig


@dataclass(frozen=True)
class Story:
    """Everything that the page tells.

    Parameters
    ----------
    about
        Data, seed and settings.
    levels
        One trained model per share ratio, ascending.
    ratio
        What everyone shares before some withdraw.
    withdrawers, withdrawn
        How many users withdraw, and how many interactions.
    people
        Three of the withdrawers.
    agreement
        Of all withdrawers' lists with the oracle's.
    device, server
        The forgotten items' ranks as the users' devices compute them, and as the server alone could.
    groups
        Everyone, withdrawers, and the others.
    costs
        Seconds and bytes.
    verdict
        Whether the model forgot, as a word and as sentences.
    """

    about: About
    levels: tuple[Level, ...]
    ratio: float
    withdrawers: int
    withdrawn: int
    people: tuple[Person, ...]
    agreement: Agreement
    device: Trace
    server: Trace
    groups: tuple[Group, ...]
    costs: Costs
    verdict: tuple[str, str]
