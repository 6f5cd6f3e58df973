"""A training of PersonalFR's closed form on the server: the census, the start, and the rounds of ratings.

The server is handed sums over clients, and no interaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import FederationError
from retract.federation import Engine, RoundResult, sample_clients
from retract.systems.base import (
    Checkpoint,
    Keep,
    Memory,
    Progress,
    Stopwatch,
    Trained,
    keep_nothing,
    new_run,
    no_progress,
    task_spec,
)
from retract.systems.checks import require_own_checkpoint
from retract.systems.personalfr.asking import census
from retract.systems.personalfr.config import NAME, RATING_STEP, PersonalFRConfig, rating_update
from retract.systems.personalfr.decoder import RatingServer, Start
from retract.systems.personalfr.facts import KINDS, Facts
from retract.systems.spectral.rounds import find
from retract.systems.spectral.subspace import Subspace

START, ROUNDS = "spectral start", "ratings"
"""Stages of a training."""


class Training:
    """A training under way, each round of which is logged and offers a checkpoint.

    Parameters
    ----------
    shared
        S, which the server holds and learns nothing from.
    config, seed
        Settings, not resolved yet, and the key of all draws.
    resume_from
        Where it was interrupted.
    keep, progress
        As of `ServerSide.train`.
    """

    def __init__(
        self,
        shared: Interactions,
        config: PersonalFRConfig,
        seed: int,
        resume_from: Checkpoint | None = None,
        keep: Keep = keep_nothing,
        progress: Progress = no_progress,
    ) -> None:
        self.shared, self.config, self.seed, self.begun = shared, config, seed, resume_from
        self.keep, self.progress = keep, progress
        self.run = new_run() if resume_from is None else resume_from.run
        self.log: list[Mapping[str, Any]] = [] if resume_from is None else list(resume_from.log)

    def trained(self, engine: Engine) -> Trained:
        """The model after all rounds that are left to do.

        Raises
        ------
        DataError
            As `Facts.of`.
        FederationError
            If not all answer to the census, or nobody in any round.
        ConfigError
            If it was another training that was interrupted.
        """
        facts = self._facts(engine)
        # What is kept with the model says that d was not given: an erasure finds it anew, as the oracle does.
        sized = self.config.model_copy(update={"dimension": self.config.dimension or facts.dimension})
        start = self._start(engine, facts, sized)
        mean_degree = facts.support.sum() / max(int(facts.users), 1)
        model = {"items": start.items, "mean_degree": np.asarray(mean_degree, dtype=np.float32), **facts.published}
        if facts.feedback == "explicit":
            model |= self._fitted(engine, start, facts, sized).published
        return Trained(NAME, self.config, self.seed, self.run, model, Memory({}), self.shared, tuple(self.log))

    def _facts(self, engine: Engine) -> Facts:
        """What the census finds, or found; from then on the settings are resolved."""
        if self.begun is None:
            facts = census(engine, self.config, self.shared.n_items, self.run, self.seed)
            self.config = self.config.resolved(facts.feedback)
            return facts
        if (found := self.begun.settings.get("feedback")) in KINDS and self.config.feedback in ("auto", found):
            self.config = self.config.resolved(found)
        require_own_checkpoint(self.begun, NAME, self.config, self.seed)
        return Facts.restored(self.begun.tables)

    def _start(self, engine: Engine, facts: Facts, config: PersonalFRConfig) -> Start:
        """From the clients' leading subspace."""
        begun = self.begun
        if begun is not None and begun.stage == ROUNDS:
            return Start(begun.tables["start"], float(begun.tables["standing"]))
        subspace, begin = Subspace(self.shared.n_items, config, self.seed), 0
        if begun is not None:
            subspace.restore(begun.tables)
            begin = begun.done

        def after_round(done: int, result: RoundResult, seconds: float) -> None:
            self._record(done - 1, result, seconds)
            self._offer(START, done, lambda: {**facts.tables, **subspace.tables})
            self.progress(START, done, config.start_rounds)

        find(subspace, engine, config, NAME, self.run, self.seed, begin=begin, after_round=after_round)
        if not any(record["answered"] for record in self.log):
            raise FederationError("no device answered in any round, so nothing was learnt from them: run it again")
        return Start(*subspace.embeddings(config.spectrum))

    def _fitted(self, engine: Engine, start: Start, facts: Facts, config: PersonalFRConfig) -> RatingServer:
        """The decoder of ratings."""
        server, begin = RatingServer(start, facts, config), 0
        if self.begun is not None and self.begun.stage == ROUNDS:
            server.restore(self.begun.tables)
            begin = self.begun.done
        spec = task_spec(config, NAME, RATING_STEP, self.run, rating_update(config, len(start.items)))
        for done in range(begin, config.rounds):
            watch, number = Stopwatch(), config.start_rounds + done
            users = sample_clients(engine, config.participation, self.seed, number)
            result = engine.run(spec, server.broadcast(number), users, seed=self.seed)
            server.apply(result.update)
            self._record(number, result, watch.seconds)
            beside = {"start": start.items, "standing": np.asarray(start.standing)}
            self._offer(ROUNDS, done + 1, lambda beside=beside: {**facts.tables, **beside, **server.kept})  # type: ignore[misc]
            self.progress(ROUNDS, done + 1, config.rounds)
        if not server.answered:
            raise FederationError("no device answered in any round, so nothing was learnt from them: run it again")
        return server

    def _record(self, number: int, result: RoundResult, seconds: float) -> None:
        """Write a round into the log."""
        record = {"stage": "train", "round": number, "answered": len(result.answered)}
        self.log.append({**record, "seconds": round(seconds, 4)})

    def _offer(self, stage: str, done: int, tables: Callable[[], dict[str, NDArray[Any]]]) -> None:
        """Offer a checkpoint, which is only made if it is wanted."""
        settings = self.config.model_dump(mode="json")
        self.keep(lambda: Checkpoint(NAME, settings, self.seed, self.run, stage, done, tables(), tuple(self.log)))
