"""The local engine: devices on this machine, run as vectorised cohorts of bounded memory."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.errors import ConfigError, FederationError
from retract.federation.contracts import (
    Broadcast,
    DeviceStore,
    RoundResult,
    TaskMakers,
    TaskSpec,
    Traffic,
)
from retract.federation.participation import require_users


class LocalEngine:
    """Runs client tasks on this machine.

    Parameters
    ----------
    devices
        Where the users' data lies.
    tasks
        What the devices can do.
    cohort_interactions
        Interactions per cohort at most; bounds the memory of a round, never its result. A single client with more makes
        a cohort alone.
    dropout
        The part of the clients that does not answer in a round, by a keyed draw: a simulation of a real network.

    Raises
    ------
    ConfigError
        If `cohort_interactions` is below 1, or `dropout` lies outside [0, 1).
    """

    def __init__(
        self, devices: DeviceStore, tasks: TaskMakers, *, cohort_interactions: int = 2_000_000, dropout: float = 0.0
    ) -> None:
        if cohort_interactions < 1:
            raise ConfigError(f"cohort_interactions is {cohort_interactions}: a cohort holds at least 1 interaction")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout is {dropout:g}: it must be at least 0 and below 1")
        self.devices, self.tasks, self.traffic = devices, tasks, Traffic()
        self.cohort_interactions, self.dropout = cohort_interactions, dropout

    @property
    def users(self) -> NDArray[np.int64]:
        """Users with at least one interaction, ascending."""
        return self.devices.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user."""
        return self.devices.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Run a task on the clients of `users`, ascending, each once; see `Engine`."""
        require_users(users)
        if spec.task not in self.tasks:
            raise FederationError(
                f"these devices do not know task {spec.task!r} of {spec.system}: update their retract"
            )
        began = time.perf_counter()
        task, asked = self.tasks[spec.task](spec), np.asarray(users, dtype=np.int64)
        hosted = np.isin(asked, self.devices.users)
        here = hosted & self._answering(asked, broadcast.round, seed)
        silent = np.unique(self.clients_of(asked[hosted & ~here]))
        total, up, down = spec.update.zeros(), 0, broadcast.nbytes * len(silent)
        for cohort in self.devices.cohorts(spec, asked[here], self.cohort_interactions):
            state = self.devices.state(task, spec, broadcast.round, cohort, seed)
            reply = task(broadcast, cohort, state, seed)
            total = reply.update if not total.clients else total + reply.update
            if total.spec != spec.update:
                raise FederationError(f"task {spec.task!r} of {spec.system} answers with another update than asked for")
            self.devices.keep(spec, broadcast.round, cohort, reply)
            fetched = reply.download_bytes
            up += int(reply.upload_bytes.sum())
            down += broadcast.nbytes * cohort.n_clients if fetched is None else int(fetched.sum())
        result = RoundResult(total, asked[here], asked[~here], up, down)
        self.traffic.add(result, time.perf_counter() - began, total.clients)
        return result

    def _answering(self, users: NDArray[np.int64], round: int, seed: int) -> NDArray[np.bool_]:
        """Which users' clients answer, shape [len(users)]."""
        if not self.dropout:
            return np.ones(len(users), dtype=np.bool_)
        return streams.uniform(seed, round, self.clients_of(users), "dropout") >= self.dropout


class NoDevices:
    """An engine that reaches nobody: what a server has while its federation is not there."""

    def __init__(self) -> None:
        self.traffic = Traffic()

    @property
    def users(self) -> NDArray[np.int64]:
        """Nobody."""
        return np.empty(0, dtype=np.int64)

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each user its own."""
        return users

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Refuse.

        Raises
        ------
        FederationError
            In any case.
        """
        raise FederationError(
            f"{spec.system} has to ask its devices, and none can be reached from here: run this where they are"
        )
