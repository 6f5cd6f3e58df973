"""The wire between a server and its devices: what goes down, what comes back, and who runs it.

The law
-------
For any split of the users into cohorts A and B, ``task(A | B).update == task(A).update + task(B).update``, and no
client's new state depends on who else was in its cohort. It is what lets one implementation serve both a vectorised
simulation of thousands of users and one device that knows only itself. It holds because an update is a sum over
clients, and because all randomness is keyed by (seed, round, user, purpose), see `retract.streams`.

All tensors here are NumPy arrays: a task may compute by whatever it likes, but what crosses a border is an array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation.updates import Arrays, Update, UpdateSpec

ClientState = Arrays
"""What clients keep between rounds: arrays by name, one row per client of the cohort."""


@dataclass(frozen=True)
class TaskSpec:
    """A client task as data: a device makes the task anew from it, by the name that its own software knows.

    Parameters
    ----------
    system, task
        Names of the system and of the task within it.
    settings
        The system's settings as the server trains with them; plain values.
    run
        Id of the training whose state the clients keep. A client that has none of this run starts anew, so a reset
        reaches whoever was away.
    update
        What the server asks for; an engine refuses a reply that does not fit it.
    journal
        The round whose entries clients are to read from their own journals; None for tasks that read none.
    """

    system: str
    task: str
    settings: Mapping[str, Any]
    run: str
    update: UpdateSpec
    journal: int | None = None


@dataclass(frozen=True)
class Broadcast:
    """What the server sends to every client of a round.

    Parameters
    ----------
    round
        The round's number; part of the key of every random draw.
    tables
        The public tables, by name.
    """

    round: int
    tables: Arrays

    @cached_property
    def nbytes(self) -> int:
        """Bytes that one client receives."""
        return sum(np.asarray(table).nbytes for table in self.tables.values())


@dataclass(frozen=True)
class Cohort:
    """The data of some clients, side by side. Only a device store makes one, and only a client task reads it.

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
    journal
        What these clients wrote to their own journals in the round that the task asks for: columns, one of them
        "client", the place of the client in this cohort.
    """

    users: NDArray[np.int64]
    indptr: NDArray[np.int64]
    items: NDArray[np.int64]
    n_items: int
    ratings: NDArray[np.float32] | None = None
    clients: NDArray[np.int64] | None = None
    journal: Arrays = field(default_factory=dict)

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

    @cached_property
    def items_held(self) -> NDArray[np.int64]:
        """Distinct items of each client, shape [n_clients]."""
        if self.clients is None:
            return self.degrees
        pairs = np.unique(self.clients[self.rows] * self.n_items + self.items)
        return np.bincount(pairs // self.n_items, minlength=self.n_clients).astype(np.int64)


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
        The size of each client's own message, had it been sent alone, int64, shape [n_clients]: for a single client,
        `retract.federation.updates.payload_bytes` of its update.
    download_bytes
        What each client fetched of the broadcast, likewise; None where that was all of it.
    journal
        What the clients write to their own journals of this round, as columns; it stays with them. "client" is the
        place of the client in the cohort.
    """

    update: Update
    state: ClientState
    upload_bytes: NDArray[np.int64]
    download_bytes: NDArray[np.int64] | None = None
    journal: Arrays | None = None


class ClientTask(Protocol):
    """Pure work beside the users' data; obeys the law above. Its class is called with a `TaskSpec`."""

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """The state of clients that take part for the first time, one row per client; empty for a task without one."""
        ...

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """One round of local work."""
        ...


TaskMakers = Mapping[str, Callable[[TaskSpec], ClientTask]]
"""What a device can do, by name."""


@dataclass(frozen=True)
class Kept:
    """What devices keep of one training, beside their histories: what a reader of the model may use on a device.

    Parameters
    ----------
    clients
        Those with a state, ascending, int64, shape [n].
    state
        A row for each of them.
    client_of
        The client of every user; None where every user is one.
    held
        What they hold; None where nobody holds anything.
    shared
        What of it they share; None where that is not known.
    """

    clients: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    state: ClientState = field(default_factory=dict)
    client_of: NDArray[np.int64] | None = None
    held: Interactions | None = None
    shared: Interactions | None = None

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user, shape [len(users)]."""
        return users if self.client_of is None else self.client_of[users]

    def places_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each user's client in `state`, shape [len(users)]; -1 where there is none."""
        clients = self.clients_of(users)
        at = np.searchsorted(self.clients, clients)
        found = at < len(self.clients)
        found[found] = self.clients[at[found]] == clients[found]
        places: NDArray[np.int64] = np.where(found, at, -1)
        return places


NOTHING_KEPT = Kept()
"""What somebody has who holds no device."""


class DeviceStore(Protocol):
    """Devices as their own software keeps them: interactions, what of them is shared, and state by (run, round).

    A store hosts one client or thousands. Whatever it allocates, it allocates for the clients that it hosts.
    """

    @property
    def users(self) -> NDArray[np.int64]:
        """Codes of the hosted users with something to learn from, ascending."""
        ...

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user."""
        ...

    def cohorts(self, spec: TaskSpec, users: NDArray[np.int64], interactions: int) -> Iterator[Cohort]:
        """The users' data in cohorts of whole clients, of at most so many interactions each or of a single client.

        With what they wrote to their journals in `spec.journal`, where the task asks for it.
        """
        ...

    def state(self, task: ClientTask, spec: TaskSpec, round: int, cohort: Cohort, seed: int) -> ClientState:
        """The state of a cohort's clients before a round; clients without one of this run start theirs.

        Asked again for a round that was kept already, it is what stood before that round: a retry changes nothing
        twice.
        """
        ...

    def keep(self, spec: TaskSpec, round: int, cohort: Cohort, reply: Reply) -> None:
        """Keep the clients' new state, and what they write to their journals."""
        ...

    def kept(self, run: str) -> Kept:
        """What the hosted clients keep of a run."""
        ...


@dataclass
class Traffic:
    """What passed since an engine was made: bytes of all clients both ways, updates, rounds, and seconds of work."""

    up: int = 0
    down: int = 0
    updates: int = 0
    rounds: int = 0
    seconds: float = 0.0

    def add(self, result: RoundResult, seconds: float, clients: int) -> None:
        """Count a round."""
        self.up += result.bytes_up
        self.down += result.bytes_down
        self.updates += clients
        self.rounds += 1
        self.seconds += seconds


@dataclass(frozen=True)
class RoundResult:
    """What a round brought.

    Parameters
    ----------
    update
        The sum over those who answered; over nobody, zeros.
    answered, missing
        Codes of the users whose clients answered and did not, ascending. A formula weighs by who answered.
    bytes_up, bytes_down
        Of all clients together. Where the devices are simulated, what their own messages would weigh.
    """

    update: Update
    answered: NDArray[np.int64]
    missing: NDArray[np.int64]
    bytes_up: int
    bytes_down: int


class Engine(Protocol):
    """Runs client tasks where the clients are. A server holds one and learns nothing but the sums."""

    traffic: Traffic

    @property
    def users(self) -> NDArray[np.int64]:
        """The user codes that can be asked, ascending."""
        ...

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user; with one user per client its code."""
        ...

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Run a task on some users' clients and return the sum of their updates, and who answered.

        Raises
        ------
        ConfigError
            If no user is given.
        FederationError
            If a reply does not fit the specification.
        """
        ...
