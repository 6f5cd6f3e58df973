"""A client's side of a secure sum.

After Bonawitz et al., *Practical secure aggregation for privacy-preserving machine learning*, CCS 2017, figure 4.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from retract.errors import FederationError, PrivacyError
from retract.federation.privacy import shamir
from retract.federation.privacy.masks import MASK, SHARES, Identity, Words, add_keystream, agreed, committed, public_of
from retract.federation.privacy.messages import (
    Advertised,
    Confirmed,
    Masked,
    Roster,
    Sealed,
    Survivors,
    Terms,
    Unmasking,
)


class MaskingClient:
    """One client in one secure sum. Each of its steps is done once, in order; it is thrown away afterwards.

    What holds: a server that follows the protocol, and up to t - 1 clients that tell it all they know, learn the sum
    over those that answered and nothing else of an honest client. With identities it holds for a server that does what
    it likes, too, as long as 2t is greater than the number of clients plus that of the dishonest among them. See the
    paper's theorems 6.3 and 6.5.

    What does not hold: without identities a server that lies may put clients of its own in the others' places. The sum
    itself is no secret, and over few clients it says much about each; differential privacy is for that. A client that
    sends a wrong update is not found out. Who takes part, and when, is seen. Private keys are not wiped from memory.

    Parameters
    ----------
    client
        Its number, from 0.
    terms
        What was agreed on; of the client's own making, not of the server's.
    identity
        Its signature key and everybody's public ones; without it, see above.
    draw
        Gives random bytes: `os.urandom`, but for tests.
    """

    def __init__(
        self,
        client: int,
        terms: Terms,
        *,
        identity: Identity | None = None,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.client, self.terms, self.identity, self._draw = client, terms, identity, draw
        self._share_key, self._mask_key = (X25519PrivateKey.from_private_bytes(draw(32)) for _ in range(2))
        self._seed = draw(32)
        self._members: dict[int, Advertised] = {}
        self._held: dict[int, tuple[bytes, bytes]] = {}
        self._done: list[str] = []

    def advertise(self) -> Advertised:
        """Its public keys."""
        self._once("advertise", after=[])
        keys = public_of(self._share_key), public_of(self._mask_key), committed(self._seed, self.terms.session)
        message = Advertised(self.client, *keys)
        if self.identity is None:
            return message
        return Advertised(self.client, *keys, self.identity.sign(message.signed(self.terms.session)))

    def share(self, roster: Roster) -> Sealed:
        """Shares of its mask key and of its seed, sealed for each of the others.

        Raises
        ------
        PrivacyError
            If fewer take part than are needed, or the threshold is not more than half of them.
        FederationError
            If the client is not among them as it is; if a client or a key is there twice; if a key is not signed by
            its client.
        """
        self._once("share", after=["advertise"])
        self._members = {member.client: member for member in roster.members}
        self._require_roster(roster)
        numbers = [client + 1 for client in self._members]
        key = self._mask_key.private_bytes_raw()
        of_key = shamir.split(key, numbers, self.terms.threshold, self._draw)
        of_seed = shamir.split(self._seed, numbers, self.terms.threshold, self._draw)
        self._held[self.client] = of_key[self.client + 1], of_seed[self.client + 1]
        boxes = {}
        for other in self._others():
            nonce = self._draw(12)
            text = of_key[other + 1] + of_seed[other + 1]
            boxes[other] = nonce + self._box(other).encrypt(nonce, text, _route(self.client, other))
        return Sealed(self.client, boxes)

    def mask(self, delivered: Sealed, words: Words) -> Masked:
        """Its update under the masks: y = x + PRG(b) + Σ_{v above} PRG(s_uv) - Σ_{v below} PRG(s_uv) modulo 2^64.

        Parameters
        ----------
        delivered
            The others' shares for this client. Who sent none takes no part any more.
        words
            x, of `Grid.encode`; uint64, shape [terms.words].

        Raises
        ------
        PrivacyError
            If fewer than are needed have sent shares.
        FederationError
            If shares are for somebody else, or were changed on the way; or x has another length.
        """
        self._once("mask", after=["advertise", "share"])
        if words.shape != (self.terms.words,) or words.dtype != np.uint64:
            raise FederationError(
                f"a secure sum of {self.terms.words:,} words was agreed on, not of {words.dtype} of shape {words.shape}"
            )
        self._open(delivered)
        self._require_enough(len(self._held), "clients have sent shares")
        masked = words.copy()
        add_keystream(masked, self._seed, 1)
        for other in self._held:
            if other != self.client:
                member = self._members[other]
                key = agreed(self._mask_key, member.mask_key, self.terms.session, MASK)
                add_keystream(masked, key, 1 if self.client < other else -1)
        return Masked(self.client, masked)

    def confirm(self, survivors: Survivors) -> Confirmed:
        """That it was told these survivors; with identities every client does so before any unmasks.

        Raises
        ------
        PrivacyError
            If they are too few, or not those that it shared secrets with.
        """
        self._once("confirm", after=["advertise", "share", "mask"])
        self._require_survivors(survivors)
        assert self.identity is not None, "without an identity there is nothing to confirm by"
        return Confirmed(self.client, self.identity.sign(survivors.signed(self.terms.session)))

    def unmask(self, survivors: Survivors, confirmed: Sequence[Confirmed] = ()) -> Unmasking:
        """Shares of the survivors' seeds, and of the mask keys of those that were lost.

        Parameters
        ----------
        survivors
            Those whose masked updates the server has.
        confirmed
            With identities: what the others confirmed.

        Raises
        ------
        PrivacyError
            If the survivors are too few, or not those that it shared secrets with; if with identities fewer than are
            needed have confirmed the same survivors.
        FederationError
            If a confirmation is not its client's.
        """
        self._once("unmask", after=["advertise", "share", "mask", *(["confirm"] if self.identity else [])])
        self._require_survivors(survivors)
        if self.identity is not None:
            for each in confirmed:
                self.identity.require(each.client, survivors.signed(self.terms.session), each.signature)
            agreeing = {each.client for each in confirmed} & set(survivors.clients)
            self._require_enough(len(agreeing), "clients confirm who is in the sum")
        alive = set(survivors.clients)
        seeds = {client: of_seed for client, (_, of_seed) in self._held.items() if client in alive}
        keys = {client: of_key for client, (of_key, _) in self._held.items() if client not in alive}
        return Unmasking(self.client, seeds, keys)

    def _others(self) -> list[int]:
        return [client for client in self._members if client != self.client]

    def _box(self, other: int) -> ChaCha20Poly1305:
        """What seals shares between this client and another."""
        public = self._members[other].share_key
        return ChaCha20Poly1305(agreed(self._share_key, public, self.terms.session, SHARES))

    def _open(self, delivered: Sealed) -> None:
        """Take the shares that others sent."""
        if delivered.client != self.client or not delivered.boxes.keys() <= self._members.keys() - {self.client}:
            raise FederationError(f"client {self.client} was sent shares of a secure sum that are not for it")
        for sender, box in delivered.boxes.items():
            try:
                text = self._box(sender).decrypt(box[:12], box[12:], _route(sender, self.client))
            except (InvalidTag, ValueError) as error:
                raise FederationError(
                    f"shares from client {sender} to client {self.client} were changed on the way"
                ) from error
            self._held[sender] = text[: shamir.SHARE], text[shamir.SHARE :]

    def _require_roster(self, roster: Roster) -> None:
        clients = len(self._members)
        keys = {key for member in roster.members for key in (member.share_key, member.mask_key)}
        if clients != len(roster.members) or len(keys) != 2 * clients:
            raise FederationError(
                "a client or a key is twice among those of a secure sum: it may be somebody in disguise"
            )
        own = self._members.get(self.client)
        if own is None or (own.share_key, own.mask_key) != (public_of(self._share_key), public_of(self._mask_key)):
            raise FederationError(f"client {self.client} is not among those of the secure sum, or under another's keys")
        self._require_enough(clients, "clients take part")
        if 2 * self.terms.threshold <= clients:
            raise PrivacyError(
                f"{self.terms.threshold:,} of {clients:,} clients are to unmask a sum: it must be more than half"
            )
        if self.identity is not None:
            for member in roster.members:
                self.identity.require(member.client, member.signed(self.terms.session), member.signature)

    def _require_survivors(self, survivors: Survivors) -> None:
        named = set(survivors.clients)
        if len(named) != len(survivors.clients) or not named <= self._held.keys() or self.client not in named:
            raise PrivacyError("those that are said to be in a secure sum are not those that secrets were shared with")
        self._require_enough(len(named), "clients are in the sum")

    def _require_enough(self, clients: int, doing: str) -> None:
        if clients < self.terms.needed:
            raise PrivacyError(
                f"{clients:,} {doing} and a secure sum needs {self.terms.needed:,}: client {self.client} takes no part"
            )

    def _once(self, step: str, after: list[str]) -> None:
        """Refuse a step out of its order, or a second time: it would tell more than one sum."""
        if self._done != after:
            done = ", ".join(self._done) or "nothing"
            raise PrivacyError(
                f"client {self.client} of a secure sum is asked to {step} after {done}: each step once, in order"
            )
        self._done.append(step)


def _route(sender: int, receiver: int) -> bytes:
    """What a box is bound to."""
    return sender.to_bytes(8, "little") + receiver.to_bytes(8, "little")
