"""Learning, whoever asks for it: what a system is shown of a data set, and the model that it makes of that."""

from __future__ import annotations

from dataclasses import dataclass

from retract.data import Dataset, Interactions, Sharing, sharing_of
from retract.errors import DataError
from retract.federation import Traffic
from retract.stores.devices import MemoryDevices
from retract.stores.held import Held
from retract.stores.local import begun, engine_of
from retract.systems.base import Checkpoint, Keep, Progress, Stopwatch, Trained, keep_nothing, no_progress
from retract.systems.checks import prepared, require_finite
from retract.systems.system import System

USUAL_TEST = 0.2
"""The part of every user's interactions to hold out, where one is wanted and nobody says how large."""


@dataclass(frozen=True)
class Choice:
    """What of a data set is shared and what is held out, as far as somebody says so.

    Parameters
    ----------
    share
        The part of their interactions that users share, in [0, 1]. Unless given, a column `shared` of the data says it
        one by one; without either it is what the system usually takes (`SystemType.share`).
    test
        The part of every user's interactions that no model learns from, in [0, 1); nothing unless given. Where a column
        `fold` of the data names a part, it is that one.
    clients
        How many clients hold the users' data, dealt at random; every user is one unless given.
    """

    share: float | None = None
    test: float | None = None
    clients: int | None = None


@dataclass(frozen=True)
class Parts:
    """A data set in its parts: what is learnt from, and who may see it; and what is held out.

    Parameters
    ----------
    sharing
        What is learnt from.
    test
        What is held out.
    share
        The part that users share, where that is what was gone by; None where a column said it one by one.
    """

    sharing: Sharing
    test: Interactions
    share: float | None

    @classmethod
    def of(cls, dataset: Dataset, usual: float | None, choice: Choice, seed: int) -> Parts:
        """The parts that somebody chose, or else those that a system usually takes.

        Parameters
        ----------
        usual
            `SystemType.share`.

        Raises
        ------
        DataError
            If fewer than two users have something to learn from.
        ConfigError
            If `test` lies outside [0, 1), or `clients` outside [1, users].
        SharingError
            If `share` lies outside [0, 1], or has to be said and is not.
        """
        if dataset.is_test is None and not choice.test:
            train, test = dataset.interactions, Interactions.empty(dataset.interactions.catalog)
        else:
            train, test = dataset.split(seed=seed, test=choice.test or USUAL_TEST)
        sharing = sharing_of(train, choice.share, dataset.shared, usual, seed)
        if (able := len(train.active_users())) < 2:
            raise DataError(f"{dataset.name}: users with something to train on: {able}; at least 2 are needed")
        by_column = choice.share is None and dataset.shared is not None
        share = None if by_column else usual if choice.share is None else choice.share
        return cls(sharing if choice.clients is None else sharing.held_by(choice.clients, seed), test, share)


@dataclass(frozen=True)
class Learnt:
    """A model, ready to forget, and what it took: traffic, seconds of training, and seconds of preparing to forget."""

    trained: Trained
    traffic: Traffic
    seconds: float
    prepare_seconds: float

    def held(self, devices: MemoryDevices, parts: Parts) -> Held:
        """Both halves; the devices then keep nothing of other runs."""
        devices.forget_runs(but=self.trained.run)
        return Held(self.trained, devices, parts.test, parts.share)


def learn(
    system: System,
    devices: MemoryDevices,
    *,
    seed: int,
    resume_from: Checkpoint | None = None,
    keep: Keep = keep_nothing,
    progress: Progress = no_progress,
) -> Learnt:
    """Train on what these devices hold, and prepare to forget; where there is nothing to learn from, see `begun`.

    Raises
    ------
    ConfigError
        If training, or preparing, diverged, or the system has one user per client and there are fewer.
    """
    engine, watch = engine_of(system, devices), Stopwatch()
    shared = devices.sharing.shared
    trained = begun(system, shared, devices, engine, seed=seed, resume_from=resume_from, keep=keep, progress=progress)
    seconds = watch.seconds
    require_finite(trained)
    preparing = 0.0
    if trained.model:
        trained, preparing = prepared(system.server, trained, engine, seed=seed, progress=progress)
    return Learnt(trained, engine.traffic, seconds, preparing)
