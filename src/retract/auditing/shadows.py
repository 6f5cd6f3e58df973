"""Shadow models: trained as the oracle is, but for withdrawals of which the attacker knows everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.auditing.attacks import LearnedAttack, Seen, Values, look, shadow_pairs
from retract.auditing.case import Version
from retract.auditing.targets import Targets, choose_targets
from retract.data import Interactions, Sharing
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of
from retract.systems.base import Kind, Progress, no_progress
from retract.systems.system import System

FEWEST = 50
"""Users whose withdrawals a shadow model knows, where so many can be had."""


@dataclass(frozen=True)
class Imitation:
    """What a shadow model is trained on.

    Parameters
    ----------
    sharing
        All of it.
    withdrawn
        The part that the other shadow model lacks.
    decoys
        What to tell that part from; see `Case`.
    """

    sharing: Sharing
    withdrawn: Interactions
    decoys: Interactions | None = None


class Shadows:
    """Two shadow models and the attack learnt on them.

    Parameters
    ----------
    system
        How to train.
    kind
        The request that is audited.
    pair
        What each of the two is trained on.
    targets
        What the attack has to tell apart in each.
    seed
        The seed of the model under attack: theirs are others.
    read_devices
        Whether the model under attack is read with its devices; theirs are then read so too.

    Attributes
    ----------
    examples
        Of which an attack can learn: features of members and others in a shadow model that knew the members, and of the
        same pairs in the one that knew neither; each of shape [2, n_features, n].
    """

    def __init__(
        self,
        system: System,
        kind: Kind,
        pair: tuple[Imitation, Imitation],
        targets: tuple[Targets, Targets],
        seed: int,
        progress: Progress = no_progress,
        *,
        read_devices: bool = True,
    ) -> None:
        self.system, self.kind = system, kind
        trained = (
            _train(system, imitation.sharing, seed + 1_000_003 * (number + 1), progress)
            for number, imitation in enumerate(pair)
        )
        self.versions = [one if read_devices else Version(one.trained, None) for one in trained]
        self.examples = shadow_pairs(
            {(model, number): self._look(model, own) for number, own in enumerate(targets) for model in range(2)}
        )
        self._attack = LearnedAttack(self.examples)
        self._reference: tuple[Targets, Values] | None = None

    @classmethod
    def trained(
        cls,
        system: System,
        kind: Kind,
        pair: tuple[Imitation, Imitation] | None,
        test: Interactions,
        seed: int,
        progress: Progress = no_progress,
        *,
        read_devices: bool = True,
    ) -> Shadows | None:
        """The shadow models, or None where too little is left to train them on or to learn an attack from.

        Parameters
        ----------
        test
            Held-out interactions: nothing of it is a non-member.
        """
        if pair is None or any(len(one.sharing.everything.active_users()) < 2 for one in pair):
            return None
        first, second = (
            choose_targets(one.withdrawn, one.sharing.everything, test, seed + number, one.decoys)
            for number, one in enumerate(pair)
        )
        if not (len(first.users) and len(second.users)):
            return None
        return cls(system, kind, pair, (first, second), seed, progress, read_devices=read_devices)

    def scores(self, seen: Seen, targets: Targets) -> Values:
        """The learned attack's scores of members and others, shape [2, n]."""
        return self._attack.scores(seen.features, self.reference(targets))

    def reference(self, targets: Targets) -> Values:
        """The mean features of the targets in models that know none of them; shape as `Seen.features`.

        Those of the targets last asked for are kept, for the models of an audit are all attacked on the same ones.
        """
        if self._reference is None or self._reference[0] is not targets:
            both: Values = np.mean([self._look(model, targets).features for model in (0, 1)], axis=0)
            self._reference = (targets, both)
        return self._reference[1]

    def _look(self, model: int, targets: Targets) -> Seen:
        return look(self.versions[model].views(self.system, self.kind), targets)


def imitations(retained: Sharing, kind: Kind, forget: Interactions, seed: int) -> tuple[Imitation, Imitation] | None:
    """Two withdrawals like the audited one, by other users drawn at random: each model knows one and lacks the other.

    Whoever withdrew a part of what was shared is imitated by somebody who withdraws the same part, one interaction at
    least; a withdrawal of few users by more of them, or the attack would learn from a handful of pairs. None where too
    little is left for that.
    """
    everyone = retained.shared.active_users()
    others = np.setdiff1d(everyone, forget.users)
    asking = np.unique(forget.users)
    wanted = max(len(asking), FEWEST)
    pool = others if len(others) >= 2 * wanted else everyone
    drawn = pool[np.argsort(streams.bits(seed, 0, pool, "imitation"))]
    half = min(wanted, len(drawn) // 2)
    before = (retained.shared | forget).user_degrees()
    parts = (forget.user_degrees() / np.maximum(before, 1))[asking[np.argsort(streams.bits(seed, 1, asking, "order"))]]
    chosen = [_part_of(retained.shared, drawn[k * half : (k + 1) * half], np.resize(parts, half), seed) for k in (0, 1)]
    if not all(map(len, chosen)):
        return None
    without = retained.unshare if kind == "unshare" else retained.erase
    first, second = chosen
    return Imitation(without(second), first), Imitation(without(first), second)


def _part_of(shared: Interactions, users: NDArray[np.int64], parts: NDArray[np.float64], seed: int) -> Interactions:
    """A keyed random part of what each user shares, one interaction at least."""
    part = np.zeros(shared.n_users)
    part[users] = np.clip(parts, 1 / np.maximum(shared.user_degrees()[users], 1), 1)
    return Sharing.by_ratio(shared, part, seed).shared


def _train(system: System, sharing: Sharing, seed: int, progress: Progress) -> Version:
    devices = MemoryDevices(sharing)
    trained = system.server.train(sharing.shared, engine_of(system, devices), seed=seed, progress=progress)
    return Version(trained, devices)
