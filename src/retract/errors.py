"""What can go wrong, each with a message that says what, which value, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class RetractError(Exception):
    """Any error that retract raises on purpose. Its text is one clear line for a person."""


class DataError(RetractError):
    """The data is not what it must be: a missing column, a non-numeric rating, an empty file."""


class UnknownIdError(DataError):
    """A user or item id that the catalog does not hold.

    Parameters
    ----------
    text
        The message. It names no other user: their ids are nobody's business who asks for one.
    near
        Called for the nearest known ids of users, for who may see them; None of items, where the message names them.
    """

    def __init__(self, text: str, near: Callable[[], Sequence[str]] | None = None) -> None:
        super().__init__(text)
        self.near = near


class SharingError(RetractError):
    """A sharing or withdrawal that cannot be: a ratio outside [0, 1], forgetting what was never shared."""


class ConfigError(RetractError):
    """A setting outside its range, or settings that contradict each other."""


class FolderError(RetractError):
    """A trained folder that is missing, damaged, of another version, or not ours."""


class PrivacyError(RetractError):
    """Something that would break a privacy or forgetting promise. Never downgraded to a warning."""


class CertificateError(RetractError):
    """A certificate that is damaged, of another key or another model; or a key that cannot sign or check one."""


class FederationError(RetractError):
    """A message between a server and its devices that does not fit what was agreed, or devices that are not there."""


class WorkerError(RetractError):
    """Workers that compute beside this process could not be started, or were lost."""


class MissingExtraError(RetractError):
    """A part of retract that needs packages which are not installed; the message says which extra brings them."""


def missing_extra(what: str, extra: str, package: str) -> MissingExtraError:
    """The error of somebody who lacks an extra."""
    return MissingExtraError(f"{what} needs {package}, which is not installed: pip install 'retract[{extra}]'")
