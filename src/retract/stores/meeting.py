"""How a server and its nodes meet: who is there, which codes they have, what they share, and what they ask for.

A node is told the items of the catalog and the codes of its own users, and tells the ids of these, what they share, and
what they withdraw of that. Nothing else passes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Catalog, Interactions
from retract.errors import DataError, FederationError
from retract.federation.flower import FlowerEngine, Link
from retract.federation.flower.engine import DEADLINE
from retract.federation.wire import Parcel, require_codes, texts
from retract.stores.ledger import Kind
from retract.stores.members import Members
from retract.systems.abilities import learnt_from
from retract.systems.base import Trained
from retract.systems.system import System


@dataclass(frozen=True)
class Told:
    """A request as a node tells it: what of it the server holds. An erasure of private data alone names no item."""

    id: str
    kind: Kind
    user: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """Whom a server waits for.

    Parameters
    ----------
    nodes
        How many nodes at least.
    wait
        Seconds to wait for them.
    deadline
        Seconds that a node has to answer a message.
    """

    nodes: int = 1
    wait: float = 60.0
    deadline: float = DEADLINE


@dataclass
class Meeting:
    """A federation while a server works with it.

    Parameters
    ----------
    link
        Carries the messages.
    system
        What they learn.
    members
        Who takes part; those who came now among them.
    wanted
        Whom the server waits for.
    """

    link: Link
    system: System
    members: Members
    wanted: Wanted = field(default_factory=Wanted)
    hosts: dict[int, tuple[str, ...]] = field(default_factory=dict)
    requests: dict[int, list[Told]] = field(default_factory=dict)
    shared: Interactions | None = None

    def gather(self, *, admit: bool, shared: bool) -> FlowerEngine:
        """Wait for the nodes, agree on codes, and fetch what is shared.

        Parameters
        ----------
        admit
            Whether users who were not there before may take part.
        shared
            Whether to fetch what they share.

        Raises
        ------
        FederationError
            If too few nodes are there, or none of those is let in.
        """
        refused = list[str]()
        keys = self._waited()
        self.members = self.members.among(keys.values())
        for node, answer in self._hellos(keys, refused):
            self._take(node, keys[node], answer, admit)
        self.members = self.members.with_codes()
        if not self.hosts:
            raise FederationError(refused[0] if refused else "no node with a user's data takes part: nothing was done")
        parts = self._agree(shared)
        catalog = self.members.catalog
        if shared:
            self.shared = joined(catalog, parts)
        codes = {node: np.sort(self._codes(names)) for node, names in self.hosts.items()}
        return FlowerEngine(self.link, codes, deadline=self.wanted.deadline)

    def publish(self, trained: Trained) -> None:
        """Send the nodes a model, to recommend by; they then keep nothing of older trainings."""
        settings = trained.config.model_dump(mode="json")
        facts = {"system": trained.system, "settings": settings, "seed": trained.seed, "run": trained.run}
        parcel = Parcel(facts, {name: np.asarray(table) for name, table in trained.model.items()})
        self._tell("publish", dict.fromkeys(self.hosts, parcel))

    def settle(self) -> None:
        """Tell the nodes that the model has forgotten what they asked for."""
        told = {node: [one.id for one in asked] for node, asked in self.requests.items() if asked}
        self._tell("settle", {node: Parcel({"requests": ids}) for node, ids in told.items()})

    def _tell(self, action: str, parcels: Mapping[int, Parcel]) -> None:
        if not parcels:
            return
        for node, answer in self.link.ask(action, parcels, self.wanted.deadline).items():
            if answer.parcel is None:
                self.link.complain(f"node {node} did not take in {action}: {answer.complaint}")

    def _waited(self) -> Mapping[int, str]:
        """The nodes, once enough of them are there."""
        until = time.monotonic() + self.wanted.wait
        while len(found := self.link.nodes()) < self.wanted.nodes and time.monotonic() < until:
            time.sleep(0.3)
        if len(found) < max(1, self.wanted.nodes):
            raise FederationError(
                f"{len(found)} of {self.wanted.nodes} node(s) are there after {self.wanted.wait:g} s: start them by "
                "`retract federate client`, or raise --wait"
            )
        return found

    def _hellos(self, keys: Mapping[int, str], refused: list[str]) -> Iterator[tuple[int, Parcel]]:
        """What each node answers that is let in, in the order of their keys."""
        fields = {
            "system": self.system.name,
            "learns_ratings": self.system.type.learns_ratings,
            "learns": learnt_from(self.system.server, "erase"),
        }
        parcel = Parcel(fields, {"items": texts(self.members.catalog.item_ids.tolist())})
        answers = self.link.ask("hello", dict.fromkeys(keys, parcel), self.wanted.deadline)
        for node in sorted(answers, key=lambda node: keys[node]):
            found = answers[node]
            if found.parcel is None:
                refused.append(found.complaint)
                self.link.complain(f"node {node} does not take part: {found.complaint}")
            else:
                yield node, found.parcel

    def _take(self, node: int, key: str, parcel: Parcel, admit: bool) -> None:
        """Take in a node's users, but for those whose data another node holds."""
        try:
            users = [str(name) for name in parcel.fields["users"]]
            requests = [_told(one) for one in parcel.fields["requests"]]
        except (KeyError, TypeError, ValueError):
            self.link.complain(f"node {node} does not take part: its greeting is none")
            return
        if taken := self.members.elsewhere(key, users):
            self.link.complain(
                f"node {node} does not take part: it claims {len(taken):,} user(s) whose data another node holds, such "
                f"as {taken[0]!r}"
            )
            return
        known = set(self.members.catalog.known_users)
        if not admit and any(name not in known for name in users):
            self.link.complain(f"node {node} came late, and takes part in the next training")
            return
        elsewhere = {*self.members.elsewhere(key, [one.user for one in requests])}
        foreign = [one for one in requests if one.user in elsewhere]
        if foreign:
            self.link.complain(f"node {node} asks for {len(foreign):,} withdrawal(s) of others' data: they are dropped")
        self.requests[node] = [one for one in requests if one not in foreign]
        self.members = self.members.with_node(key, users)
        if users:
            self.hosts[node] = tuple(users)

    def _agree(self, shared: bool) -> list[Parcel]:
        """Tell the nodes their users' codes; what these share. Who does not agree does not take part."""
        catalog, parcels = self.members.catalog, {}
        for node, names in self.hosts.items():
            arrays: dict[str, NDArray[Any]] = {
                "items": texts(catalog.item_ids.tolist()),
                "names": texts(names),
                "codes": self._codes(names).astype(np.int32),
            }
            parcels[node] = Parcel({"n_users": catalog.n_users, "shared": shared}, arrays)
        parts = []
        for node, answer in self.link.ask("codes", parcels, self.wanted.deadline).items():
            try:
                if answer.parcel is None:
                    raise FederationError(answer.complaint)
                if shared:
                    require_own(answer.parcel, self._codes(self.hosts[node]), catalog)
                parts.append(answer.parcel)
            except FederationError as error:
                self.link.complain(f"node {node} does not take part: {error}")
                del self.hosts[node]
        if not self.hosts:
            raise FederationError("no node agrees on the users' codes: nothing was done; start again")
        return parts

    def _codes(self, names: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self.members.catalog.user(name) for name in names], dtype=np.int64)


