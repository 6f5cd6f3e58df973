"""One cell of a comparison: one system, one forget set, one seed; all methods on the same model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.auditing.attacks import Values, auc, look
from retract.auditing.audit import Auditor, Cost, train_oracle
from retract.auditing.case import PRIMARY, Case, Version
from retract.auditing.forget_sets import ForgetSet
from retract.auditing.shadows import Imitation, Shadows, imitations
from retract.auditing.timing import Timing, steady
from retract.data import Dataset, Interactions, Sharing, sharing_of
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, withdraw
from retract.systems.base import Kind, Progress, Stopwatch, no_progress
from retract.systems.checks import prepared, require_finite
from retract.systems.likes import suited_to
from retract.systems.registry import make_method, make_system, method_type, system_type
from retract.systems.system import System
from retract.threads import threads

USUAL_SHARE = 0.5
"""The part that every user shares, where neither the plan nor the data says it."""
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
        The request; the part that every user shares, where it is given (see `Plan`); and the seed of split, sharing,
        training and forget set.
    batches
        Sizes of batches whose leakage of the difference is measured.
    attacks
        Further attacks by name; see `Auditor`.
    """

    system: str
    settings: Mapping[str, str]
    forget: str
    kind: Kind
    share: float | None
    seed: int
    batches: tuple[int, ...] = ()
    attacks: tuple[str, ...] = ()

    def run(
        self, dataset: Dataset, methods: Sequence[str], progress: Progress = no_progress
    ) -> Iterator[dict[str, Any]]:
        """Train, withdraw and audit by every method; a row each, as it is measured."""
        system = make_system(self.system, self.settings)
        base, sharing, forget, test = self.drawn(dataset)
        plain, train_cost = train(system, sharing, self.seed, progress)
        decoys = ForgetSet.parse(self.forget).decoys(base, test, self.seed)
        case = Case(system, self.kind, forget, plain, test, self.seed, decoys=decoys)
        auditor = self._auditor(case, base, sharing, decoys, progress)
        about = {"forget": self.forget, "seed": self.seed, "kind": self.kind, "data": dataset.name}
        about["share"] = share_of(self.share, dataset)
        for name in methods:
            method, before, spent = make_method(name, case.system), plain, train_cost
            if method_type(name).trains:
                before, spent = train(method, sharing, self.seed, progress)
            before, preparing = prepare(method, before, self.seed, progress)
            after, cost, timing = self._unlearned(method, before, forget, progress)
            yield {
                "system": self.system,
                "method": name,
                **about,
                "threads": threads(),
                "train_seconds": round(spent.seconds, 3),
                "prepare_seconds": round(preparing, 3),
                **auditor.judge(after, cost).flat(),
                "seconds_error": timing.relative_error,
                "timings": timing.runs,
                **self._differences(case, method, before),
            }

    def drawn(self, dataset: Dataset) -> tuple[Sharing, Sharing, Interactions, Interactions]:
        """Sharing as in the data, sharing as trained on, forget set and test part."""
        spec = ForgetSet.parse(self.forget)
        train, test = suited_to(system_type(self.system), dataset).split(seed=self.seed)
        base = sharing_of(train, self.share, dataset.shared, USUAL_SHARE, self.seed)
        sharing = spec.planted(base, test, self.seed)
        return base, sharing, spec.drawn(sharing, base, self.kind, self.seed), test

    def _unlearned(
        self, method: System, before: Version, forget: Interactions, progress: Progress
    ) -> tuple[Version, Cost, Timing]:
        """The model after a withdrawal, what it took, and how sure the time is: short ones are measured again."""
        after, cost = unlearn(method, before, self.kind, forget, self.seed, progress)
        timing = steady(
            cost.seconds, lambda: unlearn(method, before, self.kind, forget, self.seed, progress)[1].seconds
        )
        return after, replace(cost, seconds=timing.seconds), timing

    def _auditor(
        self, case: Case, base: Sharing, sharing: Sharing, decoys: Interactions, progress: Progress
    ) -> Auditor:
        """Oracle and shadow models, trained once for all methods."""
        retained = sharing.unshare(case.forget) if self.kind == "unshare" else sharing.erase(case.forget)
        oracle, cost = train_oracle(case, retained, progress)
        timing = steady(cost.seconds, lambda: train_oracle(case, retained, progress)[1].seconds)
        shadows = self._shadows(case, base, retained, decoys, progress)
        spent = replace(cost, seconds=timing.seconds)
        return Auditor(case, (oracle, spent), shadows, relearn=True, attacks=self.attacks)

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


def share_of(share: float | None, dataset: Dataset) -> float | None:
    """The part that every user shares; None where the data says it one by one."""
    if share is None:
        return USUAL_SHARE if dataset.shared is None else None
    return share


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
    devices = MemoryDevices(sharing)
    engine, watch = engine_of(system, devices), Stopwatch()
    trained = system.server.train(sharing.shared, engine, seed=seed, progress=progress)
    require_finite(trained)
    return Version(trained, devices), Cost.of(engine, watch.seconds)


def prepare(method: System, before: Version, seed: int, progress: Progress = no_progress) -> tuple[Version, float]:
    """The same model as a method needs it to forget from, on devices of its own, and the seconds that took.

    Where the method prepares nothing, that is the version itself and none.

    Raises
    ------
    ConfigError
        If it diverged.
    """
    devices = None if before.devices is None else before.devices.copy()
    engine = engine_of(method, devices)
    trained, seconds = prepared(method.server, before.trained, engine, seed=seed, progress=progress)
    return Version(trained, devices), seconds


def unlearn(
    method: System, before: Version, kind: Kind, forget: Interactions, seed: int, progress: Progress = no_progress
) -> tuple[Version, Cost]:
    """The model after a withdrawal from a version with its devices, and what it took.

    Raises
    ------
    ConfigError
        If it diverged.
    """
    assert before.devices is not None
    devices, withdrawal = withdraw(before.devices, kind, forget)
    engine, watch = engine_of(method, devices), Stopwatch()
    trained = method.server.unlearn(before.trained, withdrawal, engine, seed=seed, progress=progress)
    require_finite(trained)
    return Version(trained, devices), Cost.of(engine, watch.seconds)


def _change(case: Case, method: System) -> tuple[Values, Values, NDArray[np.int64]]:
    """How far the scores of a batch and of its matched pairs move when it alone is withdrawn, and the users."""
    after, _ = unlearn(method, case.before, case.kind, case.forget, case.seed)
    before, now = (
        look({PRIMARY: version.primary(case.system, case.kind)}, case.targets).scores[:, 0]
        for version in (case.before, after)
    )
    members, others = np.abs(before - now)
    return members, others, case.targets.users
