"""PersonalFR as a system: train, unlearn, recommend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError
from retract.federation import Broadcast, Clients, ClientTask, Engine, one_user_each, sample_clients
from retract.models.recommender import HistoryReader, Recommender
from retract.systems.base import (
    Kind,
    Learnt,
    Memory,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    no_progress,
    require_several,
)
from retract.systems.personalfr.client import Census, LocalTraining
from retract.systems.personalfr.config import PersonalFRConfig
from retract.systems.personalfr.influence import balance, without
from retract.systems.personalfr.pull import PULLING, Pull
from retract.systems.personalfr.reading import PersonalFRRecommender, RatingRecommender
from retract.systems.personalfr.server import Facts, Server, scale_places
from retract.systems.personalfr.silo import SiloTraining

BALANCE = "balance"
"""What is kept to forget by, of `prepare`."""


class PersonalFR:
    """Private encoders, one federated decoder (Le et al., Asilomar 2022, arXiv 2212.08779).

    Clients learn from all that they hold, and the server reads no interaction, shared or private: what it has is the
    sum of what clients changed.

    Parameters
    ----------
    config
        Settings; the defaults fit MovieLens.
    """

    name = "personalfr"

    def __init__(self, config: PersonalFRConfig | None = None) -> None:
        self.config = config if config is not None else PersonalFRConfig()

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Rounds of local epochs, from scratch.

        Raises
        ------
        DataError
            If fewer than two users hold an interaction, or what they hold is not what the settings ask for.
        """
        require_several(self.name, engine)
        engine.reset()
        facts = census(engine, self.config, seed)
        config = self.config.resolved(facts.feedback)
        server = Server(config, facts, seed)
        log = []
        for number in range(config.rounds):
            watch = Stopwatch()
            users = sample_clients(engine, config.participation, seed, number)
            run_round(server, engine, users, number, cosine(number, config.rounds), seed)
            log.append({"stage": "train", "round": number, "seconds": round(watch.seconds, 4)})
            progress("training", number + 1, config.rounds)
        return Trained(self.name, config, seed, server.published(), Memory({}), shared, tuple(log))

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
        """
        watch, config = Stopwatch(), self._settings(trained)
        if withdrawal.kind == "erase":
            if (then := trained.memory.tensors.get(BALANCE)) is None:
                raise ConfigError(f"this {self.name} was not prepared to forget what is erased: train it again")
            last = without(self._pulls(trained, engine), then, trained.model, config)
            support = census(engine, config, seed).support
            trained = replace(trained, model={**trained.model, **last, "support": support})
            if config.mode != "personal":
                rounds = round(config.unlearn_part * config.rounds)
                model = self._calibrated(trained, engine, withdrawal.users, rounds, seed, progress)
                trained = replace(trained, model=model)
            trained = self.prepare(trained, engine, seed=seed)
        record = {"stage": "unlearn", "request": withdrawal.request_id, "seconds": round(watch.seconds, 4)}
        return replace(trained, shared=trained.shared - withdrawal.forget, log=(*trained.log, record))

    def prepare(self, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Keep how the pulls of all clients and the decay balance: a table like the decoder's last layer."""
        kept = balance(self._pulls(trained, engine), trained.model, self._settings(trained))
        progress("preparing", 1, 1)
        return replace(trained, memory=Memory({BALANCE: kept}))

    def resume(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        rounds: int,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """More rounds, at the rate of unlearning: another would jolt the decoder."""
        watch, nobody = Stopwatch(), np.empty(0, dtype=np.int64)
        model = self._calibrated(trained, engine, nobody, rounds, seed, progress)
        record = {"stage": "resume", "rounds": rounds, "seconds": round(watch.seconds, 4)}
        return replace(trained, model=model, memory=Memory({}), shared=shared, log=(*trained.log, record))

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

        Raises
        ------
        DataError
            If there are new items, of which the decoder knows nothing, or the new data is not of the kind or the scale
            that the model was trained on.
        """
        watch, held = Stopwatch(), trained.shared
        if new := shared.n_items - held.n_items:
            raise DataError(
                f"{self.name} takes in new users, and {new:,} items are new: leave them out, or train again"
            )
        config = self._settings(trained)
        if config.feedback == "explicit":
            config = config.model_copy(update={end: float(trained.model[end]) for end in ("lowest", "highest")})
        facts = census(engine, config, seed)
        progress("extending", 1, 1)
        record = {"stage": "extend", "seconds": round(watch.seconds, 4)}
        model = {**trained.model, "support": facts.support}
        return replace(trained, model=model, shared=held.over(shared.catalog) | shared, log=(*trained.log, record))

    def learnt(self, kind: Kind) -> Learnt:
        """All that is held, and what is only unshared is still held."""
        return "everything" if kind == "erase" else "nothing"

    def recommender(self, trained: Trained, clients: Clients) -> Recommender:
        """Own encoder and published decoder, on the clients."""
        config = self._settings(trained)
        kind = RatingRecommender if config.feedback == "explicit" else PersonalFRRecommender
        return kind(trained.model, clients, config, trained.seed)

    def views(self, trained: Trained, clients: Clients | None) -> Mapping[str, Recommender]:
        """The decoder, read through encoders that anybody can make of a history, and its last layer by itself."""
        nobody = Clients(Sharing(trained.shared, Interactions.empty(trained.shared.catalog)))
        return {
            "decoder": self.recommender(trained, nobody),
            "items": HistoryReader(trained.model["output.weight"]),
        }

    def _pulls(self, trained: Trained, engine: Engine) -> Mapping[str, Tensor]:
        """The sums of `Pull`."""
        broadcast = Broadcast(PULLING, trained.model)
        return engine.run(Pull(self._settings(trained)), broadcast, engine.users, seed=trained.seed).tensors

    def _calibrated(
        self,
        trained: Trained,
        engine: Engine,
        without: NDArray[np.int64],
        rounds: int,
        seed: int,
        progress: Progress,
    ) -> dict[str, Any]:
        """The model after a few rounds of all clients but some."""
        config = self._settings(trained)
        server = Server(config, census(engine, config, seed), trained.seed, trained.model)
        asking = np.isin(engine.client_of, engine.client_of[without])
        later = range(config.rounds, config.rounds + rounds)
        for number in later:
            users = sample_clients(engine, config.participation, seed, number)
            if len(users := users[~asking[users]]):
                rate = config.unlearn_rate * cosine(number - later.start, len(later))
                run_round(server, engine, users, number, rate, trained.seed)
            progress("unlearning", number + 1 - later.start, len(later))
        return server.published()

    def _settings(self, trained: Trained) -> PersonalFRConfig:
        """Those of this system, with the feedback that training found."""
        assert isinstance(trained.config, PersonalFRConfig)
        feedback = trained.config.feedback
        return self.config.resolved(feedback) if feedback != "auto" else self.config


def cosine(round: int, rounds: int) -> float:
    """The part of its rate at which a round runs, from 1 down to nearly 0 (Loshchilov and Hutter, ICLR 2017, eq. 5)."""
    return 0.5 * (1 + math.cos(math.pi * round / rounds))


def census(engine: Engine, config: PersonalFRConfig, seed: int) -> Facts:
    """What all clients together hold, as sums.

    Raises
    ------
    DataError
        As `Facts.of`.
    """
    places = scale_places(config)
    found = engine.run(Census(), Broadcast(0, {"places": places}), engine.users, seed=seed)
    return Facts.of(found.tensors, places, config)


def run_round(server: Server, engine: Engine, users: NDArray[np.int64], number: int, rate: float, seed: int) -> None:
    """Broadcast, local epochs, aggregation."""
    broadcast = server.broadcast(number, rate)
    server.apply(engine.run(local_training(server, engine), broadcast, users, seed=seed), rate)


def local_training(server: Server, engine: Engine) -> ClientTask:
    """For clients of one user each, all at once; for clients of many, one after the other."""
    if one_user_each(engine):
        return LocalTraining(server.config)
    return SiloTraining(server.config, len(server.facts.support))
