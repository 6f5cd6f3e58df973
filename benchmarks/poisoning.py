"""Clients that send wrong updates, for `benchmarks.privacy` and the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from retract.federation import Broadcast, ClientState, ClientTask, Cohort, Reply, TaskMakers, TaskSpec, Update


def poisoned(tasks: TaskMakers, attackers: NDArray[np.int64], factor: float) -> TaskMakers:
    """Tasks in which the clients of some users send so many times their update. Run one client at a time."""
    return {name: partial(_Poisoned, make=make, attackers=attackers, factor=factor) for name, make in tasks.items()}


class _Poisoned:
    def __init__(
        self, spec: TaskSpec, *, make: Callable[[TaskSpec], ClientTask], attackers: NDArray[np.int64], factor: float
    ) -> None:
        self.task, self.attackers, self.factor = make(spec), attackers, factor

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        return self.task.start(clients, n_items, seed)

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        assert cohort.n_clients == 1
        reply = self.task(broadcast, cohort, state, seed)
        if not np.isin(cohort.users[0], self.attackers):
            return reply
        tensors = {
            name: np.asarray(tensor * np.asarray(self.factor).astype(np.asarray(tensor).dtype))
            for name, tensor in reply.update.tensors.items()
        }
        return replace(reply, update=Update(reply.update.spec, tensors, 1))
