"""The demo's story in numbers: sharing, training, withdrawal, forgetting, and what each of them cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.auditing.attacks import auc, look
from retract.auditing.case import Case, Version
from retract.auditing.demo.observe import ObservedEngine, Snapshot, checkpoints, training_curve
from retract.auditing.demo.people import agreement, choose_people, choose_withdrawers, introduce
from retract.auditing.verdict import Evidence, difference, judged
from retract.data import Dataset, Interactions, Sharing
from retract.evaluation.ranking import PerUser, evaluate, percentile_ranks
from retract.federation import LocalEngine, Traffic
from retract.models.recommender import Recommender
from retract.report.facts import About, Accuracy, Costs, CurvePoint, Group, Level, Spent, Story, Trace, Trio
from retract.stores.devices import MemoryDevices
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.base import Progress, Stopwatch, Trained, no_progress
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.registry import make_method
from retract.systems.system import System

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
STORY_RATIO = 0.5
"""What everyone shares before some withdraw."""
WITHDRAWING = 0.1
"""The part of the users who withdraw."""
K = 20


@dataclass(frozen=True)
class Model:
    """A trained model, the devices it is read with, and what making it took."""

    system: System
    trained: Trained
    devices: MemoryDevices
    traffic: Traffic
    seconds: float

    @property
    def spent(self) -> Spent:
        """Seconds and bytes."""
        return Spent(self.seconds, self.traffic.up, self.traffic.down)

    @property
    def reader(self) -> Recommender:
        """What the devices recommend by."""
        return reader_of(self.system, self.trained, self.devices)


def tell(
    dataset: Dataset,
    *,
    seed: int = 0,
    config: FedShareConfig | None = None,
    progress: Progress = no_progress,
) -> Story:
    """Live the story once and measure it.

    Parameters
    ----------
    dataset
        Everyone's interactions.
    seed
        Key of the split, the sharing, the training, and the choice of withdrawers and of the people shown.
    config
        Settings of FedShare; the defaults unless given.
    """
    config = config or FedShareConfig()
    system = FEDSHARE(config)
    train, test = dataset.split(seed)
    levels: list[Level] = []
    before: Model | None = None
    for ratio in RATIOS:
        model, snapshots = _train(system, config, Sharing.by_ratio(train, ratio, seed), len(train), seed, progress)
        curve = training_curve(system, model.trained, snapshots, train, test, K)
        found = _accuracy(_measure(model, train, test))
        levels.append(
            Level(ratio, found, (*curve, CurvePoint(config.first_epoch + config.rounds, found.ndcg)), model.seconds)
        )
        before = model if ratio == STORY_RATIO else before
    assert before is not None
    return _withdrawal(_about(dataset, test, seed, config), tuple(levels), before, train, test, progress)


def _about(dataset: Dataset, test: Interactions, seed: int, config: FedShareConfig) -> About:
    return About(
        data=dataset.name,
        notes=dataset.notes,
        own_split=dataset.is_test is not None,
        users=test.n_users,
        items=test.n_items,
        interactions=len(dataset.interactions),
        tested=len(test.active_users()),
        seed=seed,
        config=config,
    )


def _train(
    system: System, config: FedShareConfig, sharing: Sharing, held: int, seed: int, progress: Progress
) -> tuple[Model, list[Snapshot]]:
    """A model from scratch, and what there was along the way."""
    devices = MemoryDevices(sharing)
    inner = LocalEngine(devices, system.device.tasks)
    engine, stage = ObservedEngine(inner, devices, checkpoints(config)), len(sharing.shared) / max(held, 1)
    watch = Stopwatch()
    trained = system.server.train(
        sharing.shared, engine, seed=seed, progress=_staged(progress, f"training, {stage:.0%} shared")
    )
    return Model(system, trained, devices, engine.traffic, watch.seconds), engine.snapshots


def _withdrawal(
    about: About,
    levels: tuple[Level, ...],
    before: Model,
    train: Interactions,
    test: Interactions,
    progress: Progress,
) -> Story:
    """Some users unshare all they shared; the model unlearns it, and the oracle never knew it."""
    seed = about.seed
    leavers = choose_withdrawers(before.trained.shared, WITHDRAWING, seed)
    forget = before.trained.shared.of_users(leavers)
    after = _forget(before.system, before, forget, seed, _staged(progress, "unlearning"))
    retraining = make_method("retrain", before.system)
    oracle = _forget(retraining, before, forget, seed, _staged(progress, "retraining the oracle"))
    models = Trio(before, after, oracle)
    readers: Trio[Recommender] = models.map(lambda model: model.reader)
    progress("measuring", 0, 2)
    groups = _groups(models.map(lambda model: _measure(model, train, test)), test, leavers)
    progress("measuring", 1, 2)
    views = models.map(lambda model: model.system.server.recommender(model.trained))
    shared = models.map(lambda model: model.trained.shared)
    server = Trio(*(_ranks(view, held, forget) for view, held in zip(views, shared, strict=True)))
    device = readers.map(lambda reader: _ranks(reader, train, forget))
    shown = choose_people(leavers, train, test, seed)
    people = tuple(introduce(user, train, test, forget, readers) for user in shown.tolist())
    progress("measuring", 2, 2)
    return Story(
        about=about,
        levels=levels,
        ratio=STORY_RATIO,
        withdrawers=len(leavers),
        withdrawn=len(forget),
        people=people,
        agreement=agreement(readers, leavers, train),
        device=Trace(device),
        server=Trace(server),
        groups=groups,
        costs=Costs(after.spent, oracle.spent, before.trained.memory.nbytes, before.spent.bytes_up),
        verdict=_verdict(models, forget, test),
    )


def _verdict(models: Trio[Model], forget: Interactions, test: Interactions) -> tuple[str, str]:
    """What the plain score says of the model after, beside the oracle: the word, and why.

    Of all that the server holds or publishes, the view counts in which the model before stands out most.
    """
    versions = models.map(lambda model: Version(model.trained, model.devices))
    system, first = models.before.system, versions.before
    targets = Case(system, "unshare", forget, first, test, first.trained.seed).targets
    found = [
        dict(zip(seen.names, np.moveaxis(seen.scores, 1, 0), strict=True))
        for seen in versions.map(lambda version: look(version.views(system, "unshare"), targets))
    ]
    shared = [name for name in found[0] if all(name in one for one in found)]
    gaps = {name: difference(found[0][name], found[2][name], targets.users) for name in shared}
    view = max(shared, key=lambda name: abs(gaps[name].value))
    scores = Trio(*(one[view] for one in found))
    aucs = scores.map(lambda one: auc(one[0], one[1], targets.users))
    gap, users = difference(scores.after, scores.oracle, targets.users), len(np.unique(targets.users))
    said = judged(Evidence(aucs.before, aucs.after, aucs.oracle, gap, gaps[view], users))
    return said.word, said.text


def _forget(system: System, before: Model, forget: Interactions, seed: int, progress: Progress) -> Model:
    """The model after a system honoured the request, on devices of its own."""
    devices, withdrawal = withdraw(before.devices, "unshare", forget)
    engine = engine_of(system, devices)
    watch = Stopwatch()
    trained = system.server.unlearn(before.trained, withdrawal, engine, seed=seed, progress=progress)
    return Model(before.system, trained, devices, engine.traffic, watch.seconds)


def _measure(model: Model, train: Interactions, test: Interactions) -> PerUser:
    return evaluate(model.reader, train, test, K)


def _accuracy(found: PerUser, users: NDArray[np.int64] | None = None) -> Accuracy:
    means = found.mean(users)
    return Accuracy(means[f"recall@{found.k}"], means[f"ndcg@{found.k}"])


def _groups(found: Trio[PerUser], test: Interactions, leavers: NDArray[np.int64]) -> tuple[Group, ...]:
    tested = test.active_users()
    parts = {
        "All users": tested,
        "Those who withdrew": np.intersect1d(tested, leavers),
        "Everyone else": np.setdiff1d(tested, leavers),
    }
    return tuple(
        Group(name, len(users), Trio(*(_accuracy(one, users) for one in found))) for name, users in parts.items()
    )


def _ranks(model: Recommender, history: Interactions, forget: Interactions) -> tuple[float, ...]:
    return tuple(percentile_ranks(model, history, forget).tolist())


def _staged(progress: Progress, stage: str) -> Callable[[str, int, int], None]:
    """A progress that names the stage of the story instead of the system's own."""
    return lambda _, done, total: progress(stage, done, total)
