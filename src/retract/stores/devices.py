"""Devices in memory: one client or thousands, their interactions, what they share, and their state by (run, round).

It stands for the users' own devices where these are simulated or audited. No server function takes one; a server
reaches devices through an `Engine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Catalog, Interactions, Sharing
from retract.federation import ClientState, ClientTask, Cohort, Kept, Reply, TaskSpec
from retract.stores.recoding import recoded_sharing


@dataclass
class States:
    """What hosted clients keep of one run.

    Parameters
    ----------
    rows
        Arrays by name, a row per hosted client.
    rounds
        The last round that each client was kept in, int64; `NEVER` for one without a state.
    previous
        What stood before the last round of those who took part in it: arrays by name beside "at", the clients' rows,
        and the rounds that they had been kept in.
    last
        The last round that was kept, and the task that it was of; None before the first, and where nothing of it can be
        put back any more.
    """

    rows: dict[str, NDArray[Any]] = field(default_factory=dict)
    rounds: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    previous: dict[str, NDArray[Any]] = field(default_factory=dict)
    last: tuple[int, str] | None = None

    def copy(self) -> States:
        """The same, to be changed by itself."""
        rows = {name: rows.copy() for name, rows in self.rows.items()}
        return States(rows, self.rounds.copy(), dict(self.previous), self.last)

    def moved(self, mine: NDArray[np.int64], theirs: NDArray[np.int64], n: int) -> States:
        """What the clients in rows `mine` keep, in rows `theirs` of n; the others have nothing."""
        rounds = np.full(n, NEVER)
        rounds[theirs] = self.rounds[mine]
        rows = {}
        for name, known in self.rows.items():
            rows[name] = np.zeros((n, *known.shape[1:]), dtype=known.dtype)
            rows[name][theirs] = known[mine]
        if self.last is None:
            return States(rows, rounds)
        stay = np.isin(self.previous["at"], mine)
        previous = {name: rows[stay] for name, rows in self.previous.items()}
        order = np.argsort(mine)
        previous["at"] = theirs[order[np.searchsorted(mine, previous["at"], sorter=order)]]
        return States(rows, rounds, previous, self.last)


NEVER = np.iinfo(np.int64).min


class MemoryDevices:
    """A `DeviceStore` in memory.

    Parameters
    ----------
    sharing
        Every hosted user's interactions and which of them are shared.
    states
        What the clients keep, by run.
    journals
        What clients wrote to their own journals, by (run, round): columns, "client" among them.
    """

    def __init__(
        self,
        sharing: Sharing,
        states: dict[str, States] | None = None,
        journals: dict[tuple[str, int], list[dict[str, NDArray[Any]]]] | None = None,
    ) -> None:
        self.sharing = sharing
        self.states = {} if states is None else states
        self.journals = {} if journals is None else journals
        self.users = sharing.everything.active_users()
        self.hosted = np.unique(self.clients_of(self.users))

    @property
    def interactions(self) -> Interactions:
        """All that the devices hold, shared and private alike."""
        return self.sharing.everything

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user."""
        return users if self.sharing.client_of is None else self.sharing.client_of[users]

    def cohorts(self, spec: TaskSpec, users: NDArray[np.int64], interactions: int) -> Iterator[Cohort]:
        """Consecutive clients, cut where the next one would overflow the bound."""
        users = users[np.isin(users, self.users)]  # who is not hosted has no data here to answer from
        if not len(users):
            return
        source, many = self.interactions, self.sharing.client_of is not None
        users = users[np.argsort(self.clients_of(users), kind="stable")]
        numbers, first = np.unique(self.clients_of(users), return_index=True)
        loads = np.add.reduceat(source.user_degrees()[users], first)
        ends, begin = np.append(first[1:], len(users)), 0
        while begin < len(numbers):
            load = np.cumsum(loads[begin:])
            end = begin + max(1, int(np.searchsorted(load, interactions, side="right")))
            part = users[first[begin] : ends[end - 1]]
            clients, numbering = np.unique(self.clients_of(part), return_inverse=True)
            cohort = Cohort.of(source, part, numbering if many else None)
            written = None if spec.journal is None else self.journals.get((spec.run, spec.journal), [])
            yield cohort if written is None else with_journal(cohort, clients, written)
            begin = end

    def state(self, task: ClientTask, spec: TaskSpec, round: int, cohort: Cohort, seed: int) -> ClientState:
        """The state of a cohort's clients before a round; see `DeviceStore`."""
        clients = np.unique(self.clients_of(cohort.users))
        states, at = self._states(spec.run), np.searchsorted(self.hosted, clients)
        self._undo(states, (round, spec.task), at)
        new = states.rounds[at] == NEVER
        if new.any():
            for name, rows in task.start(clients[new], cohort.n_items, seed).items():
                self.states[spec.run] = states  # only now: a task without a state leaves no trace
                if name not in states.rows:
                    states.rows[name] = np.zeros((len(self.hosted), *rows.shape[1:]), dtype=rows.dtype)
                states.rows[name][at[new]] = rows
        return {name: rows[at] for name, rows in states.rows.items()}

    def keep(self, spec: TaskSpec, round: int, cohort: Cohort, reply: Reply) -> None:
        """Keep the clients' new state, and what they write to their journals."""
        clients = np.unique(self.clients_of(cohort.users))
        if reply.journal is not None:
            columns = {**reply.journal, "client": clients[reply.journal["client"]]}
            self._write(spec.run, round, clients, columns)
        if not reply.state:
            return
        states, at = self._states(spec.run), np.searchsorted(self.hosted, clients)
        self._remember(states, (round, spec.task), at)
        for name, rows in reply.state.items():
            states.rows[name][at] = rows
        states.rounds[at] = round

    def kept(self, run: str) -> Kept:
        """What the hosted clients keep of a run."""
        states = self._states(run)
        has = states.rounds != NEVER
        rows = {name: rows if has.all() else rows[has] for name, rows in states.rows.items()}
        return Kept(self.hosted[has], rows, self.sharing.client_of, self.interactions, self.sharing.shared)

    def forget_runs(self, but: str) -> None:
        """Drop what is kept of every other run: no older state stays, for it may hold what was withdrawn."""
        self.states = {run: states for run, states in self.states.items() if run == but}
        self.journals = {key: written for key, written in self.journals.items() if key[0] == but}

    def unshare(self, forget: Interactions) -> MemoryDevices:
        """The devices after `forget` went from shared to private: they still know it, so their state stays."""
        states = {run: states.copy() for run, states in self.states.items()}
        return MemoryDevices(self.sharing.unshare(forget), states, dict(self.journals))

    def erase(self, forget: Interactions) -> MemoryDevices:
        """The devices after `forget` is gone.

        A client that erased anything starts anew, its journal gone: they were made of what is gone.
        """
        return self._with(self.sharing.erase(forget), forget.users)

    def with_sharing(self, sharing: Sharing) -> MemoryDevices:
        """The same devices with other data, which may be over a larger catalog.

        New clients have no state yet, and a client that holds more or less than before starts anew.
        """
        held, now = self.sharing.over(sharing.shared.catalog).everything, sharing.everything
        return self._with(sharing, np.setxor1d(held.keys, now.keys) // now.n_items)

    def given(self, sharing: Sharing) -> MemoryDevices:
        """The same devices with other data, which all go on from the state they have: to measure what they relearn."""
        return self._with(sharing, np.empty(0, dtype=np.int64))

    def renamed(self, sharing: Sharing) -> MemoryDevices:
        """The same codes under other ids."""
        return MemoryDevices(sharing, self.states, self.journals)

    def recoded(self, catalog: Catalog) -> MemoryDevices:
        """The same devices under another catalog's codes, where every user is a client.

        Who it does not know is not hosted any more; who has another code now starts anew, for all draws go by it.
        """
        after = MemoryDevices(recoded_sharing(self.sharing, catalog))
        common, mine, theirs = np.intersect1d(self.hosted, after.hosted, assume_unique=True, return_indices=True)
        before, now = self.sharing.shared.catalog.user_ids, catalog.user_ids
        stay = before[common] == now[common]
        for run, states in self.states.items():
            after.states[run] = states.moved(mine[stay], theirs[stay], len(after.hosted))
        after.journals = {key: _without(written, common[~stay]) for key, written in self.journals.items()}
        return after

    def copy(self) -> MemoryDevices:
        """The same devices, to be trained on by themselves."""
        states = {run: states.copy() for run, states in self.states.items()}
        return MemoryDevices(self.sharing, states, dict(self.journals))

    def _with(self, sharing: Sharing, changed: NDArray[np.int64]) -> MemoryDevices:
        """The same devices with other data; those of the users `changed` start anew."""
        after = MemoryDevices(sharing)
        anew = np.unique(after.clients_of(np.unique(changed)))
        common, mine, theirs = np.intersect1d(self.hosted, after.hosted, assume_unique=True, return_indices=True)
        stay = ~np.isin(common, anew)
        for run, states in self.states.items():
            after.states[run] = states.moved(mine[stay], theirs[stay], len(after.hosted))
        after.journals = {key: _without(written, anew) for key, written in self.journals.items()}
        return after

    def _states(self, run: str) -> States:
        """The states of a run, blank where nothing is kept; those of a run before are of no use to this one."""
        return self.states.get(run) or States({}, np.full(len(self.hosted), NEVER))

    @staticmethod
    def _undo(states: States, last: tuple[int, str], at: NDArray[np.int64]) -> None:
        """Where a round is asked for that was kept already, put back what stood before it."""
        if states.last != last:
            return
        again = at[np.isin(at, states.previous["at"])]
        order = np.argsort(states.previous["at"])
        place = order[np.searchsorted(states.previous["at"], again, sorter=order)]
        for name in states.rows:
            if name in states.previous:
                states.rows[name][again] = states.previous[name][place]
        states.rounds[again] = states.previous["rounds"][place]

    @staticmethod
    def _remember(states: States, last: tuple[int, str], at: NDArray[np.int64]) -> None:
        """Keep what stands at some rows before a round replaces it."""
        before = {**{name: rows[at] for name, rows in states.rows.items()}, "rounds": states.rounds[at], "at": at}
        if states.last == last:
            fresh = ~np.isin(at, states.previous["at"])
            before = {
                name: np.concatenate([states.previous[name], rows[fresh]]) if name in states.previous else rows[fresh]
                for name, rows in before.items()
            }
        states.previous, states.last = before, last

    def _write(self, run: str, round: int, clients: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> None:
        """Write journal entries of a round; a client that writes again replaces what it wrote."""
        key = (run, round)
        self.journals[key] = [*_without(self.journals.get(key, []), clients), columns]


def _without(written: list[dict[str, NDArray[Any]]], clients: NDArray[np.int64]) -> list[dict[str, NDArray[Any]]]:
    """Journal entries but for those of some clients."""
    stays = [(part, ~np.isin(part["client"], clients)) for part in written]
    return [{name: column[keep] for name, column in part.items()} for part, keep in stays if keep.any()]


def with_journal(cohort: Cohort, clients: NDArray[np.int64], written: list[dict[str, NDArray[Any]]]) -> Cohort:
    """A cohort with what its clients wrote to their journals in a round.

    Parameters
    ----------
    clients
        Those of the cohort, ascending.
    """
    parts = []
    for part in written:
        own = np.isin(part["client"], clients)
        columns = {name: column[own] for name, column in part.items()}
        parts.append({**columns, "client": np.searchsorted(clients, columns["client"])})
    names = parts[0].keys() if parts else ()
    return replace(cohort, journal={name: np.concatenate([part[name] for part in parts]) for name in names})
