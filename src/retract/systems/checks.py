"""What a training is refused for, before it starts and after it ends."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from retract.data import Interactions
from retract.errors import ConfigError, DataError, missing_extra
from retract.federation import Arrays, Engine, one_user_each
from retract.systems.abilities import Preparing
from retract.systems.base import Checkpoint, Progress, ServerSide, Stopwatch, SystemConfig, Trained, no_progress


def require_one_user_each(system: str, engine: Engine) -> None:
    """Refuse clients with many users, for a system that gives every user a client, or none.

    Raises
    ------
    ConfigError
        If a client has more than one.
    """
    if not one_user_each(engine):
        raise ConfigError(f"{system} has one user per client: leave --clients out")


def require_shared(system: str, shared: Interactions, engine: Engine) -> None:
    """Refuse to train a central system on nothing.

    Raises
    ------
    DataError
        If nothing is shared.
    ConfigError
        If a client has more than one user, for a central system takes no notice of clients.
    """
    require_one_user_each(system, engine)
    if not len(shared):
        raise DataError(f"{system} is centralised and nothing is shared: share more (--share 1)")


def require_several(system: str, engine: Engine) -> None:
    """Refuse to train a federated system on one user.

    Raises
    ------
    DataError
        If fewer than two users hold an interaction.
    """
    if len(engine.users) < 2:
        raise DataError(f"{system} learns from several users: the data has fewer than two with an interaction")


def require_finite(trained: Trained) -> None:
    """Refuse a model that diverged.

    Raises
    ------
    ConfigError
        If a table of it holds a value that is not finite.
    """
    _refuse_divergence(trained.system, "model", trained.model)


def require_own_checkpoint(checkpoint: Checkpoint, system: str, config: SystemConfig, seed: int) -> None:
    """Refuse to go on with another training than the one that was interrupted.

    Raises
    ------
    ConfigError
        If system, settings or seed differ; the message names what.
    """
    settings = config.model_dump(mode="json")
    own = {**checkpoint.settings, "seed": checkpoint.seed, "system": checkpoint.system}
    mine = {**settings, "seed": seed, "system": system}
    differing = sorted(name for name in own.keys() | mine.keys() if own.get(name) != mine.get(name))
    if differing:
        told = ", ".join(f"{name} was {own.get(name)!r} and is {mine.get(name)!r}" for name in differing)
        raise ConfigError(f"the interrupted training was another one ({told}): resume with the same, or begin anew")


def require_same_form(of_model: str, of_half: str) -> None:
    """Refuse a model in another form than the half that is asked to work on it.

    Raises
    ------
    ConfigError
        If the two differ.
    """
    if of_model != of_half:
        raise ConfigError(f"this model is of form {of_model}, and form is set to {of_half}: use one of them")


def prepared(
    server: ServerSide, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress
) -> tuple[Trained, float]:
    """A model ready for its system's own unlearning, and the seconds that took: none where nothing is prepared.

    Raises
    ------
    ConfigError
        If what was prepared diverged.
    """
    if not isinstance(server, Preparing):
        return trained, 0.0
    watch = Stopwatch()
    ready = server.prepare(trained, engine, seed=seed, progress=progress)
    seconds = watch.seconds
    _refuse_divergence(trained.system, "memory", ready.memory.tables)
    return ready, seconds


def _refuse_divergence(system: str, what: str, tables: Arrays) -> None:
    broken = [name for name, table in tables.items() if not np.isfinite(table).all()]
    if broken:
        raise ConfigError(
            f"{system} diverged: {', '.join(broken)} of its {what} holds values that are not finite; "
            "nothing was saved: lower its rates"
        )


def require_extra(what: str, extra: str, package: str) -> None:
    """Refuse to begin where a package is missing that an extra of retract brings.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    if find_spec(package) is None:
        raise missing_extra(what, extra, package)
