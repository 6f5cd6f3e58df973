"""Who takes part in a round."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.errors import ConfigError
from retract.federation.contracts import Engine


def require_users(users: NDArray[np.int64]) -> None:
    """Refuse a round of nobody.

    Raises
    ------
    ConfigError
        If no user is given.
    """
    if not len(users):
        raise ConfigError("no client takes part in this round: at least one user must hold an interaction")


def one_user_each(engine: Engine) -> bool:
    """Whether no client holds the data of two users."""
    clients = engine.clients_of(engine.users)
    return len(np.unique(clients)) == len(clients)


def sample_clients(engine: Engine, part: float, seed: int, round: int) -> NDArray[np.int64]:
    """The users of a round: each client joins with probability `part` by a keyed draw, at least one does."""
    users = engine.users
    draw = streams.uniform(seed, round, engine.clients_of(users), "participation")
    return users[draw <= max(part, float(draw.min(initial=1.0)))]
