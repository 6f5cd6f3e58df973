"""What is audited: who withdrew what, from which model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retract.auditing.targets import Targets, choose_targets
from retract.data import Interactions, Sharing
from retract.errors import ConfigError
from retract.models.recommender import HistoryReader, Recommender
from retract.stores.devices import MemoryDevices
from retract.stores.local import reader_of
from retract.systems.base import Kind, Trained
from retract.systems.system import System

PRIMARY = "recommendations"
"""The view that users see."""


@dataclass(frozen=True)
class Version:
    """A model as it stood, with its devices as they were; None where they are elsewhere."""

    trained: Trained
    devices: MemoryDevices | None

    @property
    def sharing(self) -> Sharing:
        """Who holds what, as far as it is known here: without devices, what the server holds."""
        if self.devices is not None:
            return self.devices.sharing
        return Sharing(self.trained.shared, Interactions.empty(self.trained.shared.catalog))

    @property
    def held(self) -> Interactions:
        """All that users hold, likewise."""
        return self.sharing.everything

    def views(self, system: System, kind: Kind) -> dict[str, Recommender]:
        """What the request puts at stake: after "unshare" what the server holds, after "erase" everything."""
        if not self.trained.model:
            return {PRIMARY: self.primary(system, kind)}
        found = {PRIMARY: self.primary(system, kind), **system.server.views(self.trained)}
        if kind == "erase" and self.devices is not None:
            found |= system.device.views(self.trained.published, self.devices.kept(self.trained.run))
        return found

    def primary(self, system: System, kind: Kind) -> Recommender:
        """The recommender, read without what devices keep where they rightly keep it; equal scores if none is left."""
        if not self.trained.model:
            return HistoryReader(np.zeros((self.trained.shared.n_items, 1), dtype=np.float32))
        return reader_of(system, self.trained, self.devices, state=kind == "erase")


@dataclass(frozen=True)
class Case:
    """One withdrawal from one model.

    Parameters
    ----------
    system
        How the model is trained and read; with the settings of the model, also those that it found by itself.
    kind
        "unshare" or "erase".
    forget
        What was withdrawn, private interactions included; not empty.
    before
        The model before, and its devices.
    test
        Held-out interactions to evaluate on.
    seed
        Key of the matched non-members.
    held_out
        All that was held out from training: nothing of it is a non-member. `test` unless given.
    decoys
        Non-members instead of those of like popularity, as many for each user as are forgotten; see
        `ForgetSet.decoys`.

    Raises
    ------
    ConfigError
        If nothing is forgotten.
    """

    system: System
    kind: Kind
    forget: Interactions
    before: Version
    test: Interactions
    seed: int
    held_out: Interactions | None = None
    decoys: Interactions | None = None

    def __post_init__(self) -> None:
        if not len(self.forget):
            raise ConfigError("the forget set is empty: there is nothing to audit")
        found = self.before.trained.config
        if found != self.system.config and isinstance(found, type(self.system.config)):
            # What the model found by itself, its oracle is told.
            object.__setattr__(self, "system", System(self.system.type, found))

    def views(self, version: Version) -> dict[str, Recommender]:
        """What is at stake of a version; of a model that knows nothing, the views of the one before, all blank."""
        found = version.views(self.system, self.kind)
        if version.trained.model or version is self.before:
            return found
        return dict.fromkeys(self.views(self.before), found[PRIMARY])

    @cached_property
    def targets(self) -> Targets:
        """What the attacks have to tell apart."""
        held_out = self.test if self.held_out is None else self.held_out
        return choose_targets(self.forget, self.before.held, held_out, self.seed, self.decoys)
