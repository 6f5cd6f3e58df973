"""What PersonalFR's server asks everybody: a sum in which nobody may be missing, for others are compared with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retract.errors import FederationError
from retract.federation import Arrays, Broadcast, Engine, TaskSpec, Update
from retract.systems.base import Trained, task_spec
from retract.systems.personalfr.config import (
    CENSUS,
    COUNTING,
    NAME,
    PULL,
    PULLING,
    PersonalFRConfig,
    census_update,
    layers_of,
    pull_update,
)
from retract.systems.personalfr.facts import Facts, scale_places

ATTEMPTS = 10
"""How often in all a device is asked."""


def ask_all(engine: Engine, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], seed: int) -> Update:
    """The sum over all of `users`; whoever is missing is asked again. Over nobody, zeros.

    Parameters
    ----------
    broadcast
        Its round is that of the first attempt, below 0; the next ones have rounds of their own, 2 below each other.

    Raises
    ------
    FederationError
        If somebody is still missing after the last attempt.
    """
    total, missing = spec.update.zeros(), users
    for attempt in range(ATTEMPTS):
        if not len(missing):
            break
        again = replace(broadcast, round=broadcast.round - 2 * attempt)
        result = engine.run(spec, again, missing, seed=seed)
        total, missing = total + result.update, result.missing
    if len(missing):
        raise FederationError(
            f"{len(missing):,} of {len(users):,} users' devices did not answer in {ATTEMPTS} attempts, and the "
            f"{spec.task} of {spec.system} must be over all of them: nothing was changed; run it again"
        )
    return total


def require_reachable(engine: Engine) -> NDArray[np.int64]:
    """Codes of all users that can be asked, ascending.

    Raises
    ------
    FederationError
        If there are none.
    """
    if not len(engine.users):
        raise FederationError(
            f"{NAME} has to ask its devices, and none with an interaction can be reached from here: nothing was "
            "changed; run this where they are"
        )
    return engine.users


def census(engine: Engine, config: PersonalFRConfig, n_items: int, run: str, seed: int) -> Facts:
    """What all clients together hold.

    Raises
    ------
    DataError
        As `Facts.of`.
    FederationError
        As `ask_all`.
    """
    places = scale_places(config)
    spec = task_spec(config, NAME, CENSUS, run, census_update(n_items, len(places)))
    found = ask_all(engine, spec, Broadcast(COUNTING, {"places": places}), engine.users, seed)
    return Facts.of(found.tensors, places, config)


def pulls(trained: Trained, config: PersonalFRConfig, engine: Engine, users: NDArray[np.int64]) -> Arrays:
    """How these users' losses pull at the last layer of a model; the sums that `influence` reads.

    Raises
    ------
    FederationError
        As `ask_all`.
    """
    model, n_items = trained.model, trained.shared.n_items
    names = (*config.widths.shapes(layers_of(config), n_items), "mean")
    spec = task_spec(config, NAME, PULL, trained.run, pull_update(config, n_items))
    broadcast = Broadcast(PULLING, {name: model[name] for name in names})
    return ask_all(engine, spec, broadcast, users, trained.seed).tensors
