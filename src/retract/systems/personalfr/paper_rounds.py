"""PersonalFR's rounds on the server: the decoder that all share, and a training with checkpoints.

The server is handed sums over clients, and no interaction.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import FederationError
from retract.federation import Arrays, Broadcast, Engine, RoundResult, TaskSpec, Update, one_user_each, sample_clients
from retract.models.learn.autoencoder import initial
from retract.models.widths import BY_ITEM, layer_of
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
from retract.systems.personalfr.config import (
    LOCAL_TRAINING,
    NAME,
    SILO_TRAINING,
    PersonalFRConfig,
    layers_of,
    training_update,
)
from retract.systems.personalfr.facts import KINDS, Facts


class RoundServer:
    """The server's state in a round.

    Its arrays are replaced, never written into, so that whoever holds one from before keeps what it was.

    Parameters
    ----------
    config
        Settings, resolved.
    facts
        What the census found.
    seed
        Key of the start.
    run
        Id of the training whose state the clients keep.
    tables
        The model to go on from. The start unless given.
    """

    def __init__(
        self, config: PersonalFRConfig, facts: Facts, seed: int, run: str, tables: Arrays | None = None
    ) -> None:
        self.config, self.facts, self.seed, self.run = config, facts, seed, run
        layers, n_items = layers_of(config), len(facts.support)
        names = config.widths.shapes(layers, n_items)
        if tables is None:
            start = initial(layers, n_items, config.widths, seed, config.output_scale)
            self.tables = {name: start[name].numpy() for name in names}
        else:
            self.tables = {name: np.asarray(tables[name]) for name in names}
        self.velocity = {name: np.zeros_like(table) for name, table in self.tables.items()}
        self.answered = 0
        self.partners = np.empty(0, dtype=np.int64)

    def broadcast(self, round: int, rate: float) -> Broadcast:
        """What the clients get; `rate` is the part of their own rate at which they step in this round."""
        return Broadcast(round, {**self.tables, "mean": self.facts.mean, "rate": np.asarray(rate, dtype=np.float32)})

    def apply(self, update: Update, rate: float) -> None:
        """One step with momentum along what the clients changed on average, and decay of the last layer.

        A row is averaged over the clients that hold it, as partial models are (HeteroFL, Diao et al., ICLR 2021): over
        all clients of the round, what few have would hardly move. Where nobody answered, nothing changes.
        """
        if not update.clients:
            return
        momentum = np.float32(self.config.server_momentum)
        for name, table in self.tables.items():
            change = update.tensors[name] / _over(update, name)
            if name == "output.weight":
                change = change - np.float32(self.config.output_decay * rate) * table
            self.velocity[name] = self.velocity[name] * momentum + change
            self.tables[name] = table + self.velocity[name]
        self.answered += 1

    def published(self) -> dict[str, NDArray[Any]]:
        """The model: the tables, and what reading them takes."""
        return {**self.tables, **self.facts.published}

    def kept(self) -> dict[str, NDArray[Any]]:
        """All that the next round reads."""
        return {
            **{f"tables/{name}": table for name, table in self.tables.items()},
            **{f"velocity/{name}": table for name, table in self.velocity.items()},
            **{f"facts/{name}": table for name, table in self.facts.tables.items()},
            "answered": np.asarray(self.answered),
        }

    @classmethod
    def restored(cls, config: PersonalFRConfig, seed: int, run: str, kept: Arrays) -> RoundServer:
        """Back where `kept` was taken."""
        server = cls(config, Facts.restored(_part(kept, "facts")), seed, run, _part(kept, "tables"))
        server.velocity, server.answered = _part(kept, "velocity"), int(kept["answered"])
        return server


def _over(update: Update, name: str) -> NDArray[np.float32]:
    """Of how many clients a parameter's sum is: of a row those that hold it, of all else those of the round."""
    if name not in BY_ITEM:
        return np.asarray(update.clients, dtype=np.float32)
    holders = np.maximum(update.tensors[f"{layer_of(name)}.holders"], 1).astype(np.float32)
    return holders[:, None] if update.tensors[name].ndim == 2 else holders


def _part(kept: Arrays, room: str) -> dict[str, NDArray[Any]]:
    """The arrays of one room, by the names that they have there."""
    return {name.removeprefix(f"{room}/"): table for name, table in kept.items() if name.startswith(f"{room}/")}


def cosine(round: int, rounds: int) -> float:
    """The part of its rate at which a round runs, from 1 down to nearly 0 (Loshchilov and Hutter, ICLR 2017, eq. 5)."""
    return 0.5 * (1 + math.cos(math.pi * round / rounds))


