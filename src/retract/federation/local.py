"""The local engine: all clients on this machine, run as vectorised cohorts of bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions, Sharing
from retract.errors import ConfigError
from retract.federation.contracts import Broadcast, ClientTask, Cohort, Traffic, Update


class Clients:
    """The users' devices in a local run: their interactions and what they keep between rounds.

    No server function takes one; a server reaches clients through an `Engine`.

    Parameters
    ----------
    sharing
        Every user's interactions and which of them are shared.
    state
        What the clients keep, tensors of one row per client.
    started
        Which clients have a state yet, bool, shape [n_clients].
    """

    def __init__(self, sharing: Sharing, state: dict[str, Tensor] | None = None, started: Tensor | None = None) -> None:
        self.sharing = sharing
        self.state = {} if state is None else state
        self.client_of = np.arange(sharing.shared.n_users) if sharing.client_of is None else sharing.client_of
        n_clients = int(self.client_of.max(initial=-1)) + 1
        self.started = torch.zeros(n_clients, dtype=torch.bool) if started is None else started

    @property
    def interactions(self) -> Interactions:
        """All that the clients hold, shared and private alike."""
        return self.sharing.everything

    def unshare(self, forget: Interactions) -> Clients:
        """The clients after `forget` went from shared to private: they still know it, so their state stays."""
        return Clients(self.sharing.unshare(forget), self._copy(), self.started.clone())

    def erase(self, forget: Interactions) -> Clients:
        """The clients after `forget` is gone.

        A client that erased anything starts anew: its state was trained on what is gone.
        """
        return self._with(self.sharing.erase(forget), forget.users)

    def with_sharing(self, sharing: Sharing) -> Clients:
        """The same devices with other data, which may be over a larger catalog.

        New clients have no state yet, and a client that holds more or less than before starts anew.
        """
        held, now = self.sharing.over(sharing.shared.catalog).everything, sharing.everything
        return self._with(sharing, np.setxor1d(held.keys, now.keys) // now.n_items)

    def _with(self, sharing: Sharing, changed: NDArray[np.int64]) -> Clients:
        """The same devices with other data; those of the users `changed` start anew."""
        after = Clients(sharing)
        more = len(after.started) - len(self.started)
        after.started = torch.cat([self.started, self.started.new_zeros(more)])
        after.started[torch.from_numpy(after.client_of[changed])] = False
        for name, rows in self.state.items():
            known = torch.cat([rows, rows.new_zeros(more, *rows.shape[1:])])
            after.state[name] = known * after.started.view(-1, *[1] * (rows.dim() - 1))
        return after

    def _copy(self) -> dict[str, Tensor]:
        return {name: rows.clone() for name, rows in self.state.items()}


class LocalEngine:
    """Runs client tasks on this machine.

    Parameters
    ----------
    clients
        The devices to run on.
    cohort_interactions
        Interactions per cohort at most; bounds the memory of a round, never its result. A single user with more makes a
        cohort alone.

    Raises
    ------
    ConfigError
        If `cohort_interactions` is below 1.
    """

    def __init__(self, clients: Clients, cohort_interactions: int = 2_000_000) -> None:
        if cohort_interactions < 1:
            raise ConfigError(f"cohort_interactions is {cohort_interactions}: a cohort holds at least 1 interaction")
        self.clients = clients
        self.cohort_interactions = cohort_interactions
        self._interactions = clients.interactions
        self.traffic = Traffic.none(len(clients.started))

    @property
    def users(self) -> NDArray[np.int64]:
        """Users with at least one interaction, ascending."""
        return self._interactions.active_users()

    @property
    def client_of(self) -> NDArray[np.int64]:
        """The client of every user, shape [n_users]."""
        return self.clients.client_of

    def reset(self) -> None:
        """Every client drops what it kept between rounds."""
        self.clients.state.clear()
        self.clients.started[:] = False

    def run(self, task: ClientTask, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> Update:
        """Run `task` on the clients of `users` and return the sum of their updates.

        Parameters
        ----------
        users
            User codes, ascending, each once.

        Raises
        ------
        ConfigError
            If no user is given.
        """
        if not len(users):
            raise ConfigError("no client takes part in this round: at least one user must hold an interaction")
        total: Update | None = None
        began = time.perf_counter()
        for cohort in self._cohorts(np.asarray(users, dtype=np.int64)):
            at = torch.from_numpy(np.unique(self.client_of[cohort.users]))
            reply = task(broadcast, cohort, self._state(task, at, seed), seed)
            for name, rows in reply.state.items():
                self.clients.state[name][at] = rows
            self.traffic.up[at] += reply.upload_bytes
            self.traffic.down[at] += broadcast.nbytes if reply.download_bytes is None else reply.download_bytes
            total = reply.update if total is None else total + reply.update
        self.traffic.updates += len(np.unique(self.client_of[users]))
        self.traffic.seconds += time.perf_counter() - began
        assert total is not None
        return total

    def _state(self, task: ClientTask, at: Tensor, seed: int) -> dict[str, Tensor]:
        """The cohort's rows; clients without a state start theirs."""
        new = at[~self.clients.started[at]]
        fresh = task.start(new.numpy(), seed) if len(new) else {}
        for name, rows in fresh.items():
            if name not in self.clients.state:
                empty = torch.zeros((len(self.clients.started), *rows.shape[1:]), dtype=rows.dtype)
                self.clients.state[name] = empty
            self.clients.state[name][new] = rows
        if fresh:  # a task that keeps nothing starts nobody
            self.clients.started[new] = True
        return {name: rows[at] for name, rows in self.clients.state.items()}

    def _cohorts(self, users: NDArray[np.int64]) -> Iterator[Cohort]:
        """Consecutive clients, cut where the next one would overflow the bound."""
        source, client_of = self._interactions, self.client_of
        users = users[np.argsort(client_of[users], kind="stable")]
        numbers, first = np.unique(client_of[users], return_index=True)
        loads = np.add.reduceat(source.user_degrees()[users], first) if len(first) else first
        ends, begin = np.append(first[1:], len(users)), 0
        while begin < len(numbers):
            load = np.cumsum(loads[begin:])
            end = begin + max(1, int(np.searchsorted(load, self.cohort_interactions, side="right")))
            part = users[first[begin] : ends[end - 1]]
            many = self.clients.sharing.client_of is not None
            yield Cohort.of(source, part, np.unique(client_of[part], return_inverse=True)[1] if many else None)
            begin = end
