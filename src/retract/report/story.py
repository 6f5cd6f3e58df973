"""The demo's story in numbers: sharing, training, withdrawal, forgetting, and what each of them cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract.data import Dataset, Interactions, Sharing
from retract.evaluation.ranking import PerUser, evaluate, percentile_ranks
from retract.federation import Clients, LocalEngine
from retract.models.recommender import Recommender
from retract.report.facts import About, Accuracy, Costs, CurvePoint, Group, Level, Spent, Story, Trace, Trio
from retract.report.observe import ObservedEngine, ServerView, checkpoints, training_curve
from retract.report.people import agreement, choose_people, choose_withdrawers, introduce
from retract.systems.base import Progress, Stopwatch, System, Trained, no_progress, withdraw
from retract.systems.baselines import Retrain
from retract.systems.fedshare import FedShare, FedShareConfig

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
STORY_RATIO = 0.5
"""What everyone shares before some withdraw."""
WITHDRAWING = 0.1
"""The part of the users who withdraw."""
K = 20


@dataclass(frozen=True)
class Model:
    """A trained model, the clients it is read with, and what making it took."""

    trained: Trained
    clients: Clients
    engine: LocalEngine
    seconds: float

    @property
    def spent(self) -> Spent:
        """Seconds and bytes."""
        traffic = self.engine.traffic
        return Spent(self.seconds, int(traffic.up.sum()), int(traffic.down.sum()))


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
    system = FedShare(config)
    train, test = dataset.split(seed)
    levels: list[Level] = []
    before: Model | None = None
    for ratio in RATIOS:
        model, curve = _train(system, Sharing.by_ratio(train, ratio, seed), train, test, seed, progress)
        found = _accuracy(_measure(system, model, train, test))
        levels.append(Level(ratio, found, (*curve, CurvePoint(system.config.rounds, found.ndcg)), model.seconds))
        before = model if ratio == STORY_RATIO else before
    assert before is not None
    about = _about(dataset, test, seed, system.config)
    return _withdrawal(about, tuple(levels), system, before, train, test, progress)


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
    system: FedShare, sharing: Sharing, train: Interactions, test: Interactions, seed: int, progress: Progress
) -> tuple[Model, tuple[CurvePoint, ...]]:
    """A model from scratch, and its accuracy along the way; the measuring is not timed."""
    ratio = len(sharing.shared) / max(len(train), 1)
    engine = ObservedEngine(Clients(sharing), checkpoints(system.config.rounds))
    watch = Stopwatch()
    trained = system.train(
        sharing.shared, engine, seed=seed, progress=_staged(progress, f"training, {ratio:.0%} shared")
    )
    model = Model(trained, engine.clients, engine, watch.seconds)
    return model, training_curve(system, trained, engine, train, test, K)


def _withdrawal(
    about: About,
    levels: tuple[Level, ...],
    system: FedShare,
    before: Model,
    train: Interactions,
    test: Interactions,
    progress: Progress,
) -> Story:
    """Some users unshare all they shared; the model unlearns it, and the oracle never knew it."""
    seed = about.seed
    leavers = choose_withdrawers(before.trained.shared, WITHDRAWING, seed)
    forget = before.trained.shared.of_users(leavers)
    after = _forget(system, before, forget, seed, _staged(progress, "unlearning"))
    oracle = _forget(Retrain(system), before, forget, seed, _staged(progress, "retraining the oracle"))
    models = Trio(before, after, oracle)
    readers: Trio[Recommender] = models.map(lambda model: system.recommender(model.trained, model.clients))
    progress("measuring", 0, 2)
    groups = _groups(models.map(lambda model: _measure(system, model, train, test)), test, leavers)
    progress("measuring", 1, 2)
    server = models.map(lambda m: _ranks(ServerView(m.trained), m.trained.shared, forget))
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
    )


def _forget(system: System, before: Model, forget: Interactions, seed: int, progress: Progress) -> Model:
    """The model after a system honoured the request, on clients of its own."""
    clients, withdrawal = withdraw(before.clients, "unshare", forget)
    engine = LocalEngine(clients)
    watch = Stopwatch()
    trained = system.unlearn(before.trained, withdrawal, engine, seed=seed, progress=progress)
    return Model(trained, clients, engine, watch.seconds)


def _measure(system: FedShare, model: Model, train: Interactions, test: Interactions) -> PerUser:
    return evaluate(system.recommender(model.trained, model.clients), train, test, K)


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
