"""Stages beside the users' data: client tasks that clip and add noise for every client before anything is summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from retract.errors import FederationError
from retract.federation.contracts import (
    Broadcast,
    ClientState,
    ClientTask,
    Cohort,
    Reply,
    TaskMakers,
    TaskSpec,
)
from retract.federation.privacy.randomness import Randomness
from retract.federation.privacy.stages import Place, Stage, limits_of, private_name, require_sound
from retract.federation.updates import Arrays, Update, payload_bytes


def staged(tasks: TaskMakers, stages: Sequence[Stage], randomness: Randomness) -> TaskMakers:
    """What devices can do in private, and nothing else: a server cannot ask them for what is not clipped.

    Parameters
    ----------
    tasks
        What they can do.
    stages
        In order; the same as the server's `PrivateEngine` has.
    randomness
        The device's own; `Secret()` on a real one.

    Raises
    ------
    ConfigError
        If the stages do not begin with clipping.
    """
    require_sound(stages)
    return {
        private_name(name, stages): partial(Staged, name=name, make=make, stages=tuple(stages), randomness=randomness)
        for name, make in tasks.items()
    }


class Staged:
    """A client task whose every client's update passes the stages before it is added to the cohort's (a `ClientTask`).

    A cohort of many clients is taken apart and the task run for each, so the law holds, and any engine may run it.
    What that costs is the vectorised cohort: a client takes a call of the task.

    Parameters
    ----------
    spec
        Of the task, under its private name.
    name, make
        The task's own name and maker.
    stages, randomness
        As of `staged`.
    """

    def __init__(
        self,
        spec: TaskSpec,
        *,
        name: str,
        make: Callable[[TaskSpec], ClientTask],
        stages: tuple[Stage, ...],
        randomness: Randomness,
    ) -> None:
        self.name, self.stages, self.randomness = name, stages, randomness
        self.update, self.task = spec.update, make(replace(spec, task=name))
        self.limits = limits_of(stages, spec.update)

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """As the task starts them."""
        return self.task.start(clients, n_items, seed)

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The sum of what each client's update has become."""
        nothing = total = self.update.zeros()
        replies: list[Reply] = []
        for client in range(cohort.n_clients):
            own, rows = single(cohort, client), {name: rows[client : client + 1] for name, rows in state.items()}
            reply = self.task(broadcast, own, rows, seed)
            if reply.update.spec != self.update:
                raise FederationError(f"task {self.name!r} answers with another update than asked for")
            update = self.passed(reply.update, broadcast.round, int(own.users[0]))
            sent = np.array([payload_bytes(update)], dtype=np.int64)
            total = update if not total.clients else total + update
            replies.append(replace(reply, update=nothing, upload_bytes=sent))
        return _together(total, replies)

    def passed(self, update: Update, round: int, user: int) -> Update:
        """One client's update after all stages."""
        place = Place(self.randomness, round, self.name, user)
        for stage in self.stages:
            update = stage.on_client(update, self.limits, place)
        return update


def single(cohort: Cohort, client: int) -> Cohort:
    """One client of a cohort, alone."""
    if cohort.clients is None:
        users = slice(client, client + 1)
    else:  # those of a client lie together
        users = slice(*np.searchsorted(cohort.clients, [client, client + 1]))
    places = slice(int(cohort.indptr[users.start]), int(cohort.indptr[users.stop]))
    journal: Arrays = {}
    if cohort.journal:
        own = np.asarray(cohort.journal["client"]) == client
        journal = {name: np.asarray(column)[own] for name, column in cohort.journal.items()}
        journal = {**journal, "client": np.zeros(int(own.sum()), dtype=np.int64)}
    return Cohort(
        cohort.users[users],
        cohort.indptr[users.start : users.stop + 1] - cohort.indptr[users.start],
        cohort.items[places],
        cohort.n_items,
        None if cohort.ratings is None else cohort.ratings[places],
        None if cohort.clients is None else np.zeros(users.stop - users.start, dtype=np.int64),
        journal,
    )


def _together(total: Update, replies: Sequence[Reply]) -> Reply:
    """The replies of single clients as that of their cohort."""
    names = replies[0].state if replies else ()
    state = {name: np.concatenate([reply.state[name] for reply in replies]) for name in names}
    sent = np.concatenate([reply.upload_bytes for reply in replies])
    fetched = [reply.download_bytes for reply in replies if reply.download_bytes is not None]
    written = [
        {**reply.journal, "client": np.full(len(reply.journal["client"]), client)}
        for client, reply in enumerate(replies)
        if reply.journal is not None
    ]
    columns = written[0].keys() if written else ()
    journal = {name: np.concatenate([part[name] for part in written]) for name in columns}
    return Reply(total, state, sent, np.concatenate(fetched) if fetched else None, journal if written else None)
