"""How fast what was forgotten is learnt again: a model that only hides it needs less than one that never knew."""

from __future__ import annotations

import numpy as np

from retract.auditing.attacks import look
from retract.auditing.case import PRIMARY, Case, Version
from retract.stores.local import engine_of
from retract.systems.abilities import Continuing, Extendable

LIMIT = 32
RECALLED = 0.5
"""The part of the way back to the mean rank before that counts as learnt again."""


def rounds_to_relearn(case: Case, version: Version) -> int | None:
    """Rounds until the forgotten stand where they stood, given back to a copy of this model: 1, 2, 4, ... or None.

    A closed form takes them in at once: one round. None too where nothing of them can be attacked.
    """
    server, given_back = case.system.server, case.before.sharing
    if not isinstance(server, Continuing):
        return 1 if isinstance(server, Extendable) else None
    if not len(case.targets.users):
        return None
    wanted, now = (_mean_rank(case, one) for one in (case.before, version))
    rounds = 1
    while rounds <= LIMIT:
        devices = None if version.devices is None else version.devices.given(given_back)
        engine, seed = engine_of(case.system, devices), version.trained.seed
        trained = server.continue_training(version.trained, given_back.shared, engine, rounds=rounds, seed=seed)
        reached = _mean_rank(case, Version(trained, devices))
        if abs(reached - wanted) <= (1 - RECALLED) * abs(now - wanted):
            return rounds
        rounds *= 2
    return None


def _mean_rank(case: Case, version: Version) -> float:
    views = {PRIMARY: version.primary(case.system, case.kind)}
    return float(np.mean(look(views, case.targets).ranks[0, 0]))
