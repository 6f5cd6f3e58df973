"""Signed JSON: one way to write it, and read only where the signature holds for every byte.

The content must be the very bytes that `Form.sign` writes of its fields, so that nothing can change that a parser would
pass over: white space, the case of hex digits, the spelling of numbers, the order of keys, keys given twice.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config

from retract.errors import CertificateError, RetractError
from retract.stores.keys import fingerprint
from retract.version import __version__

FORMAT = 1


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it must be printable text, for it is shown on terminals")
    return text


Text = Annotated[str, AfterValidator(_printable)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
strict = with_config(ConfigDict(strict=True, extra="forbid"))


@strict
@dataclass(frozen=True, kw_only=True)
class Signed:
    """What every signed file says beside what it states; `Form.read` makes no other.

    Parameters
    ----------
    format
        Version of the file's layout.
    public_key
        Raw Ed25519 key, hex.
    signature
        Ed25519, hex, over the canonical JSON of all else.
    """

    format: Literal[1]
    public_key: Hash
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]

    @property
    def public(self) -> Ed25519PublicKey:
        """The signer's key."""
        return public_of(self.public_key)


Made = TypeVar("Made", bound=Signed)


@dataclass(frozen=True)
class Form(Generic[Made]):
    """A kind of signed file.

    Parameters
    ----------
    name
        What errors call it.
    made
        The dataclass of its fields.
    remedy
        What to do about a damaged one.
    error
        What is raised where one is none, or does not hold.
    """

    name: str
    made: type[Made]
    remedy: str
    error: type[RetractError] = CertificateError

    def sign(self, said: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
        """The file of what is said.

        Raises
        ------
        ValueError, TypeError, RecursionError
            If JSON cannot hold a value.
        """
        whole = {**said, "format": FORMAT, "public_key": key.public_key().public_bytes_raw().hex()}
        return _canonical({**whole, "signature": key.sign(_canonical(whole)).hex()})

    def read(self, content: bytes, source: str) -> Made:
        """Read a file whose signature holds for every byte of it.

        Parameters
        ----------
        source
            What errors call it: its path.

        Raises
        ------
        RetractError
            The form's `error`: if it is empty, cut short, changed, of another format, or not signed by the key that it
            names.
        """
        found = self._parsed(content, source)
        try:
            made = self._adapter.validate_json(content)
        except ValidationError as error:
            raise self.error(f"{source} is no {self.name}: {_explain(error)}") from None
        said = {name: value for name, value in found.items() if name != "signature"}
        try:
            made.public.verify(bytes.fromhex(made.signature), _canonical(said))
        except InvalidSignature:
            raise self.error(
                f"{source} is not what was signed: its signature does not hold for key {fingerprint(made.public)}; "
                f"{self.remedy}"
            ) from None
        return made

    @cached_property
    def _adapter(self) -> TypeAdapter[Made]:
        return TypeAdapter(self.made)

    def _parsed(self, content: bytes, source: str) -> dict[str, Any]:
        """The fields of a file of this form, if `content` is their canonical JSON."""
        none = f"{source} is no {self.name}"
        if not content:
            raise self.error(f"{source} is empty: {self.remedy}")
        try:
            found = json.loads(content)
            canonical = _canonical(found)
        except (ValueError, RecursionError):
            raise self.error(f"{none}, or a damaged one: it is not the JSON of one") from None
        if not isinstance(found, dict) or "format" not in found:
            raise self.error(f"{none}: it has no field 'format'")
        if found["format"] != FORMAT:
            shown = reprlib.repr(found["format"])
            raise self.error(f"{source} has {self.name} format {shown}, this retract {__version__} reads {FORMAT}")
        if absent := sorted({each.name for each in fields(self.made)} - found.keys()):
            raise self.error(f"{none}: it has no field {absent[0]!r}")
        if content != canonical:
            raise self.error(f"{source} is not what was signed: it was written anew or changed; {self.remedy}")
        return found


def public_of(raw: str) -> Ed25519PublicKey:
    """The public key that a signed file names."""
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw))


def _explain(error: ValidationError) -> str:
    """The first problem of a file's fields."""
    problem = error.errors()[0]
    if not problem["loc"]:  # of the JSON as a whole, such as too deep a nesting
        return problem["msg"]
    name = ".".join(str(part) for part in problem["loc"])
    return f"field {name!r} is {reprlib.repr(problem['input'])}: {problem['msg']}"


def _canonical(found: Any) -> bytes:
    """The one way to write a value as JSON."""
    return (json.dumps(found, sort_keys=True, ensure_ascii=True, indent=1, allow_nan=False) + "\n").encode()
