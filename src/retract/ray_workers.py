"""Workers of Ray: processes on this machine's cores, or on those of the cluster that RAY_ADDRESS names.

What is lent lies once on every machine, in memory that its workers share. A worker that is killed costs the pieces that
it was at: others compute them anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from retract.errors import RetractError, WorkerError, missing_extra
from retract.threads import threads

Result = TypeVar("Result")
TRIES = 3
"""How often a piece is computed anew where a worker was lost."""


class RayWorkers:
    """Workers of the Ray that this process is connected to.

    Parameters
    ----------
    ray
        The module, initialised.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._run = ray.remote(max_retries=TRIES)(_run)
        self.count = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def lend(self, table: Any) -> Any:
        """Put a table where all workers read it, without a copy for each on a machine."""
        return self._ray.put(table)

    def map(self, work: Callable[..., Result], pieces: Sequence[Any], *lent: Any) -> Iterator[Result]:
        """See `retract.workers.Workers`."""
        shared = [one if isinstance(one, self._ray.ObjectRef) else self.lend(one) for one in lent]
        asked = [self._run.remote(work, piece, *shared) for piece in pieces]
        try:
            for number in range(len(asked)):
                result = self._answer(asked[number])
                asked[number] = None  # so that Ray can let go of it
                yield result
        finally:
            for left in asked:
                if left is not None:
                    self._ray.cancel(left)

    def _answer(self, asked: Any) -> Any:
        """A piece's result, or its own error as if it had been computed here."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(asked)
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, RetractError) else error) from None
        except errors.RayError as error:
            told = str(error).strip().partition("\n")[0]
            raise WorkerError(
                f"workers of Ray were lost {TRIES + 1} times at the same piece ({type(error).__name__}: {told}): "
                "nothing was changed; give them more memory, or compute here with --engine local"
            ) from None


def _run(work: Callable[..., Result], piece: Any, *lent: Any) -> Result:
    return work(piece, *lent)


@contextmanager
def ray_workers() -> Iterator[RayWorkers]:
    """Workers of the cluster that RAY_ADDRESS names, or as many as this process has threads, ended afterwards.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    WorkerError
        If it cannot be started or reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise missing_extra("--engine ray", "distributed", "ray") from None
    if ray.is_initialized():  # by somebody else, who ends it
        yield RayWorkers(ray)
        return
    address = os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {} if address else {"num_cpus": threads(), "include_dashboard": False}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:
        where = f"reached at {address}" if address else "started"
        told = str(error).strip().partition("\n")[0]
        raise WorkerError(f"Ray cannot be {where}: {told}; correct RAY_ADDRESS, or take --engine local") from None
    try:
        yield RayWorkers(ray)
    finally:
        ray.shutdown()
