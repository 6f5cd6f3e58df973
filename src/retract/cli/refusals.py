"""From an error to what people and scripts are told: one line, one object, one exit code."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches

import typer

from retract.cli.usage import LineError
from retract.errors import RetractError

GOOD, OUR_FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
_BAD_PATH = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
_TO_DO = re.compile(
    r"(?:[;:] |, or )((?:add|allow|ask|call|check|choose|convert|correct|delete|free|give|leave|lower|make|mark|mend|"
    r"name|note|pip|plug|raise|rename|restore|resume|run|score|set|share|take|train|update|use|write)\b.*|--\w.*|"
    r"`retract .*)$"
)
"""The end of a message that says what to do, as our messages do: an order, or an option and what it does."""


class InterruptedRunError(Exception):
    """Ctrl-C, with what state is left."""


class LackingError(RetractError):
    """The machine lacks something that the work needs.

    Parameters
    ----------
    text
        What, where, and which state is left.
    name
        What scripts know it by.
    """

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


@dataclass(frozen=True)
class Refusal:
    """What a command that failed tells.

    Parameters
    ----------
    error
        What scripts know the kind of error by: a stable name.
    what
        The line for people.
    where
        The file, folder or option that it is about; None where it is about none.
    hint
        What to do; None where the line does not say.
    code
        The exit code.
    """

    error: str
    what: str
    where: str | None
    hint: str | None
    code: int

    @property
    def line(self) -> str:
        """The one line on stderr."""
        if self.code == INTERRUPTED:
            return "interrupted" + (f": {self.what}" if self.what != "interrupted" else "")
        return f"error: {self.what}"

    def to_json(self) -> dict[str, object]:
        """The one object on stdout."""
        return asdict(self)


def refusal(error: BaseException, arguments: Sequence[str]) -> Refusal:
    """What to tell of an error of the command with these arguments."""
    name, what, code = _judge(error)
    what = " ".join(what.split())
    option = getattr(getattr(error, "param", None), "opts", None)
    where = option[0] if option else getattr(error, "option_name", None) or _where(what, arguments)
    return Refusal(name, what, where, _hint(what), code)


def lacking(error: BaseException) -> tuple[str, str] | None:
    """What the machine lacks, for people and for scripts; None if the error is of another kind."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or _of_torch(error):
        size = re.search(r"[\d.]+ [KMGTPE]?i?B(?: for an array with shape \([\d, ]+\))?|\d+ bytes", str(error))
        asked = f": {size.group()} was asked for" if size else ""
        return f"there is not enough memory{asked}", "out_of_memory"
    if not isinstance(error, OSError) or error.errno not in _DISK_FULL | _NOT_WRITABLE:
        return None
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{place}{error.strerror}", "disk_full" if error.errno in _DISK_FULL else "not_permitted"


def _of_torch(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def _judge(error: BaseException) -> tuple[str, str, int]:
    """Name, line and exit code of an error."""
    if isinstance(error, InterruptedRunError | KeyboardInterrupt | typer.Abort):
        return "interrupted", str(error) or "interrupted", INTERRUPTED
    if isinstance(error, LackingError):
        return error.name, str(error), BAD_INPUT
    if isinstance(error, RetractError):
        return _name(error), str(error), BAD_INPUT
    if isinstance(error, LineError):
        return "usage", _of_command_line(error), BAD_INPUT
    if (lack := lacking(error)) is not None:
        return lack[1], f"{lack[0]}; nothing was changed", BAD_INPUT
    if isinstance(error, OSError) and error.errno in _BAD_PATH and error.filename is not None:
        return "path", f"{os.fsdecode(error.filename)}: {error.strerror}", BAD_INPUT
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return "internal", f"{what}. This is our fault; RETRACT_DEBUG=1 shows where it happened", OUR_FAULT


def _name(error: Exception) -> str:
    """The class of an error in snake case, without the word error: `UnknownIdError` is unknown_id."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower() or "error"


def _of_command_line(error: Exception) -> str:
    """What is wrong with a command line, the same with every typer."""
    context = getattr(error, "ctx", None)
    text = error.format_message().rstrip(".") if hasattr(error, "format_message") else str(error)
    if context is None:
        return text
    if typed := re.match(r"No such command '([^']+)'", text):  # what some suggest, others do not, and some twice
        near = get_close_matches(typed[1], context.command.list_commands(context), 3)
        text = typed[0] + (f". Did you mean {' or '.join(map(repr, near))}?" if near else "")
    return f"{text} (see {context.command_path} --help)"


def _where(what: str, arguments: Sequence[str]) -> str | None:
    """The file, folder or option of a command line that a message is about: one it names, else the first path."""
    words = [word.partition("=")[2] if word.startswith("--") and "=" in word else word for word in arguments]
    words = [word for word in words if word and not word.startswith("-")]
    paths = [word for word in words if os.sep in word or os.path.exists(word)]
    for path in sorted({*paths, *map(os.path.realpath, words)}, key=len, reverse=True):
        if found := re.search(rf"{re.escape(path)}(/[^\s:;,]+)?(, (line|row) [\d,]+)?(, column '[^']*')?", what):
            return found.group()
    return paths[0] if paths else None


def _hint(what: str) -> str | None:
    """What a message says is to be done."""
    if found := re.search(r"\(see (retract.*? --help)\)$", what):
        return found.group(1)
    found = _TO_DO.search(what)
    return found.group(1) if found else None
