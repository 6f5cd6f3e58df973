"""The messages of a secure sum: plain bytes and arrays, which any transport can carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retract.errors import ConfigError, PrivacyError
from retract.federation.privacy.masks import Words

NUMBER = 4
"""Bytes of a client's number on the wire."""


@dataclass(frozen=True)
class Terms:
    """What all parties of a secure sum must have agreed on before.

    Parameters
    ----------
    session
        Names this sum and no other: the run, the task, the round, and something random.
    words
        Length of every client's message.
    threshold
        t: so many clients must help to take the masks away, and no fewer can. More than half of those that take part,
        so that no server can have two sets of them unmask two different sums.
    minimum
        m: a sum over fewer is never formed.

    Raises
    ------
    ConfigError
        If the minimum is below 2, or the threshold below 1: a sum over one client hides nothing.
    """

    session: bytes
    words: int
    threshold: int
    minimum: int

    def __post_init__(self) -> None:
        if self.minimum < 2:
            raise ConfigError(
                f"a secure sum over at least {self.minimum} clients hides nobody: the minimum must be 2 or more"
            )
        if self.threshold < 1:
            raise ConfigError(f"the threshold of a secure sum is {self.threshold}: it must be at least 1")

    @property
    def needed(self) -> int:
        """How many must be there at every step."""
        return max(self.threshold, self.minimum)

    def require(self, clients: int) -> None:
        """Refuse a sum over too few.

        Raises
        ------
        PrivacyError
            If they are fewer than are needed.
        """
        if clients < self.needed:
            raise PrivacyError(
                f"{clients:,} clients are left and a secure sum needs {self.needed:,}: it is not formed; ask more, or "
                "run the round again"
            )


@dataclass(frozen=True)
class Advertised:
    """A client's public keys of one session.

    Parameters
    ----------
    client
        Its number; from 0.
    share_key, mask_key
        X25519 public keys, 32 bytes: one to seal shares with, one that masks come from.
    commitment
        Hash of the seed of its own mask.
    signature
        Of all that by its identity; empty where nobody signs.
    """

    client: int
    share_key: bytes
    mask_key: bytes
    commitment: bytes
    signature: bytes = b""

    def signed(self, session: bytes) -> bytes:
        """What the signature is over."""
        number = self.client.to_bytes(8, "little")
        return b"retract secure sum keys" + session + number + self.share_key + self.mask_key + self.commitment

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return NUMBER + len(self.share_key) + len(self.mask_key) + len(self.commitment) + len(self.signature)


@dataclass(frozen=True)
class Roster:
    """Who takes part, as the server tells everybody."""

    members: tuple[Advertised, ...]

    @property
    def nbytes(self) -> int:
        """Bytes on the wire to one client."""
        return sum(member.nbytes for member in self.members)


@dataclass(frozen=True)
class Sealed:
    """Shares of a client's secrets, sealed for each other client; the same on the way from the server, by sender.

    Parameters
    ----------
    client
        Whose message it is, or whom it is for.
    boxes
        Sealed shares by the other client.
    """

    client: int
    boxes: Mapping[int, bytes]

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return NUMBER + sum(NUMBER + len(box) for box in self.boxes.values())


@dataclass(frozen=True)
class Masked:
    """A client's update under its masks: uniform words to whoever does not hold them."""

    client: int
    words: Words

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return NUMBER + self.words.nbytes


@dataclass(frozen=True)
class Survivors:
    """Whose masked updates the server has, as it says, ascending."""

    clients: tuple[int, ...]

    def signed(self, session: bytes) -> bytes:
        """What a client signs who was told so."""
        return b"retract secure sum survivors" + session + b"".join(each.to_bytes(8, "little") for each in self.clients)

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return NUMBER * len(self.clients)


@dataclass(frozen=True)
class Confirmed:
    """That a client was told these survivors, under its signature."""

    client: int
    signature: bytes

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return NUMBER + len(self.signature)


@dataclass(frozen=True)
class Unmasking:
    """A client's shares: of the seeds of those that are in the sum, and of the mask keys of those that are not.

    Never both of one client: with both, its update could be read.
    """

    client: int
    seeds: Mapping[int, bytes]
    keys: Mapping[int, bytes]

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        shares = (*self.seeds.values(), *self.keys.values())
        return NUMBER + sum(NUMBER + len(share) for share in shares)
