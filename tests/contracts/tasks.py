"""Client tasks whose right answer is plain, over data small enough to think through. All sums are of whole numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data import Interactions, Sharing
from retract.federation import (
    Arrays,
    Broadcast,
    ClientState,
    Cohort,
    Reply,
    TaskSpec,
    TensorSpec,
    Update,
    UpdateSpec,
)
from tests.samples import numbered_catalog

SYSTEM = "contract"
N_USERS, N_ITEMS = 9, 6


def data() -> Interactions:
    """Nine users, of whom u3 and u8 hold nothing; with ratings."""
    draw = np.random.default_rng(5)
    users, items = np.nonzero(draw.random((N_USERS, N_ITEMS)) < 0.5)
    keep = ~np.isin(users, [3, 8])
    users, items = users[keep], items[keep]
    return Interactions.of(numbered_catalog(N_USERS, N_ITEMS), users, items, 1 + (users + items) % 5)


def sharing(clients: int | None = None) -> Sharing:
    """Half of it shared; the users are clients of their own unless dealt among fewer."""
    made = Sharing.by_ratio(data(), 0.5)
    return made if clients is None else made.held_by(clients)


COUNTED = UpdateSpec(
    {
        "items": TensorSpec((N_ITEMS, 2), "float64", layout="rows"),
        "interactions": TensorSpec((), "int64"),
    }
)
READ = UpdateSpec({"items": TensorSpec((N_ITEMS,), "int64")})


def spec(task: str, run: str = "a", journal: int | None = None) -> TaskSpec:
    """A task as a server asks for it."""
    return TaskSpec(SYSTEM, task, {}, run, READ if task == "read" else COUNTED, journal)


def broadcast(round: int) -> Broadcast:
    """Twelve bytes."""
    return Broadcast(round, {"table": np.arange(3, dtype=np.float32)})


def numbers(cohort: Cohort) -> NDArray[np.int64]:
    """The client of each user, by place in the cohort."""
    return np.arange(len(cohort)) if cohort.clients is None else cohort.clients


class Count:
    """Counts items, weighted by what the client counted before: doing a round twice, or in another order, shows.

    A client keeps "seen", from 1 to 3 at first, which it doubles and adds its interactions and the round to.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.update = spec.update

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        first = 1 + streams.below(3, seed, 0, clients, "seen")
        return {"seen": first, "table": np.repeat(first[:, None], 2, axis=1).astype(np.float32)}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        client = numbers(cohort)[cohort.rows]
        own = np.bincount(client, minlength=cohort.n_clients)
        items = np.zeros((cohort.n_items, 2))
        np.add.at(items, cohort.items, np.stack([state["seen"][client], np.ones(len(client))], axis=1))
        sums = {"items": items, "interactions": np.asarray(len(cohort.items), dtype=np.int64)}
        touched = np.unique(client * cohort.n_items + cohort.items) // cohort.n_items
        sent = np.bincount(touched, minlength=cohort.n_clients) * (2 * 8 + 4) + 8
        seen = 2 * state["seen"] + own + broadcast.round
        after = {"seen": seen, "table": state["table"] + np.float32(broadcast.round)}
        return Reply(Update(self.update, sums, cohort.n_clients), after, sent)


class Write(Count):
    """Counts, and writes down which items it counted; the server's table is fetched in part."""

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        written: Arrays = {"client": numbers(cohort)[cohort.rows], "item": cohort.items}
        fetched = np.full(cohort.n_clients, 4)
        return replace(super().__call__(broadcast, cohort, state, seed), journal=written, download_bytes=fetched)


class Read:
    """The sum of what was written in a round; keeps nothing."""

    def __init__(self, spec: TaskSpec) -> None:
        self.update = spec.update

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        items = cohort.journal.get("item", np.empty(0, dtype=np.int64))
        sums = {"items": np.bincount(items, minlength=cohort.n_items).astype(np.int64)}
        sent = np.full(cohort.n_clients, cohort.n_items * 8)
        return Reply(Update(self.update, sums, cohort.n_clients), {}, sent)


class Misshape(Count):
    """Answers with an update of a shape of its own."""

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        reply = super().__call__(broadcast, cohort, state, seed)
        other = UpdateSpec({"items": TensorSpec((N_ITEMS + 1,), "float64")})
        return replace(reply, update=other.zeros())


TASKS = {"count": Count, "write": Write, "read": Read, "misshape": Misshape}
