"""Secure sums in one process: every client's and the server's steps, over the devices that another engine reaches."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.errors import ConfigError, PrivacyError
from retract.federation.contracts import Broadcast, Engine, RoundResult, TaskSpec, Traffic
from retract.federation.participation import require_users
from retract.federation.privacy.grid import Buckets, Grid
from retract.federation.privacy.masking import MaskingClient
from retract.federation.privacy.masks import Identity
from retract.federation.privacy.messages import Confirmed, Masked, Sealed, Survivors, Terms, Unmasking
from retract.federation.privacy.robust import RobustEngine
from retract.federation.privacy.unmasking import UnmaskingServer
from retract.federation.privacy.wrapping import engine_within, hiding, one_by_one, users_by_client
from retract.federation.updates import Update


@dataclass(frozen=True)
class SecureSums:
    """Settings of secure sums.

    Parameters
    ----------
    minimum
        m: no sum over fewer clients is formed.
    threshold
        The part of the clients that must stay until the end, t/n; t is more than half of them in any case.
    group
        Clients of one sum at most, for every two of them agree on a mask. More are dealt into groups of equal size by a
        draw, anew in each round (compare Bonawitz et al., *Towards federated learning at scale*, MLSys 2019). The
        server then learns each group's sum. A group that loses too many is left out.
    bits
        Of a number without a unit of its own: 16, 21, 32 or 64.
    bounds
        L2 bounds of one client's part, by tensor, where its task names none.
    buckets
        How tables laid out by rows are made shorter, by how many rows they have; dense unless given.

    Raises
    ------
    ConfigError
        If the threshold is not in (0, 1], the minimum below 2, or the group below the minimum.
    """

    minimum: int = 10
    threshold: float = 2 / 3
    group: int = 200
    bits: int = 32
    bounds: Mapping[str, float] = field(default_factory=dict)
    buckets: Buckets | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"the threshold of secure sums is {self.threshold:g}: it must be a part in (0, 1]")
        if self.minimum < 2:
            raise ConfigError(
                f"secure sums over at least {self.minimum} clients hide nobody: the minimum must be 2 or more"
            )
        if self.group < self.minimum:
            raise ConfigError(
                f"groups of {self.group} clients are below the minimum of {self.minimum}: make them larger"
            )

    def groups(self, clients: NDArray[np.int64], round: int, seed: int) -> list[NDArray[np.int64]]:
        """The clients of each sum, ascending: as few groups as may be, none below the minimum if that can be."""
        count = max(1, min(-(-len(clients) // self.group), len(clients) // self.minimum))
        order = clients[np.argsort(streams.bits(seed, round, clients, "secure group"), kind="stable")]
        return [np.sort(part) for part in np.array_split(order, count)]

    def grid(self, spec: TaskSpec, clients: int) -> Grid:
        """How a task's updates lie in words; errors as of `Grid`."""
        by_rows = any(tensor.layout == "rows" for tensor in spec.update.tensors.values())
        buckets = self.buckets if by_rows else None
        return Grid(spec.update, clients, bits=self.bits, bounds=self.bounds, buckets=buckets)

    def terms(self, session: bytes, words: int, clients: int) -> Terms:
        """What the parties of one sum agree on."""
        threshold = max(int(np.ceil(self.threshold * clients)), clients // 2 + 1)
        return Terms(session, words, threshold, self.minimum)


def session_of(spec: TaskSpec, round: int, draw: Callable[[int], bytes] = os.urandom) -> bytes:
    """A name for one sum: the hash of the system, the task, the run, the round, and 16 random bytes."""
    named = "\0".join([spec.system, spec.task, spec.run, str(round)]).encode()
    return hashlib.sha256(named + b"\0" + draw(16)).digest()


@dataclass(frozen=True)
class Losses:
    """Clients that are lost on the way, by keyed draws: a simulation of a real network.

    Parameters
    ----------
    masked
        Part of them that shares its secrets and whose masked update then never arrives.
    answers
        Part of the others that does not help to unmask.
    """

    masked: float = 0.0
    answers: float = 0.0

    def lost(self, part: float, step: str, client: int, round: int, seed: int) -> bool:
        """Whether a client is lost at a step."""
        return bool(streams.uniform(seed, round, client, f"lost {step}")[0] < part)


NO_LOSSES = Losses()


class SecureEngine:
    """An engine whose sums are formed under masks (an `Engine`): what a server would see, it sees here.

    It stands for clients and server in one process, to be tested and measured. Every client's update comes from the
    engine within, one client at a time, and goes on as words under masks; the sum is decoded from what the server side
    has. Bytes are those of the protocol's messages.

    Parameters
    ----------
    engine
        Reaches the devices, in this process.
    settings
        Of the sums.
    losses
        Who is lost on the way; nobody unless given. A client that the engine within does not reach is lost before its
        masked update.
    identities
        Clients' signature keys; without them the server is trusted to follow the protocol.
    draw
        Gives random bytes: `os.urandom`, but for tests.

    Raises
    ------
    ConfigError
        If the engine within makes robust sums, for which secure ones leave nothing to see, or gives sums only.
    """

    sums_only = True

    def __init__(
        self,
        engine: Engine,
        settings: SecureSums,
        *,
        losses: Losses = NO_LOSSES,
        identities: Mapping[int, Identity] | None = None,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        robust, kind = engine_within(engine, RobustEngine), hiding(engine)
        if robust is not None or kind is not None:
            raise ConfigError(
                f"secure sums take each client's own update, and {kind or 'RobustEngine'} does not give it: put secure "
                "sums around the devices, and PrivateEngine around them"
            )
        self.engine, self.settings, self.losses = engine, settings, losses
        self.identities, self._draw = identities, draw
        self.traffic = Traffic()

    @property
    def users(self) -> NDArray[np.int64]:
        """Of the engine within."""
        return self.engine.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user."""
        return self.engine.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Run a task and form its sum under masks; see `Engine`.

        Raises
        ------
        ConfigError
            If no user is given, or a tensor lies on no grid.
        PrivacyError
            If fewer clients are asked than `minimum`, before anything is sent; or fewer are left than are needed.
        FederationError
            If an update does not fit the grid.
        """
        require_users(users)
        began = time.perf_counter()
        members = users_by_client(self.engine, users)
        clients, total, refused = np.array(list(members)), spec.update.zeros(), None
        in_sum, up, down = set[int](), 0, 0
        for group in self.settings.groups(clients, broadcast.round, seed):
            round = _Round(self, spec, broadcast, {int(client): members[int(client)] for client in group}, seed)
            try:
                update = round.update()
                total, in_sum = total + update, in_sum | set(round.survivors.clients)
            except PrivacyError as error:
                refused = error
            up, down = up + round.up, down + round.down
        if refused is not None and not in_sum:
            raise refused
        here = np.array([int(client) in in_sum for client in self.clients_of(users)], dtype=np.bool_)
        result = RoundResult(total, users[here], users[~here], up, down)
        self.traffic.add(result, time.perf_counter() - began, total.clients)
        return result


class _Round:
    """One secure sum: its parties, and the bytes between them."""

    def __init__(
        self,
        owner: SecureEngine,
        spec: TaskSpec,
        broadcast: Broadcast,
        members: Mapping[int, NDArray[np.int64]],
        seed: int,
    ) -> None:
        self.owner, self.spec, self.broadcast, self.members, self.seed = owner, spec, broadcast, members, seed
        self.grid = owner.settings.grid(spec, len(members))
        self.terms = owner.settings.terms(session_of(spec, broadcast.round, owner._draw), self.grid.words, len(members))
        self.server = UnmaskingServer(self.terms)
        identities = owner.identities or {}
        self.clients = {
            number: MaskingClient(number, self.terms, identity=identities.get(number), draw=owner._draw)
            for number in members
        }
        self.survivors, self.up, self.down = Survivors(()), 0, 0

    def update(self) -> Update:
        """The sum of all whose masked updates arrive.

        Raises
        ------
        PrivacyError
            If they are too few from the start, or in the end.
        """
        self.terms.require(len(self.members))
        self.mask(self.deliver())
        self.survivors = self.server.survivors()
        self.down += self.survivors.nbytes * len(self.survivors.clients)
        return self.grid.decode(self.server.total(self.unmask()), len(self.survivors.clients))

    def deliver(self) -> dict[int, Sealed]:
        """Keys and shares, there and back."""
        advertised = [client.advertise() for client in self.clients.values()]
        roster = self.server.roster(advertised)
        shared = [client.share(roster) for client in self.clients.values()]
        delivered = self.server.deliver(shared)
        self.up += sum(key.nbytes for key in advertised) + sum(each.nbytes for each in shared)
        self.down += roster.nbytes * len(self.clients) + sum(each.nbytes for each in delivered.values())
        return delivered

    def mask(self, delivered: Mapping[int, Sealed]) -> None:
        """Every client's update, from the engine within, under its masks to the server."""
        owner, losses, users = self.owner, self.owner.losses, np.concatenate(list(self.members.values()))
        for number, result in one_by_one(owner.engine, self.spec, self.broadcast, users, self.seed):
            self.down += result.bytes_down
            if not result.update.clients:
                continue
            masked: Masked = self.clients[number].mask(delivered[number], self.grid.encode(result.update))
            if not losses.lost(losses.masked, "masked update", number, self.broadcast.round, self.seed):
                self.up += masked.nbytes
                self.server.add(masked)

    def unmask(self) -> Sequence[Unmasking]:
        """The shares of all survivors that are still there."""
        losses, found = self.owner.losses, []
        confirmed: list[Confirmed] = []
        if self.owner.identities:
            confirmed = [self.clients[number].confirm(self.survivors) for number in self.survivors.clients]
            self.up += sum(each.nbytes for each in confirmed)
            self.down += sum(each.nbytes for each in confirmed) * len(confirmed)
        for number in self.survivors.clients:
            if losses.lost(losses.answers, "answer", number, self.broadcast.round, self.seed):
                continue
            found.append(self.clients[number].unmask(self.survivors, confirmed))
            self.up += found[-1].nbytes
        return found
