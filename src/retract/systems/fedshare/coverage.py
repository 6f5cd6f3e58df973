"""How much of what clients hold is shared: what the server's view is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import RoundResult


@dataclass(frozen=True)
class Coverage:
    """Who answered last, and how many interactions they hold.

    Parameters
    ----------
    users
        Whether each user is among them, shape [n_users].
    held
        Their interactions, shared and private alike.
    """

    users: NDArray[np.bool_]
    held: int

    @classmethod
    def none(cls, n_users: int) -> Coverage:
        """Nobody has answered yet."""
        return cls(np.zeros(n_users, dtype=np.bool_), 0)

    def after(self, result: RoundResult) -> Coverage:
        """That of a round of local epochs."""
        users = np.zeros(len(self.users), dtype=np.bool_)
        users[result.answered] = True
        return Coverage(users, int(result.update.tensors["interactions"]))

    def of(self, shared: Interactions) -> float:
        """The part of what they hold that `shared` has."""
        return float(shared.user_degrees()[self.users].sum() / max(self.held, 1))

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """Its arrays, by the names that they are kept under."""
        return {"answering": self.users, "held": np.asarray(self.held, dtype=np.int64)}

    @classmethod
    def among(cls, tables: Mapping[str, NDArray[Any]]) -> Coverage:
        """What `tables` laid among some tables."""
        return cls(tables["answering"], int(tables["held"]))