def require_own(parcel: Parcel, users: NDArray[np.int64], catalog: Catalog) -> None:
    """Refuse shared interactions of others than a node's own users, or of unknown items, or that are no numbers.

    Raises
    ------
    FederationError
        If they are.
    """
    try:
        user, item = (np.asarray(parcel.arrays[name]) for name in ("user", "item"))
        require_codes(np.unique(user))
        _ = Interactions.of(catalog, user, item, parcel.arrays.get("rating"), parcel.arrays.get("timestamp"))
    except (KeyError, ValueError, TypeError, DataError) as error:
        raise FederationError(f"what it shares is no list of interactions ({error})") from None
    if len(np.setdiff1d(user, users)):
        raise FederationError("it shares interactions of users who are not its own")


def joined(catalog: Catalog, parts: Sequence[Parcel]) -> Interactions:
    """What several nodes share, together; columns that not all of them have are left out."""
    filled = [part for part in parts if len(part.arrays["user"])]
    columns: dict[str, NDArray[Any]] = {}
    for name in ("user", "item", "rating", "timestamp"):
        if filled and all(name in part.arrays for part in filled):
            columns[name] = np.concatenate([np.asarray(part.arrays[name]) for part in filled])
    if not filled:
        return Interactions.empty(catalog)
    return Interactions.of(catalog, columns["user"], columns["item"], columns.get("rating"), columns.get("timestamp"))


def _told(fields: Mapping[str, Any]) -> Told:
    kind = fields["kind"]
    if kind not in ("unshare", "erase"):
        raise ValueError
    return Told(str(fields["id"]), kind, str(fields["user"]), tuple(str(item) for item in fields["items"]))
