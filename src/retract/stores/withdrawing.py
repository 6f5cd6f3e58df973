"""One withdrawal: from both halves of a model to both halves after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.stores.devices import MemoryDevices
from retract.stores.held import Held
from retract.stores.ledger import Kind
from retract.stores.local import emptied, engine_of, nothing_to_learn, withdraw
from retract.stores.reach import Reach, learns_everything
from retract.systems.abilities import Staged
from retract.systems.base import Progress, Stopwatch, Withdrawal, no_progress


@dataclass(frozen=True)
class Manner:
    """How a withdrawal is applied.

    Parameters
    ----------
    seed
        Key of what unlearning draws.
    progress
        Called as (stage, done, total).
    reach
        Reaches devices that are on other machines; unless given, they are the model's own.
    at_once
        Leave out what takes long to make anew, where the system can: see `retract.systems.abilities.Staged`.
    """

    seed: int = 0
    progress: Progress = no_progress
    reach: Reach | None = None
    at_once: bool = False


USUAL = Manner()


@dataclass(frozen=True)
class Step:
    """One withdrawal as it was applied, while both models are still at hand.

    Seconds, bytes both ways, rounds, and how often a device was asked.
    """

    kind: Kind
    forget: Interactions
    withdrawal: str
    before: Held
    after: Held
    seconds: float
    bytes_sent: int
    rounds: int
    updates: int = 0


def withdrawn(
    held: Held, kind: Kind, named: Interactions, asking: NDArray[np.int64], how: Manner
) -> tuple[Held, Step | None, str]:
    """Both halves after one withdrawal, what was done (nothing where no model knew of it), and its id.

    Parameters
    ----------
    named
        What is withdrawn, as far as it can be known of here.
    asking
        Codes of the users who ask, shape [n].
    """
    learnt = held.interactions & named  # the rest was held out for testing: no model knows it
    after, withdrawal = _parted(held, kind, learnt)
    engine, watch, reach = engine_of(held.system, after), Stopwatch(), how.reach
    trained, test = held.trained, held.test
    changes = bool(len(learnt))
    if reach is not None:
        withdrawal, engine = replace(withdrawal, users=asking), reach.engine
        changes = changes or bool(len(asking) and kind == "erase" and learns_everything(held))
    knew = bool(changes and trained.model)
    left = reach is None or bool(len(engine.users)) or not learns_everything(held)
    if changes and (not left or nothing_to_learn(held.system, trained.shared - learnt, after)):
        trained = emptied(trained, withdrawal)
    elif changes:
        server = held.system.server
        soon = server.at_once(trained, withdrawal) if how.at_once and isinstance(server, Staged) else None
        trained = soon or server.unlearn(trained, withdrawal, engine, seed=how.seed, progress=how.progress)
    seconds = watch.seconds
    if kind == "erase":
        test = test - named
    if after is not None:
        after.forget_runs(but=trained.run)
    done = replace(held, trained=trained, devices=after, test=test)
    if not knew:
        return done, None, withdrawal.request_id
    passed = engine.traffic
    sent = passed.up + passed.down
    step = Step(kind, learnt, withdrawal.request_id, held, done, seconds, sent, passed.rounds, passed.updates)
    return done, step, withdrawal.request_id


def _parted(held: Held, kind: Kind, learnt: Interactions) -> tuple[MemoryDevices | None, Withdrawal]:
    """The devices after a withdrawal, and what the server is told of it."""
    if held.devices is None:
        return None, Withdrawal(kind, held.trained.shared & learnt, np.unique(learnt.users), str(uuid4()))
    return withdraw(held.devices, kind, learnt)
