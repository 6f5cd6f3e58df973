"""The server's side of a secure sum: it carries messages, adds up what is masked, and takes masks away from the sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from retract.errors import FederationError, PrivacyError
from retract.federation.privacy import shamir
from retract.federation.privacy.masks import MASK, Words, add_keystream, agreed, committed, public_of
from retract.federation.privacy.messages import (
    Advertised,
    Masked,
    Roster,
    Sealed,
    Survivors,
    Terms,
    Unmasking,
)


class UnmaskingServer:
    """The server in one secure sum; see `retract.federation.privacy.masking.MaskingClient` for what holds.

    Steps: `roster` of who takes part; `deliver` the shares; `add` each masked update; `survivors`; and the `total`. At
    every step those that have not answered are left out, and the sum is refused once fewer are left than are needed.

    Parameters
    ----------
    terms
        What was agreed on.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._members: dict[int, Advertised] = {}
        self._sharing: set[int] = set()
        self._added: set[int] = set()
        self._sum: Words = np.zeros(terms.words, dtype=np.uint64)
        self._closed = False

    def roster(self, messages: Iterable[Advertised]) -> Roster:
        """Who takes part, for everybody.

        Raises
        ------
        PrivacyError
            If they are fewer than are needed.
        FederationError
            If a client answers twice.
        """
        for message in messages:
            if message.client in self._members:
                raise _twice(message.client)
            self._members[message.client] = message
        self.terms.require(len(self._members))
        return Roster(tuple(self._members[client] for client in sorted(self._members)))

    def deliver(self, messages: Sequence[Sealed]) -> dict[int, Sealed]:
        """The sealed shares by whom they are for; errors as of `roster`, or if a client has not sealed for all."""
        for message in messages:
            if message.client not in self._members:
                raise _unknown(message.client)
            if message.client in self._sharing:
                raise _twice(message.client)
            if message.boxes.keys() != self._members.keys() - {message.client}:
                raise FederationError(f"client {message.client} has not sealed shares for each of the others")
            self._sharing.add(message.client)
        self.terms.require(len(self._sharing))
        return {
            receiver: Sealed(
                receiver, {each.client: each.boxes[receiver] for each in messages if each.client != receiver}
            )
            for receiver in sorted(self._sharing)
        }

    def add(self, message: Masked) -> None:
        """Add a masked update.

        Raises
        ------
        FederationError
            If the client has shared no secrets, or answers twice or too late, or its message has another length.
        """
        if message.client not in self._sharing:
            raise _unknown(message.client)
        if message.client in self._added:
            raise _twice(message.client)
        if self._closed:
            raise FederationError(f"client {message.client} answers after the secure sum was closed: it is left out")
        if message.words.shape != self._sum.shape or message.words.dtype != np.uint64:
            raise FederationError(
                f"client {message.client} sent {message.words.dtype} of shape {message.words.shape} to a secure sum of "
                f"{self.terms.words:,} words"
            )
        self._added.add(message.client)
        self._sum += message.words

    def survivors(self) -> Survivors:
        """Whose updates are in the sum; none is added any more.

        Raises
        ------
        PrivacyError
            If they are fewer than are needed.
        """
        self._closed = True
        self.terms.require(len(self._added))
        return Survivors(tuple(sorted(self._added)))

    def total(self, messages: Iterable[Unmasking]) -> Words:
        """The sum, modulo 2^64, of all whose masked updates were added.

        From the sum go the survivors' own masks, made of the seeds, and the masks that survivors had in common with
        those that were lost, made of the lost ones' keys. Seeds and keys come out of t shares each.

        Raises
        ------
        PrivacyError
            If fewer than the threshold answer.
        FederationError
            If a client answers twice, or shares are missing or wrong.
        """
        answers: dict[int, Unmasking] = {}
        for message in messages:
            if message.client not in self._added:
                raise _unknown(message.client)
            if message.client in answers:
                raise _twice(message.client)
            answers[message.client] = message
        if len(answers) < self.terms.threshold:
            raise PrivacyError(
                f"{len(answers):,} clients help to unmask a sum and {self.terms.threshold:,} are needed: it stays "
                "masked; run the round again"
            )
        helpers = sorted(answers)[: self.terms.threshold]
        weights = shamir.weights_at_zero([client + 1 for client in helpers])
        total = self._sum.copy()
        for client in sorted(self._added):
            shares = _shares({helper: answers[helper].seeds for helper in helpers}, client)
            self._take_seed(total, client, shamir.join(shares, weights))
        for client in sorted(self._sharing - self._added):
            shares = _shares({helper: answers[helper].keys for helper in helpers}, client)
            self._take_pairs(total, client, shamir.join(shares, weights))
        return total

    def _take_seed(self, total: Words, client: int, seed: bytes) -> None:
        """Take a survivor's own mask away."""
        if committed(seed, self.terms.session) != self._members[client].commitment:
            raise FederationError(f"the shares of client {client}'s seed are wrong: run the round again")
        add_keystream(total, seed, -1)

    def _take_pairs(self, total: Words, lost: int, key: bytes) -> None:
        """Take the masks away that survivors had in common with a client that was lost."""
        private = X25519PrivateKey.from_private_bytes(key)
        if public_of(private) != self._members[lost].mask_key:
            raise FederationError(f"the shares of client {lost}'s key are wrong: run the round again")
        for client in self._added:
            pair = agreed(private, self._members[client].mask_key, self.terms.session, MASK)
            add_keystream(total, pair, -1 if client < lost else 1)


def _shares(held: Mapping[int, Mapping[int, bytes]], client: int) -> dict[int, bytes]:
    """The helpers' shares of one client's secret, by holder's number."""
    lacking = [helper for helper, shares in held.items() if client not in shares]
    if lacking:
        raise FederationError(
            f"client {lacking[0]} has sent no share of a secret of client {client}: run the round again"
        )
    return {helper + 1: shares[client] for helper, shares in held.items()}


def _twice(client: int) -> FederationError:
    return FederationError(f"client {client} answers twice in one step of a secure sum")


def _unknown(client: int) -> FederationError:
    return FederationError(f"client {client} answers in a secure sum that it takes no part in at this step")
