"""One cell of a comparison: one system, one forget set, one seed; all methods on the same model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retract import streams
from retract.audit.attacks import Values, auc, look
from retract.audit.audit import Auditor, Cost, sent, train_oracle
from retract.audit.case import PRIMARY, Case, Version
from retract.audit.forget_sets import ForgetSet
from retract.audit.shadows import Imitation, Shadows, imitations
from retract.data import Dataset, Interactions, Sharing
from retract.federation import Clients, LocalEngine
from retract.systems.base import Kind, Progress, Stopwatch, System, no_progress, prepared, require_finite, withdraw
from retract.systems.baselines import make_method
from retract.systems.registry import make_system

KEEPS_LOGS = {"fru"}
"""Methods that train the same model as its system does, but keep something beside it that they forget by."""
DIFFERENCES = 5
"""How many batches of a size are looked at, at most."""


@dataclass(frozen=True)
class Cell:
    """What is run.

    Parameters
    ----------
    system, settings
        Name of the system, and its settings as they were given.
    forget
        The forget set, as text.
    kind, share, seed
        The request, the part that every user shares, and the seed of split, sharing, training and forget set.
    batches
        Sizes of batches whose leakage of the difference is measured.
    """

    system: str
    settings: Mapping[str, str]
    forget: str
    kind: Kind
    share: float
    seed: int
    batches: tuple[int, ...] = ()

    def run(
        self, dataset: Dataset, methods: Sequence[str], progress: Progress = no_progress
    ) -> Iterator[dict[str, Any]]:
        """Train, withdraw and audit by every method; a row each, as it is measured."""
        system = make_system(self.system, self.settings)
        base, sharing, forget, test = self.drawn(dataset)
        plain, train_cost = train(system, sharing, self.seed, progress)
        decoys = ForgetSet.parse(self.forget).decoys(base, test, self.seed)
        case = Case(system, self.kind, forget, plain, test, self.seed, decoys=decoys)
        retained, _ = withdraw(plain.clients, self.kind, forget)
        oracle = train_oracle(case, retained, progress)
        shadows = self._shadows(case, base, retained.sharing, decoys, progress)
        auditor = Auditor(case, oracle, shadows, relearn=True)
        about = {"forget": self.forget, "seed": self.seed, "kind": self.kind, "data": dataset.name, "share": self.share}
        for name in methods:
            method, before, spent = make_method(name, system), plain, train_cost
            if name in KEEPS_LOGS:
                before, spent = train(method, sharing, self.seed, progress)
            before, preparing = prepare(method, before, self.seed, progress)
            after, cost = unlearn(method, before, self.kind, forget, self.seed, progress)
            yield {
                "system": self.system,
                "method": name,
                **about,
                "threads": torch.get_num_threads(),
                "train_seconds": round(spent.seconds, 3),
                "prepare_seconds": round(preparing, 3),
                **auditor.judge(after, cost).flat(),
                **self._differences(case, method, before),
            }

    def drawn(self, dataset: Dataset) -> tuple[Sharing, Sharing, Interactions, Interactions]:
        """Sharing as in the data, sharing as trained on, forget set and test part."""
        spec = ForgetSet.parse(self.forget)
        train, test = dataset.split(seed=self.seed)
        base = Sharing.by_ratio(train, self.share, self.seed)
        sharing = spec.planted(base, test, self.seed)
        return base, sharing, spec.drawn(sharing, base, self.kind, self.seed), test

    def _shadows(
        self, case: Case, base: Sharing, retained: Sharing, decoys: Interactions, progress: Progress
    ) -> Shadows | None:
        """What was planted is imitated by planting likewise, whatever else by like withdrawals of other users."""
        spec = ForgetSet.parse(self.forget)
        pair: tuple[Imitation, Imitation] | None
        if spec.is_planted:
            taken = case.test | case.forget | decoys
            first, lacking = _imitation(spec, base, taken, self.seed + 1)
            second, _ = _imitation(spec, base, taken | lacking, self.seed + 2)
            pair = first, second
        else:
            pair = imitations(retained, self.kind, case.forget, self.seed)
        return Shadows.trained(case.system, self.kind, pair, case.test, self.seed, progress)

    def _differences(self, case: Case, method: System, before: Version) -> dict[str, float]:
        """How well the pair of versions around a batch tells what was in it, by the batch's size in users."""
        found: dict[str, float] = {}
        asking = np.unique(case.forget.users)
        order = asking[np.argsort(streams.bits(case.seed, 0, asking, "batches"))]
        for size in (size for size in self.batches if size <= len(order)):
            changes = []
            for begin in range(0, min(len(order) // size, DIFFERENCES) * size, size):
                batch = case.forget.of_users(order[begin : begin + size])
                part = replace(case, forget=batch, before=before)
                changes.append(_change(part, method))
            members, others, users = (np.concatenate(parts) for parts in zip(*changes, strict=True))
            found[f"difference_auc_{size}"] = round(auc(members, others, users).value, 6)
        return found


def _imitation(spec: ForgetSet, base: Sharing, taken: Interactions, seed: int) -> tuple[Imitation, Interactions]:
    """A planting that avoids what is taken, and what it takes itself."""
    sharing, decoys = spec.planted(base, taken, seed), spec.decoys(base, taken, seed)
    planted = sharing.shared - base.shared
    return Imitation(sharing, planted, decoys), planted | decoys


def train(system: System, sharing: Sharing, seed: int, progress: Progress = no_progress) -> tuple[Version, Cost]:
    """A model from nothing, and what it took.

    Raises
    ------
    ConfigError
        If it diverged.
    """
    clients = Clients(sharing)
    engine, watch = LocalEngine(clients), Stopwatch()
    trained = system.train(sharing.shared, engine, seed=seed, progress=progress)
    require_finite(trained)
    return Version(trained, clients), Cost(watch.seconds, sent(engine))


def prepare(method: System, before: Version, seed: int, progress: Progress = no_progress) -> tuple[Version, float]:
    """The same model as a method needs it to forget from, on clients of its own, and the seconds that took.

    Where the method prepares nothing, that is the version itself and none.

    Raises
    ------
    ConfigError
        If it diverged.
    """
    clients = before.clients.with_sharing(before.clients.sharing)
    trained, seconds = prepared(method, before.trained, LocalEngine(clients), seed=seed, progress=progress)
    return Version(trained, clients), seconds


def unlearn(
    method: System, before: Version, kind: Kind, forget: Interactions, seed: int, progress: Progress = no_progress
) -> tuple[Version, Cost]:
    """The model after a withdrawal, and what it took.

    Raises
    ------
    ConfigError
        If it diverged.
    """
    clients, withdrawal = withdraw(before.clients, kind, forget)
    engine, watch = LocalEngine(clients), Stopwatch()
    trained = method.unlearn(before.trained, withdrawal, engine, seed=seed, progress=progress)
    require_finite(trained)
    return Version(trained, clients), Cost(watch.seconds, sent(engine))


def _change(case: Case, method: System) -> tuple[Values, Values, NDArray[np.int64]]:
    """How far the scores of a batch and of its matched pairs move when it alone is withdrawn, and the users."""
    after, _ = unlearn(method, case.before, case.kind, case.forget, case.seed)
    before, now = (
        look({PRIMARY: version.primary(case.system, case.kind)}, case.targets).scores[:, 0]
        for version in (case.before, after)
    )
    members, others = np.abs(before - now)
    return members, others, case.targets.users
