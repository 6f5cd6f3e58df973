"""Faults that strike a process at one chosen step: a kill, an interrupt, a halt, a full disk.

A step is any call that changes files: it makes, renames, syncs or removes one, or writes bytes into it. Who asks for a
fault does so in a forked child, before the child begins to work; the child says on a pipe which step was struck.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["count", "kill", "interrupt", "halt", "full"]
GROWS = {"mkdir", "create", "link", "rename", "replace", "fsync", "write"}
"""Steps that a full disk refuses."""
NAMED = GROWS - {"fsync", "write"}
"""Of these, those whose error names the file."""
_BY_NAME = ("mkdir", "link", "rename", "replace", "unlink", "remove", "rmdir", "fsync", "truncate", "ftruncate")
_write, _kill, _open = os.write, os.kill, os.open


@dataclass(frozen=True)
class Fault:
    """What strikes, and when.

    Parameters
    ----------
    kind
        "full" strikes at every later step too, until the process ends; "count" never strikes.
    at
        The step, from 1.
    half
        Where that step is a write, half of the bytes come through first.
    """

    kind: Kind = "count"
    at: int = 0
    half: bool = False

    def counts(self, name: str) -> bool:
        """Whether a step counts for this fault."""
        return self.kind != "full" or name in GROWS


class Ended(NamedTuple):
    """How a child ended: its exit code (negative: its signal), what it wrote, and the step that was struck."""

    code: int
    out: str
    err: str
    struck: str


class Child:
    """Work in a forked child that a fault strikes.

    Parameters
    ----------
    work
        Returns the exit code.
    room
        Where the child's streams go; nobody else's files.
    """

    def __init__(self, work: Callable[[], int], fault: Fault, room: Path) -> None:
        self._pipe, told = os.pipe()
        self._streams = [room / f"{name}-{told}" for name in ("out", "err")]
        sys.stdout.flush()
        self.process = os.fork()
        if self.process == 0:
            os.close(self._pipe)
            _be_child(work, fault, told, self._streams)
        os.close(told)

    def halted(self) -> bool:
        """Wait until it is halted, or over; whether it is halted."""
        info = os.waitid(os.P_PID, self.process, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert info is not None
        return info.si_code == os.CLD_STOPPED

    def over(self) -> bool:
        """Whether it is over by now."""
        return os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def goes_on(self) -> None:
        """Let a halted one go on."""
        _kill(self.process, signal.SIGCONT)

    def ended(self) -> Ended:
        """Wait for its end."""
        _, verdict = os.waitpid(self.process, 0)
        with os.fdopen(self._pipe, "rb") as pipe:
            struck = pipe.read().decode()
        out, err = (path.read_text() for path in self._streams)
        for path in self._streams:
            path.unlink()
        return Ended(os.waitstatus_to_exitcode(verdict), out, err, struck)


def _be_child(work: Callable[[], int], fault: Fault, told: int, streams: list[Path]) -> None:
    """Never returns."""
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, path in enumerate(streams, start=1):
            os.dup2(_open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        steps = Steps(fault, told)
        steps.install()
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
        if fault.kind == "count":
            _write(told, str(steps.done).encode())
    except BaseException as error:  # whatever it was, the parent must see it
        _write(2, f"in the child: {error!r}".encode())
    os._exit(code)


class Steps:
    """Counts the steps of this process, and strikes."""

    def __init__(self, fault: Fault, told: int) -> None:
        self.fault, self.told, self.done = fault, told, 0

    def install(self) -> None:
        """From now on every step is seen."""
        for name in _BY_NAME:
            setattr(os, name, self._seen(name, getattr(os, name)))
        os.open = self._open  # type: ignore[assignment]
        os.write = self._os_write
        io.open = builtins.open = self._io_open  # type: ignore[assignment]

    def step(self, name: str, path: object, written: Callable[[], object] | None = None) -> None:
        """Come to a step; `written` lets half of its bytes through."""
        if not self.fault.counts(name):
            return
        self.done += 1
        lasting = self.fault.kind == "full" and 0 < self.fault.at < self.done
        if self.done != self.fault.at and not lasting:
            return
        told = name
        if written is not None and self.fault.half and not lasting:
            written()
            told = "half a write"
        if not lasting:
            _write(self.told, f"{told} {path}".encode())
        self._strike(name, path)

    def _strike(self, name: str, path: object) -> None:
        signals = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "halt": signal.SIGSTOP}
        if self.fault.kind == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([os.fspath(path)] if name in NAMED else []))  # type: ignore[call-overload]
        _kill(os.getpid(), signals[self.fault.kind])

    def _seen(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if not (name == "mkdir" and os.path.lexists(arguments[0])):  # nothing would be made
                self.step(name, arguments[0])
            return original(*arguments, **options)

        return call

    def _open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT and not os.path.lexists(path):
            self.step("create", path)
        return _open(path, flags, *arguments, **options)

    def _os_write(self, descriptor: int, data: Any) -> int:
        if descriptor > 2:
            self.step("write", descriptor, lambda: _write(descriptor, memoryview(data)[: len(data) // 2]))
        return _write(descriptor, data)

    def _io_open(self, file: Any, mode: str = "r", buffering: int = -1, *text: Any, **options: Any) -> Any:
        if not set(mode) & set("wxa+"):
            return _io_open(file, mode, buffering, *text, **options)
        if not isinstance(file, int) and ("w" in mode or not os.path.lexists(file)):
            self.step("create", file)
        raw = _Raw(
            file, mode.replace("b", "").replace("t", ""), options.pop("closefd", True), options.pop("opener", None)
        )
        raw.steps = self
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *text, **options)


_io_open = io.open


class _Raw(io.FileIO):
    """A file whose writes are steps."""

    steps: Steps

    def write(self, data: Any) -> int:
        half = memoryview(data).cast("B")[: memoryview(data).nbytes // 2]
        self.steps.step("write", self.name, lambda: io.FileIO.write(self, half))
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self.steps.step("truncate", self.name)
        return super().truncate(size)
