"""Keys and keystreams of secure sums: X25519, HKDF-SHA256, ChaCha20 and Ed25519, all of the `cryptography` package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from retract.errors import FederationError

Words = NDArray[np.uint64]
"""Numbers modulo 2^64."""
SHARES, MASK = "shares", "mask"
"""What a key that two clients agree on is for."""
CHUNK = 2**18
"""Bytes of keystream at a time: they stay in the cache."""
_ZEROS = bytes(CHUNK)


def public_of(private: X25519PrivateKey) -> bytes:
    """32 bytes."""
    return private.public_key().public_bytes_raw()


def agreed(private: X25519PrivateKey, public: bytes, session: bytes, purpose: str) -> bytes:
    """A key of 32 bytes that two clients have in common, for one session and purpose.

    Raises
    ------
    FederationError
        If the other's key is no good: a point of small order, whose secret anybody knows.
    """
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise FederationError("a client's public key gives no secret: it is not a key of X25519") from error
    return HKDF(SHA256(), 32, salt=session, info=b"retract secure sum " + purpose.encode()).derive(secret)


def committed(seed: bytes, session: bytes) -> bytes:
    """The hash by which a seed is known again and not known before."""
    digest = Hash(SHA256())
    digest.update(b"retract secure sum seed" + session + seed)
    return digest.finalize()


def add_keystream(words: Words, key: bytes, sign: int) -> None:
    """Add a key's stream to some words in place, or take it away, modulo 2^64.

    The stream is ChaCha20's (RFC 8439) from block 0. No key is used for anything else: each is fresh for a session.

    Parameters
    ----------
    words
        uint64, shape [n].
    sign
        1 or -1.
    """
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    buffer = bytearray(CHUNK)
    drawn = np.frombuffer(buffer, dtype="<u8")
    for begin in range(0, len(words), CHUNK // 8):
        part = words[begin : begin + CHUNK // 8]
        stream.update_into(_ZEROS[: 8 * len(part)], buffer)
        (np.add if sign > 0 else np.subtract)(part, drawn[: len(part)], out=part)


@dataclass(frozen=True)
class Identity:
    """A client's long-lived signature key, and the others' public ones, which it does not have from the server.

    Parameters
    ----------
    private
        Its own Ed25519 key.
    known
        Public keys of all clients that may take part, 32 bytes each.
    """

    private: Ed25519PrivateKey
    known: Mapping[int, bytes]

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self.private.sign(message)

    def require(self, client: int, message: bytes, signature: bytes) -> None:
        """Refuse a message that is not the client's.

        Raises
        ------
        FederationError
            If the client is not known, or the signature is not its own.
        """
        if client not in self.known:
            raise FederationError(f"client {client} is not among the known ones: it cannot take part in a secure sum")
        try:
            Ed25519PublicKey.from_public_bytes(self.known[client]).verify(signature, message)
        except InvalidSignature as error:
            raise FederationError(f"a message in the name of client {client} has not its signature") from error
