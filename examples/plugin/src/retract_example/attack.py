"""`popularity`: an attacker who knows no model and guesses by what is popular. A model must give away more."""

from __future__ import annotations

import numpy as np

from retract.auditing.attacks import Seen, Values
from retract.auditing.shadows import Shadows
from retract.auditing.targets import Targets


class ByPopularity:
    """An `Attack`: called with what there is to know, it scores members and others."""

    def __call__(self, targets: Targets, seen: Seen, shadows: Shadows | None) -> Values:
        """How many users still hold each item, shape [2, n]."""
        held = targets.known.item_degrees().astype(np.float64)
        return np.stack([held[targets.members.items], held[targets.others]])
