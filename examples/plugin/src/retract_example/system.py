"""`popular`: everybody gets what is shared most. A sum over users, so it forgets exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Engine, Kept, TaskMakers
from retract.models.recommender import Recommender, Scores
from retract.systems.base import (
    Checkpoint,
    Keep,
    Memory,
    Progress,
    Published,
    Trained,
    Withdrawal,
    keep_nothing,
    new_run,
    no_progress,
)
from retract.systems.checks import require_shared
from retract_example.config import PopularConfig

NAME = "popular"


class Popular:
    """Scores by counts, the same for everybody."""

    def __init__(self, counts: NDArray[np.float64]) -> None:
        self.counts = counts

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        return np.tile(self.counts.astype(np.float32), (len(users), 1))


class PopularServer:
    """Counts what is shared (a `ServerSide`)."""

    def __init__(self, config: PopularConfig) -> None:
        self.config = config

    def train(
        self,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        resume_from: Checkpoint | None = None,
        keep: Keep = keep_nothing,
        progress: Progress = no_progress,
    ) -> Trained:
        """Count."""
        require_shared(NAME, shared, engine)
        model = {"counts": shared.item_degrees() + self.config.smoothing}
        return Trained(NAME, self.config, seed, new_run(), model, Memory({}), shared, ({"stage": "train"},))

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Subtract."""
        model = {"counts": trained.model["counts"] - withdrawal.forget.item_degrees()}
        record = {"stage": "unlearn", "request": withdrawal.request_id}
        shared = trained.shared - withdrawal.forget
        return replace(trained, model=model, shared=shared, log=(*trained.log, record))

    def recommender(self, trained: Trained) -> Recommender:
        """The counts."""
        return Popular(trained.model["counts"])

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """The counts: there is nothing else."""
        return {"counts": self.recommender(trained)}


class PopularDevice:
    """Reads the published counts, and is asked for nothing (a `DeviceSide`)."""

    def __init__(self, config: PopularConfig) -> None:
        self.config = config

    @property
    def tasks(self) -> TaskMakers:
        """None."""
        return {}

    def reader(self, model: Published, kept: Kept) -> Recommender:
        """The counts."""
        return Popular(model.tables["counts"])

    def views(self, model: Published, kept: Kept) -> Mapping[str, Recommender]:
        """Nothing beyond what the server has."""
        return {}