def training_spec(server: RoundServer, engine: Engine) -> TaskSpec:
    """The local epochs: for clients of one user each all at once, for clients of many one after the other."""
    task = LOCAL_TRAINING if one_user_each(engine) else SILO_TRAINING
    update = training_update(server.config, len(server.facts.support))
    return task_spec(server.config, NAME, task, server.run, update)


def run_round(
    server: RoundServer, engine: Engine, spec: TaskSpec, users: NDArray[np.int64], number: int, rate: float
) -> RoundResult:
    """Broadcast, local epochs, aggregation."""
    result = engine.run(spec, server.broadcast(number, rate), users, seed=server.seed)
    server.apply(result.update, rate)
    server.partners = np.union1d(server.partners, result.answered)
    return result


def require_answers(server: RoundServer) -> RoundServer:
    """Refuse a decoder that nobody had a part in; the same server, for convenience.

    Raises
    ------
    FederationError
        If no device answered in any round.
    """
    if not server.answered:
        raise FederationError("no device answered in any round, so nothing was learnt from them: run it again")
    return server


class Training:
    """A training under way: the census, then the rounds, each of which offers a checkpoint.

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
        self.shared, self.config, self.seed = shared, config, seed
        self.begun, self.keep, self.progress = resume_from, keep, progress
        self.log = [] if resume_from is None else list(resume_from.log)

    def trained(self, engine: Engine) -> Trained:
        """The model after all rounds that are left to do.

        Raises
        ------
        FederationError
            If not all answer to the census, or nobody in any round.
        ConfigError
            If it was another training that was interrupted.
        """
        server = self._server(engine)
        config, spec = server.config, training_spec(server, engine)
        for number in range(0 if self.begun is None else self.begun.done, config.rounds):
            watch = Stopwatch()
            users = sample_clients(engine, config.participation, self.seed, number)
            result = run_round(server, engine, spec, users, number, cosine(number, config.rounds))
            record = {"stage": "train", "round": number, "answered": len(result.answered)}
            self.log.append({**record, "seconds": round(watch.seconds, 4)})
            self._keep(server, number + 1)
            self.progress("training", number + 1, config.rounds)
        require_answers(server)
        log = tuple(self.log)
        return Trained(NAME, config, self.seed, server.run, server.published(), Memory({}), self.shared, log)

    def _server(self, engine: Engine) -> RoundServer:
        """At the start, or where the interrupted training stood."""
        if self.begun is None:
            run = new_run()
            facts = census(engine, self.config, self.shared.n_items, run, self.seed)
            return RoundServer(self.config.resolved(facts.feedback), facts, self.seed, run)
        config, found = self.config, self.begun.settings.get("feedback")
        if found in KINDS and config.feedback in ("auto", found):
            config = config.resolved(found)
        require_own_checkpoint(self.begun, NAME, config, self.seed)
        return RoundServer.restored(config, self.seed, self.begun.run, self.begun.tables)

    def _keep(self, server: RoundServer, done: int) -> None:
        """Offer a checkpoint, which is only made if it is wanted."""
        settings, log = server.config.model_dump(mode="json"), tuple(self.log)
        self.keep(lambda: Checkpoint(NAME, settings, self.seed, server.run, "training", done, server.kept(), log))


def go_on(
    trained: Trained,
    config: PersonalFRConfig,
    facts: Facts,
    engine: Engine,
    *,
    rounds: int,
    seed: int,
    without: NDArray[np.int64],
    progress: Progress = no_progress,
) -> RoundServer:
    """The server after a few more rounds, at the rate of unlearning: another would jolt the decoder.

    Parameters
    ----------
    facts
        What a census finds now.
    seed
        Key of who takes part.
    without
        Users whose clients take no part.

    Raises
    ------
    FederationError
        If clients were asked, and none answered in any round.
    """
    server = RoundServer(config, facts, trained.seed, trained.run, trained.model)
    spec, barred, asked = training_spec(server, engine), engine.clients_of(without), 0
    first = next_round(trained, config)
    for done in range(rounds):
        users = sample_clients(engine, config.participation, seed, first + done)
        users = users[~np.isin(engine.clients_of(users), barred)]
        if len(users):
            run_round(server, engine, spec, users, first + done, config.unlearn_rate * cosine(done, rounds))
        asked += len(users)
        progress("unlearning", done + 1, rounds)
    return require_answers(server) if asked else server


def next_round(trained: Trained, config: PersonalFRConfig) -> int:
    """The number of the next round: no device is asked for the same one twice, unless it is to do it again."""
    return config.rounds + sum(int(record.get("rounds", 0)) for record in trained.log)
