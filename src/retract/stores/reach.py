"""Forgetting where the devices are on other machines: who is reached, and what is known of those who ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.federation import Engine
from retract.stores.held import Held
from retract.stores.ledger import Request
from retract.systems.abilities import learnt_from


@dataclass(frozen=True)
class Reach:
    """Devices on other machines, which have withdrawn already what is told.

    Parameters
    ----------
    engine
        Reaches them as they are now.
    gone
        Original ids of users who asked for an erasure and hold nothing any more.
    """

    engine: Engine
    gone: frozenset[str] = frozenset()


def learns_everything(held: Held) -> bool:
    """Whether private interactions went into the model too."""
    return learnt_from(held.system.server, "erase") == "everything"


def askers(held: Held, requests: Sequence[Request], kind: str) -> NDArray[np.int64]:
    """Codes of the users who ask for a kind of withdrawal, as far as they are known; ascending."""
    known = set(held.catalog.known_users)
    names = {request.user for request in requests if request.kind == kind and request.user in known}
    return np.array(sorted(held.catalog.user(name) for name in names), dtype=np.int64)
