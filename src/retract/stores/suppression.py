"""The suppression list: what was taken back must not come in again with an old file. Keyed hashes, no ids.

```
DIR/server/suppressed.json     users who are gone, and single interactions that the server had been given
DIR/devices/suppressed.json    single interactions that only devices knew
```

Each list has a random key of its own, so that nobody can look up in one what the other holds, and a list that was
copied tells nothing beside another folder. Whoever has a list with its key can ask it about an id, and must be able to:
that is how a file is held against it. A list is written before the version that forgets, so that a kill between the two
leaves a request pending that is suppressed already, and never the other way round.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import FolderError
from retract.stores.ledger import Kind

SUPPRESSED = "suppressed.json"
FREE, PRIVATE_ONLY, ERASED = 0, 1, 2
"""What a list says of an interaction: it may come in, it may come in but not be shared, it may not come in."""

SAID: Mapping[Kind, int] = {"unshare": PRIVATE_ONLY, "erase": ERASED}
Times = Mapping[tuple[Kind, str], str]
"""By kind and user: when it was asked for, UTC, ISO 8601."""


@dataclass(frozen=True)
class Entry:
    """What one user took back.

    Parameters
    ----------
    erased
        When the user asked for everything to be erased, UTC, ISO 8601; None where single interactions were withdrawn.
    pairs
        Kind and time of the request by the hash of (user, item).
    """

    erased: str | None = None
    pairs: Mapping[str, tuple[Kind, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Suppressed:
    """A list of one half.

    Parameters
    ----------
    key
        Of the hashes, HMAC-SHA-256.
    users
        Entries by the hash of the user.
    """

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    users: Mapping[str, Entry] = field(default_factory=dict)

    def with_users(self, asked: Mapping[str, str]) -> Suppressed:
        """With users of whom nothing is left.

        Parameters
        ----------
        asked
            When each asked for it.
        """
        return replace(self, users={**self.users, **{self._of(user): Entry(at) for user, at in asked.items()}})

    def with_pairs(self, withdrawn: Interactions, kind: Kind, asked: Times) -> Suppressed:
        """With single interactions.

        Parameters
        ----------
        asked
            When each user asked for it.
        """
        users = dict(self.users)
        for user, own in _by_user(withdrawn, withdrawn.active_users()):
            entry = users.get(self._of(user), Entry())
            pairs = {self._of(user, item): (kind, asked[kind, user]) for item in _names(withdrawn, own)}
            users[self._of(user)] = replace(entry, pairs={**entry.pairs, **pairs})
        return replace(self, users=users)

    def without(self, consented: Interactions) -> Suppressed:
        """Without what these interactions concern: users who come back, and pairs of all others."""
        users = dict(self.users)
        for user, own in _by_user(consented, self._listed(consented)):
            entry = users.pop(self._of(user))
            again = {self._of(user, item) for item in _names(consented, own)}
            left = {pair: said for pair, said in entry.pairs.items() if pair not in again}
            if left:
                users[self._of(user)] = Entry(None, left)
        return replace(self, users=users)

    def verdicts(self, offered: Interactions, now: float) -> NDArray[np.int8]:
        """`FREE`, `PRIVATE_ONLY` or `ERASED` for each interaction, shape [n].

        What happened after the request was not meant by it. A time that is still to come is no time.

        Parameters
        ----------
        now
            Seconds since 1970.
        """
        found, times = np.zeros(len(offered), dtype=np.int8), offered.timestamps
        for user, own in _by_user(offered, self._listed(offered)):
            entry, items = self.users[self._of(user)], _names(offered, own)
            when = np.full(len(items), -np.inf) if times is None else np.where(times[own] <= now, times[own], -np.inf)
            if entry.erased is not None:
                found[own] = np.where(when > _seconds(entry.erased), FREE, ERASED)
            for place, item in enumerate(items) if entry.pairs else ():
                said = entry.pairs.get(self._of(user, item))
                if said is not None and when[place] <= _seconds(said[1]):
                    found[own.start + place] = max(found[own.start + place], SAID[said[0]])
        return found

    def to_bytes(self) -> bytes:
        """JSON."""
        entries = {user: {"erased": entry.erased, "pairs": dict(entry.pairs)} for user, entry in self.users.items()}
        return json.dumps({"key": self.key.hex(), "users": entries}, indent=1, sort_keys=True).encode()

    @classmethod
    def at(cls, path: Path) -> Suppressed:
        """The list in a file; an empty one where there is none. Errors as of `from_bytes`."""
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        return cls.from_bytes(content, path)

    @classmethod
    def from_bytes(cls, content: bytes, source: object) -> Suppressed:
        """What `to_bytes` wrote.

        Raises
        ------
        FolderError
            If it is something else.
        """
        try:
            found = json.loads(content)
            users = {
                user: Entry(told["erased"], {pair: (kind, at) for pair, (kind, at) in told["pairs"].items()})
                for user, told in found["users"].items()
            }
            return cls(bytes.fromhex(found["key"]), users)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FolderError(
                f"{source} is damaged: restore it, for without it what was erased could come in again"
            ) from None

    def _listed(self, among: Interactions) -> NDArray[np.int64]:
        """The users of some interactions who have an entry: only their pairs are hashed."""
        if not self.users:
            return np.empty(0, dtype=np.int64)
        users = among.active_users()
        names = among.catalog.user_ids[users].tolist()
        return users[np.array([self._of(name) in self.users for name in names], dtype=np.bool_)]

    def _of(self, *ids: str) -> str:
        """The hash of a user or of a pair; the lengths keep apart what reads alike in a row."""
        text = "".join(f"{len(id)}:{id}" for id in ids)
        return hmac.digest(self.key, text.encode(), "sha256").hex()


@dataclass(frozen=True)
class Suppression:
    """Both lists; without devices the second one is empty."""

    server: Suppressed = field(default_factory=Suppressed)
    devices: Suppressed = field(default_factory=Suppressed)

    def __bool__(self) -> bool:
        return bool(self.server.users or self.devices.users)

    def after(
        self, erased: Interactions, unshared: Interactions, shared: Interactions, gone: Sequence[str], asked: Times
    ) -> Suppression:
        """With what was withdrawn: the server's list learns of what the server had been given, and of who is gone.

        Parameters
        ----------
        erased, unshared
            What was withdrawn.
        shared
            What was shared before.
        gone
            Users of whom nothing is left.
        asked
            When it was asked for.
        """
        left = erased.catalog.user_ids[erased.users]
        some = erased.where(~np.isin(left, np.array(gone, dtype=np.str_)))
        server = self.server.with_pairs(unshared, "unshare", asked).with_pairs(some & shared, "erase", asked)
        server = server.with_users({user: asked["erase", user] for user in gone})
        return Suppression(server, self.devices.with_pairs(some - shared, "erase", asked))

    def same_as(self, other: Suppression) -> bool:
        """Whether the lists that have entries are under the same keys."""
        pairs = (self.server, other.server), (self.devices, other.devices)
        return all(mine.key == its.key for mine, its in pairs if mine.users)

    def joined(self, later: Suppression) -> Suppression:
        """With the entries of lists under the same keys, which go before; where this one is empty, the other."""
        pairs = (self.server, later.server), (self.devices, later.devices)
        return Suppression(*(replace(other, users={**own.users, **other.users}) for own, other in pairs))

    def says_like(self, other: Suppression) -> bool:
        """Whether both hold the same entries."""
        return (self.server.users, self.devices.users) == (other.server.users, other.devices.users)

    def without(self, consented: Interactions) -> Suppression:
        """Without what these interactions concern."""
        return Suppression(self.server.without(consented), self.devices.without(consented))

    def verdicts(self, offered: Interactions) -> NDArray[np.int8]:
        """What both lists say of each interaction, shape [n]; see `Suppressed.verdicts`."""
        now = time.time()
        return np.maximum(self.server.verdicts(offered, now), self.devices.verdicts(offered, now))


def _by_user(interactions: Interactions, users: NDArray[np.int64]) -> list[tuple[str, slice]]:
    """Some users by name, each with where the own interactions stand."""
    ends, names = interactions.indptr, interactions.catalog.user_ids
    return [(str(names[user]), slice(int(ends[user]), int(ends[user + 1]))) for user in users.tolist()]


def _names(interactions: Interactions, own: slice) -> list[str]:
    found: list[str] = interactions.catalog.item_ids[interactions.items[own]].tolist()
    return found


def _seconds(at: str) -> float:
    """Since 1970."""
    return datetime.fromisoformat(at).timestamp()
