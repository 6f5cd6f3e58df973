"""A node's side of a federation: what it answers to a server, beside its own users' data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from retract.errors import FederationError, RetractError
from retract.federation.contracts import DeviceStore, TaskMakers, TaskSpec
from retract.federation.local import LocalEngine
from retract.federation.wire import Parcel, answer_parcel, task_of
from retract.version import __version__


class Node(Protocol):
    """Answers a server's messages from what it holds."""

    def answer(self, action: str, parcel: Parcel) -> Parcel:
        """What it answers.

        Raises
        ------
        RetractError
            If it refuses; the line goes to the server, so that it names nothing that is private.
        """
        ...


def answer_task(
    parcel: Parcel,
    devices: DeviceStore,
    tasks: Callable[[TaskSpec], TaskMakers],
    *,
    seed: Callable[[TaskSpec, int], int] = lambda spec, seed: seed,
    dropout: float = 0.0,
) -> Parcel:
    """Run a task on a node's own users, as one vectorised cohort.

    Parameters
    ----------
    devices
        Where the node keeps their data and state.
    tasks
        What it can do of a system.
    seed
        From the task and the server's seed to that of the devices' draws.
    dropout
        As of `LocalEngine`.

    Raises
    ------
    FederationError
        If the node does not know the task, or hosts none of the users.
    """
    asked = task_of(parcel)
    engine = LocalEngine(devices, tasks(asked.spec), dropout=dropout)
    own = seed(asked.spec, asked.seed)
    return answer_parcel(engine.run(asked.spec, asked.broadcast, asked.users, seed=own))


def answering(node: Node, action: str, version: str, parcel: Parcel) -> tuple[Mapping[str, Any], Parcel]:
    """A node's whole answer: what is said of it, and what it holds. A refusal is an answer too.

    Parameters
    ----------
    version
        The software version that the server says it is of.
    """
    told: dict[str, Any] = {"version": __version__, "refusal": None}
    try:
        if version != __version__:
            raise FederationError(f"it has retract {__version__} and the server {version}: update the older one")
        return told, node.answer(action, parcel)
    except RetractError as error:
        return {**told, "refusal": str(error)}, Parcel()
