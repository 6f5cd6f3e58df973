"""The server's side of a federation: an `Engine` whose clients are on other machines, each node with its own users.

It learns of every node the sum over those of the node's users that took part, and which these are; so over a node of
one user it learns that user's update. It is `Link` that carries the messages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retract.errors import ConfigError, FederationError
from retract.federation.contracts import Broadcast, RoundResult, TaskSpec, Traffic
from retract.federation.updates import Update
from retract.federation.wire import Parcel, answer_of, task_parcel

DEADLINE = 600.0
"""Seconds that a node has to answer, unless others are given."""


@dataclass(frozen=True)
class Answer:
    """What a node answered.

    Parameters
    ----------
    parcel
        What its message held; None where it refused, or did not answer.
    nbytes
        What the message weighed.
    complaint
        One line on why there is none.
    refused
        Whether the node itself said so.
    """

    parcel: Parcel | None
    nbytes: int = 0
    complaint: str = ""
    refused: bool = False


@dataclass
class Seen:
    """What passed of one kind of message: how many questions, bytes both ways, and what the answers held by name."""

    messages: int = 0
    up: int = 0
    down: int = 0
    holds: tuple[str, ...] = ()

    def asked(self, nbytes: int) -> None:
        """Count a question."""
        self.messages += 1
        self.down += nbytes

    def answered(self, answer: Answer) -> None:
        """Count an answer."""
        self.up += answer.nbytes
        if answer.parcel is not None:
            self.holds = tuple(sorted({*self.holds, *answer.parcel.fields, *answer.parcel.arrays}))


class Link(Protocol):
    """Carries messages between a server and its nodes.

    Attributes
    ----------
    seen
        What passed so far, by kind of message: all that the server can see.
    """

    seen: dict[str, Seen]

    def nodes(self) -> Mapping[int, str]:
        """The nodes that can be reached now, each with what it is known by across sessions."""
        ...

    def ask(self, action: str, parcels: Mapping[int, Parcel], deadline: float) -> Mapping[int, Answer]:
        """Send every node its parcel and wait for the answers, `deadline` seconds at most; one for each node."""
        ...

    def weight(self, parcel: Parcel) -> int:
        """Bytes that a parcel has on the wire."""
        ...

    def complain(self, line: str) -> None:
        """Tell a person of a node that misbehaved."""
        ...


class FlowerEngine:
    """Runs client tasks on the nodes that a link reaches (an `Engine`).

    Whoever answers garbage, or not in time, is missing from the round, with one line that says so.

    Parameters
    ----------
    link
        Carries the messages.
    hosts
        By node, codes of the users whose data it holds, ascending; no user is at two nodes.
    deadline
        Seconds that a node has to answer.
    client_of
        The client of each user by its code, of which no one is at two nodes; every user is one unless given.

    Raises
    ------
    ConfigError
        If `deadline` is not above 0.
    """

    def __init__(
        self,
        link: Link,
        hosts: Mapping[int, NDArray[np.int64]],
        *,
        deadline: float = DEADLINE,
        client_of: NDArray[np.int64] | None = None,
    ) -> None:
        if not deadline > 0:
            raise ConfigError(f"deadline is {deadline:g} s: a node needs some time to answer")
        self.link, self.deadline, self.client_of, self.traffic = link, deadline, client_of, Traffic()
        # In the order of their users, not of their numbers: sums of floats depend on it, and a node may be renumbered.
        self.hosts = dict(sorted(hosts.items(), key=lambda host: host[1][:1].tolist()))
        everyone = [np.empty(0, dtype=np.int64), *self.hosts.values()]
        self._users = np.sort(np.concatenate(everyone))

    @property
    def users(self) -> NDArray[np.int64]:
        """Users whose nodes said that they hold something of theirs, ascending."""
        return self._users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user: a node may hold the data of many."""
        return users if self.client_of is None else self.client_of[users]

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Run a task on the nodes of `users`, ascending, each once; see `Engine`.

        Raises
        ------
        ConfigError
            If no user is given.
        FederationError
            If nodes refused, and none answered.
        """
        if not len(users):
            raise ConfigError("no client takes part in this round: at least one user must hold an interaction")
        began, asked = time.perf_counter(), np.asarray(users, dtype=np.int64)
        parts = {node: own[np.isin(own, asked)] for node, own in self.hosts.items()}
        parts = {node: own for node, own in parts.items() if len(own)}
        parcels = {node: task_parcel(spec, broadcast, own, seed) for node, own in parts.items()}
        answers = self.link.ask("task", parcels, self.deadline)
        total, answered, up = spec.update.zeros(), [np.empty(0, dtype=np.int64)], 0
        refusals = [answer.complaint for answer in answers.values() if answer.refused]
        for node, own in parts.items():
            found = self._taken(node, answers[node], spec, own, refusals)
            if found is None or not found[0].clients:
                continue
            total = found[0] if not total.clients else total + found[0]
            answered.append(found[1])
            up += answers[node].nbytes
        if refusals and not total.clients:
            raise FederationError(refusals[0])
        there = np.sort(np.concatenate(answered))
        down = sum(self.link.weight(parcel) for parcel in parcels.values())
        result = RoundResult(total, there, np.setdiff1d(asked, there), up, down)
        self.traffic.add(result, time.perf_counter() - began, total.clients)
        return result

    def _taken(
        self, node: int, answer: Answer, spec: TaskSpec, users: NDArray[np.int64], refusals: list[str]
    ) -> tuple[Update, NDArray[np.int64]] | None:
        """A node's update and whom it is over, if it holds what was asked for."""
        if answer.parcel is None:
            self.link.complain(f"node {node} is missing from task {spec.task}: {answer.complaint}")
            return None
        try:
            return answer_of(answer.parcel, spec.update, users)
        except FederationError as error:
            self.link.complain(f"node {node} is missing from task {spec.task}: {error}")
            refusals.append(f"node {node}: {error}")
            return None
