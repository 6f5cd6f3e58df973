"""How fast what was forgotten is learnt again: a model that only hides it needs less than one that never knew."""

from __future__ import annotations

import numpy as np

from retract.audit.attacks import look
from retract.audit.case import PRIMARY, Case, Version
from retract.federation import Clients, LocalEngine
from retract.systems.base import Extendable, Resumable

LIMIT = 32
RECALLED = 0.5
"""The part of the way back to the mean rank before that counts as learnt again."""


def rounds_to_relearn(case: Case, version: Version) -> int | None:
    """Rounds until the forgotten stand where they stood, given back to a copy of this model: 1, 2, 4, ... or None.

    A closed form takes them in at once: one round. None too where nothing of them can be attacked.
    """
    if not isinstance(case.system, Resumable):
        return 1 if isinstance(case.system, Extendable) else None
    if not len(case.targets.users):
        return None
    wanted, now = (_mean_rank(case, one) for one in (case.before, version))
    rounds = 1
    while rounds <= LIMIT:
        state = {name: rows.clone() for name, rows in version.clients.state.items()}
        clients = Clients(case.before.clients.sharing, state, version.clients.started.clone())
        engine, shared = LocalEngine(clients), clients.sharing.shared
        trained = case.system.resume(version.trained, shared, engine, rounds=rounds, seed=version.trained.seed)
        reached = _mean_rank(case, Version(trained, clients))
        if abs(reached - wanted) <= (1 - RECALLED) * abs(now - wanted):
            return rounds
        rounds *= 2
    return None


def _mean_rank(case: Case, version: Version) -> float:
    views = {PRIMARY: version.primary(case.system, case.kind)}
    return float(np.mean(look(views, case.targets).ranks[0, 0]))
