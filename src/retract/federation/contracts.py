"""The wire between a server and its clients: what goes down, what comes back, and who runs it.

The law
-------
For any split of the users into cohorts A and B, ``task(A | B).update == task(A).update + task(B).update``, and no
client's new state depends on who else was in its cohort. It is what lets one implementation serve both a vectorised
simulation of thousands of users and one device that knows only itself. It holds because an update is a sum over
clients, and because all randomness is keyed by (seed, round, user, purpose), see `retract.streams`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions


@dataclass(frozen=True)
class Broadcast:
    """What the server sends to every client of a round.

    Parameters
    ----------
    round
        The round's number; part of the key of every random draw.
    tensors
        The public tables, by name.
    """

    round: int
    tensors: Mapping[str, Tensor]

    @cached_property
    def nbytes(self) -> int:
        """Bytes that one client receives."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class Update:
    """A sum over clients, and nothing that tells them apart: it can be formed by a secure sum.

    Parameters
    ----------
    tensors
        Sums by name; two updates of one task have the same names and shapes.
    clients
        How many clients the sum is over.
    """

    tensors: Mapping[str, Tensor]
    clients: int

    def __add__(self, other: Update) -> Update:
        tensors = {name: tensor + other.tensors[name] for name, tensor in self.tensors.items()}
        return Update(tensors, self.clients + other.clients)


@dataclass(frozen=True)
class Cohort:
    """The data of some clients, side by side. Only an engine makes one, and only a client task reads it.

    Parameters
    ----------
    users
        User codes, int64, shape [n]; each once, those of a client together, and ascending within it.
    indptr
        Row pointers into `items`, int64, shape [n + 1].
    items
        Each client's interactions, shared and private alike, int64, ascending within a client.
    n_items
        Items in the catalog.
    ratings
        Beside `items`, float32; None where the data has none.
    clients
        The client of each user, int64, shape [n]: ascending from 0. Each user is one unless given.
    """

    users: NDArray[np.int64]
    indptr: NDArray[np.int64]
    items: NDArray[np.int64]
    n_items: int
    ratings: NDArray[np.float32] | None = None
    clients: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, held: Interactions, users: NDArray[np.int64], clients: NDArray[np.int64] | None = None) -> Cohort:
        """Some users side by side, from all that the clients hold."""
        indptr, places = held.places_of(users)
        ratings = None if held.ratings is None else held.ratings[places]
        return cls(users, indptr, held.items[places], held.n_items, ratings, clients)

    def where(self, chosen: NDArray[np.bool_]) -> Cohort:
        """Some of the users, `chosen` of shape [n]; without their clients' numbers, which are for whole clients."""
        if chosen.all():
            return self
        kept, ratings = chosen[self.rows], self.ratings
        indptr = np.concatenate([[0], np.cumsum(self.degrees[chosen])])
        own = None if ratings is None else ratings[kept]
        return Cohort(self.users[chosen], indptr, self.items[kept], self.n_items, own)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_clients(self) -> int:
        """How many clients they are."""
        return len(self) if self.clients is None else int(self.clients.max(initial=-1)) + 1

    @cached_property
    def degrees(self) -> NDArray[np.int64]:
        """Interactions per client, shape [n]."""
        return np.diff(self.indptr)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """For every interaction, the position of its client in `users`."""
        return np.repeat(np.arange(len(self)), self.degrees)


ClientState = Mapping[str, Tensor]
"""What clients keep between rounds: tensors by name, one row per client of the cohort."""


@dataclass(frozen=True)
class Reply:
    """What a client task returns.

    Parameters
    ----------
    update
        The cohort's sum, all that leaves the clients.
    state
        The clients' new state; it stays with them.
    upload_bytes
        The size of each client's own message, had it been sent alone, int64, shape [n_clients].
    download_bytes
        What each client fetched of the broadcast, likewise; None where that was all of it.
    """

    update: Update
    state: ClientState
    upload_bytes: Tensor
    download_bytes: Tensor | None = None


class ClientTask(Protocol):
    """Pure work beside the users' data; obeys the law above."""

    def start(self, clients: NDArray[np.int64], seed: int) -> ClientState:
        """The state of clients that take part for the first time, one row per client."""
        ...

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """One round of local work."""
        ...


@dataclass
class Traffic:
    """Bytes and messages counted per client since the engine was made, int64, shape [n_clients]."""

    up: Tensor
    down: Tensor
    updates: int = 0
    seconds: float = field(default=0.0)

    @classmethod
    def none(cls, n_clients: int) -> Traffic:
        """Nothing counted yet."""
        return cls(torch.zeros(n_clients, dtype=torch.int64), torch.zeros(n_clients, dtype=torch.int64))


class Engine(Protocol):
    """Runs client tasks where the clients are. A server holds one and learns nothing but the sums."""

    traffic: Traffic

    @property
    def users(self) -> NDArray[np.int64]:
        """The user codes that can be asked, ascending."""
        ...

    @property
    def client_of(self) -> NDArray[np.int64]:
        """The client of every user, shape [n_users]; with one user per client its code."""
        ...

    def reset(self) -> None:
        """Every client drops what it kept between rounds, so that training starts from nothing."""
        ...

    def run(self, task: ClientTask, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> Update:
        """Run a task on some users' clients and return the sum of their updates."""
        ...
