"""Who computes the pieces of a large sum: the threads of this process, or workers on other cores and machines.

What a piece gives depends on the piece and on what it reads, and results come in the order of the pieces. So a sum is
the same to the last bit, whoever computes it and however many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from retract.errors import ConfigError
from retract.threads import threads

Result = TypeVar("Result")
ENGINES = ("local", "ray")
"""What computes, by the name that a command takes."""


class Workers(Protocol):
    """Some who compute beside each other."""

    @property
    def count(self) -> int:
        """How many they are."""
        ...

    def lend(self, table: Any) -> Any:
        """Lay a table where all of them can read it; `map` takes what this gives in its place."""
        ...

    def map(self, work: Callable[..., Result], pieces: Sequence[Any], *lent: Any) -> Iterator[Result]:
        """`work(piece, *lent)` of every piece, in their order.

        Parameters
        ----------
        work
            Pure, and picklable: a function of a module, or a `functools.partial` of one.
        pieces
            What differs; may have been lent.
        lent
            What all read and none writes to.

        Raises
        ------
        WorkerError
            If workers were lost, and those that took their place too.
        """
        ...


class Threads:
    """The threads that this process was given. NumPy and SciPy let others run while they compute."""

    @property
    def count(self) -> int:
        """See `retract.threads.threads`."""
        return threads()

    def lend(self, table: Any) -> Any:
        """The table: all threads see the same memory."""
        return table

    def map(self, work: Callable[..., Result], pieces: Sequence[Any], *lent: Any) -> Iterator[Result]:
        """See `Workers`."""
        count = min(self.count, len(pieces))
        if count <= 1:
            yield from (work(piece, *lent) for piece in pieces)
            return
        with ThreadPoolExecutor(count) as pool:
            yield from pool.map(lambda piece: work(piece, *lent), pieces)


THREADS = Threads()
_current: ContextVar[Workers] = ContextVar("workers", default=THREADS)


def workers() -> Workers:
    """Those who compute large sums now: our own threads, unless `computing_by` says otherwise."""
    return _current.get()


@contextmanager
def computing_by(others: Workers) -> Iterator[None]:
    """Have large sums computed by others meanwhile."""
    before = _current.set(others)
    try:
        yield
    finally:
        _current.reset(before)


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Compute by an engine of this name meanwhile, which is started and ended here.

    Raises
    ------
    ConfigError
        If there is none of this name.
    MissingExtraError
        If its packages are not installed.
    WorkerError
        If it cannot be started.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine {name!r} is not known: take {' or '.join(ENGINES)}")
    if name == "local":
        yield
        return
    from retract.ray_workers import ray_workers

    with ray_workers() as found, computing_by(found):
        yield
