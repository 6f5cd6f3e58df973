"""The server of PersonalFR's paper form: train, unlearn and take in new users. It reads no interaction.

What takes gradients is imported where it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import ConfigError, DataError
from retract.federation import Engine
from retract.models.recommender import HistoryReader, Recommender
from retract.systems.abilities import Learnt
from retract.systems.base import (
    Checkpoint,
    Keep,
    Kind,
    Memory,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    keep_nothing,
    no_progress,
    require_same_system,
)
from retract.systems.checks import require_extra, require_several
from retract.systems.personalfr.asking import census, pulls, require_reachable
from retract.systems.personalfr.config import NAME, PersonalFRConfig
from retract.systems.personalfr.facts import with_scale_of
from retract.systems.personalfr.influence import balance, without

BALANCE, POPULATION = "balance", "population"
"""What is kept to forget by, of `prepare`."""


class PaperServer:
    """Private encoders, one federated decoder (Le et al., Asilomar 2022, arXiv 2212.08779).

    Clients learn from all that they hold, and the server reads no interaction, shared or private: what it has is the
    sum of what clients changed.

    Parameters
    ----------
    config
        Settings; the defaults fit MovieLens.
    """

    fixed_items: Literal[True] = True

    def __init__(self, config: PersonalFRConfig) -> None:
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
        """Rounds of local epochs, from scratch.

        Raises
        ------
        DataError
            If fewer than two users hold an interaction, or what they hold is not what the settings ask for.
        ConfigError
            If `resume_from` is of another training.
        FederationError
            If not all devices answer to the census, or none in any round.
        """
        require_extra(NAME, "learn", "torch")
        from retract.systems.personalfr.paper_rounds import Training

        require_several(NAME, engine)
        return Training(shared, self.config, seed, resume_from, keep, progress).trained(engine)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Make the decoder forget; the encoders of those who erased are gone with their clients' state.

        After "unshare" the model is, bit for bit, the one that training without it gives, and stays: clients still hold
        what they no longer share, and nothing that is shared was ever read. After "erase" the last layer takes a step
        to where it balances without what is gone, see `retract.systems.personalfr.influence`. Where the encoder is the
        server's, it forgets in further rounds of the clients that erased nothing: decay takes the old away meanwhile.

        Raises
        ------
        ConfigError
            If something is erased and the model was not prepared for that.
        FederationError
            If something is erased and not all devices answer that are left; nothing is changed then.
        """
        require_same_system(NAME, trained)
        watch = Stopwatch()
        record: dict[str, object] = {"stage": "unlearn", "request": withdrawal.request_id}
        if withdrawal.kind == "erase":
            trained, record["rounds"] = self._without(trained, withdrawal, engine, seed, progress)
        record["seconds"] = round(watch.seconds, 4)
        return replace(trained, shared=trained.shared - withdrawal.forget, log=(*trained.log, record))

    def prepare(self, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Keep how the pulls of all clients and the decay balance, a table like the last layer; and whose they are.

        It is for after a training: who is counted counts as one who shaped the decoder.

        Raises
        ------
        FederationError
            If not all devices answer.
        """
        trained = _prepared_over(require_reachable(engine), trained, engine)
        progress("preparing", 1, 1)
        return trained

    def continue_training(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        rounds: int,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """More rounds, at the rate of unlearning: another would jolt the decoder.

        Raises
        ------
        FederationError
            If not all devices answer to the census, or none in any round.
        """
        require_extra(NAME, "learn", "torch")
        from retract.systems.personalfr.paper_rounds import go_on

        watch, config, _ = Stopwatch(), _config_of(trained), require_reachable(engine)
        facts, nobody = census(engine, config, shared.n_items, trained.run, seed), np.empty(0, dtype=np.int64)
        server = go_on(trained, config, facts, engine, rounds=rounds, seed=seed, without=nobody, progress=progress)
        record = {"stage": "continue", "rounds": rounds, "seconds": round(watch.seconds, 4)}
        model, log = server.published(), (*trained.log, record)
        return replace(trained, model=model, memory=Memory({}), shared=shared, log=log)

    def extend(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Take in new users, and more of known ones: the decoder stays, and their clients make encoders for it.

        New users trained nothing, so they leave nothing to forget. Known ones count with the data of now, for a later
        erasure compares with that.

        Raises
        ------
        DataError
            If there are new items, of which the decoder knows nothing, or the new data is not of the kind or the scale
            that the model was trained on.
        FederationError
            If not all devices answer to the census, or to the pull of those who shaped the decoder.
        """
        watch, config, held = Stopwatch(), _config_of(trained), trained.shared
        if new := shared.n_items - held.n_items:
            raise DataError(f"{NAME} takes in new users, and {new:,} items are new: leave them out, or train again")
        require_reachable(engine)
        facts = census(engine, with_scale_of(config, trained.model), shared.n_items, trained.run, seed)
        progress("extending", 1, 1)
        record = {"stage": "extend", "seconds": round(watch.seconds, 4)}
        model = {**trained.model, "support": facts.support}
        trained = replace(trained, model=model, shared=held.over(shared.catalog) | shared, log=(*trained.log, record))
        if POPULATION not in trained.memory.tables:
            return trained
        return _prepared_over(np.intersect1d(trained.memory.tables[POPULATION], engine.users), trained, engine)

    def learnt(self, kind: Kind) -> Learnt:
        """All that is held, and what is only unshared is still held."""
        return "everything" if kind == "erase" else "nothing"

    def recommender(self, trained: Trained) -> Recommender:
        """The published decoder, read through encoders that are made of the histories: the clients' own stay there."""
        config = _config_of(trained)
        require_extra(NAME, "learn", "torch")
        from retract.systems.personalfr.paper_reading import recommender_of

        return recommender_of(trained.model, config, trained.seed)

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """The decoder, read through encoders that anybody can make of a history, and its last layer by itself."""
        return {"decoder": self.recommender(trained), "items": HistoryReader(trained.model["output.weight"])}

    def _without(
        self, trained: Trained, withdrawal: Withdrawal, engine: Engine, seed: int, progress: Progress
    ) -> tuple[Trained, int]:
        """The model after an erasure, prepared for the next one, and how many rounds that took.

        The pulls that are compared are of the same people, but for those who are gone. Where none of them shaped the
        decoder, it stays; where nobody is left who did, it is the start.
        """
        config, memory, users = _config_of(trained), trained.memory.tables, require_reachable(engine)
        if BALANCE not in memory:
            raise ConfigError(f"this {NAME} was not prepared to forget what is erased: train it again")
        population = memory[POPULATION]
        facts = census(engine, config, trained.shared.n_items, trained.run, seed)
        if not np.isin(withdrawal.users, population).any():
            return replace(trained, model={**trained.model, "support": facts.support}), 0
        left = np.intersect1d(population, users)
        if not len(left):
            require_extra(NAME, "learn", "torch")
            from retract.systems.personalfr.paper_rounds import RoundServer

            start = RoundServer(config, facts, trained.seed, trained.run).published()
            return _prepared_over(left, replace(trained, model=start), engine), 0
        last = without(pulls(trained, config, engine, left), memory[BALANCE], trained.model, config)
        # Where encoders are private, they were trained on ratings less the mean of then.
        found = {"support": facts.support} if config.mode == "personal" else facts.published
        trained = replace(trained, model={**trained.model, **last, **found})
        rounds = 0 if config.mode == "personal" else round(config.unlearn_part * config.rounds)
        if rounds:
            require_extra(NAME, "learn", "torch")
            from retract.systems.personalfr.paper_rounds import go_on

            barred = withdrawal.users
            server = go_on(trained, config, facts, engine, rounds=rounds, seed=seed, without=barred, progress=progress)
            trained, left = replace(trained, model=server.published()), np.union1d(left, server.partners)
        return _prepared_over(left, trained, engine), rounds


def _prepared_over(users: NDArray[np.int64], trained: Trained, engine: Engine) -> Trained:
    """The same model, with how the pulls of these users and the decay balance at it."""
    config = _config_of(trained)
    kept = balance(pulls(trained, config, engine, users), trained.model, config)
    return replace(trained, memory=Memory({BALANCE: kept, POPULATION: users}))


def _config_of(trained: Trained) -> PersonalFRConfig:
    """The settings that a model was trained with, resolved for its feedback."""
    require_same_system(NAME, trained)
    assert isinstance(trained.config, PersonalFRConfig)
    return trained.config
