"""FRU: roll back, and replay with calibration what the clients logged of their own updates (Yuan et al., WSDM 2023)."""

from __future__ import annotations

from dataclasses import replace

from retract.data import Interactions
from retract.errors import ConfigError, FederationError
from retract.federation import Broadcast, Engine, TaskSpec, Update
from retract.systems.base import (
    Checkpoint,
    Keep,
    Progress,
    ServerSide,
    Stopwatch,
    Trained,
    Withdrawal,
    keep_nothing,
    no_progress,
    require_same_system,
)
from retract.systems.baselines.fru_config import FruConfig, logged_spec
from retract.systems.baselines.fru_log import STAGE, ClientLog, LoggingEngine, ReplayingEngine, RoundLog, with_log
from retract.systems.baselines.wrapper import Wrapper, called, recorded
from retract.systems.checks import require_extra
from retract.systems.fedshare.config import NAME, FedShareConfig
from retract.systems.fedshare.server import FedShareServer, half_of

ATTEMPTS = 5
"""How often devices are asked for what they logged before those who are away are left out."""


class Fru(Wrapper):
    """Federated recommendation unlearning (FRU; Yuan et al., arXiv 2210.10958, WSDM 2023), for FedShare's paper form.

    Training: every client logs, of its updates of item embeddings, the part α with the greatest norms. Unlearning: the
    server rolls back to the initial tables, and every logged round t is done again without what is withdrawn, from the
    tables Q̄ that the replay has reached; the clients compute their vectors and their updates M̂ anew, and the server
    takes the new direction at the old length,

        M̄^t = ‖Σ_k M_k^t‖ · Σ_k M̂_k^t / ‖Σ_k M̂_k^t‖,    k over the clients that erased nothing in the old sum.

    The log, its filter and the calibration are the paper's. Only every `interval`-th round is logged and replayed:
    the retaining interval of FedEraser (Liu et al., IWQoS 2021), which FRU builds on; it is what makes the replay
    faster than training here, for a local epoch is one pass already and cannot be shortened as the paper does (λ).
    Ours:

    - A client's update is what it sends, a gradient; the server's Adam turns the calibrated sum into a step, so an
      old length tells only against the lengths of other rounds and of the server's own terms.
    - The filter would shorten every step. So the length of the whole sum is kept too, one number a round, which the
      server saw anyway; who leaves takes away the part that the logged rows lose in length.
    - What a client logs stays in its journal; the server asks for sums over clients, and keeps their norms.
    - A replayed round stands for `interval` rounds, so the rates of what is learned in rounds grow by it. The server's
      own table is fitted to S∖R as in training.
    - Which clients take part in a replayed round is drawn anew, where not all of them do.
    - Who withdraws sharing keeps the data and stays; who erases starts anew, its journal gone.

    The paper's semi-hard negatives, which shrink the log further, are left out: they would make another model, and
    methods are compared on one. All of the journals count as memory, though they lie on the devices: they are kept for
    unlearning and for nothing else.

    Parameters
    ----------
    server
        FedShare's.
    settings
        What is logged.

    Raises
    ------
    ConfigError
        If the system is another, or in another form.
    """

    name = "fru"
    settings: FruConfig

    def __init__(self, server: ServerSide, settings: FruConfig) -> None:
        super().__init__(server, settings)
        if not isinstance(server.config, FedShareConfig):
            raise ConfigError(
                f"{self.name} needs a system that learns from its clients' item updates; {called(server)} has none"
            )
        if not server.config.paper:
            raise ConfigError(
                f"{self.name} rolls back to initial tables that know no data, and fedshare starts from all clients' "
                "data: set form=paper"
            )

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
        """Train FedShare, to the last bit as it trains itself, while the clients keep their logs.

        Raises
        ------
        ConfigError
            If `resume_from` is of a training that logged otherwise.
        """
        logging = LoggingEngine(engine, self.settings)
        if resume_from is not None:
            logging.restore(resume_from.tables)
        trained = self.server.train(
            shared, logging, seed=seed, resume_from=resume_from, keep=logging.keeping(keep), progress=progress
        )
        trained = with_log(trained, logging.rounds)
        # All rows of all rounds, each with its item, is what a log would take that is not filtered.
        sizes = {"bytes": trained.memory.nbytes, "bytes_unfiltered": logging.sent}
        record = {"stage": STAGE, "run": trained.run, **self.settings.model_dump(), **sizes}
        return replace(trained, log=(*trained.log, record))

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Replay the logged rounds on what is left; draws are those of the training, so `seed` plays no part.

        Raises
        ------
        ConfigError
            If `trained` has no log, or the devices have none of its training: fru unlearns what fru has trained.
        FederationError
            If no device can be reached.
        """
        require_extra(self.name, "learn", "torch")
        require_same_system(NAME, trained)
        watch, log = Stopwatch(), ClientLog.of(trained)
        if not len(engine.users):
            raise FederationError("fru replays the rounds of the devices, and none can be reached from here")
        if withdrawal.kind == "erase":
            log = still_logged(log, trained, engine, seed, progress)
        replaying, retained = ReplayingEngine(engine, log.rounds), trained.shared - withdrawal.forget
        result = paced(trained, log).train(retained, replaying, seed=trained.seed, progress=progress)
        result = replace(with_log(result, log.rounds), log=(*trained.log, *result.log))
        return recorded(result, self.name, withdrawal, watch, trained.config)


def still_logged(log: ClientLog, trained: Trained, engine: Engine, seed: int, progress: Progress) -> ClientLog:
    """The log of those whose journals are still there.

    Who is away however often it is asked is left out, as one who left: it takes a part of the length away, no more.

    Raises
    ------
    ConfigError
        If no device has a journal of this training.
    """
    shape, rounds = trained.model["items"].shape, dict[int, RoundLog]()
    for number, (round, before) in enumerate(log.rounds.items()):
        spec = logged_spec(trained.config, trained.system, log.run, round, shape)
        # Rounds of numbers that no training has: a round of the same number would be a round done again.
        asked = range(-1 - number * ATTEMPTS, -1 - (number + 1) * ATTEMPTS, -1)
        rounds[round] = before.left(sum_over_all(engine, spec, asked, seed))
        progress("client logs", number + 1, len(log.rounds))
    if not sum(left.nbytes for left in rounds.values()):
        raise ConfigError("fru finds no log of this training on the devices any more: train again with fru")
    return replace(log, rounds=rounds)


def sum_over_all(engine: Engine, spec: TaskSpec, rounds: range, seed: int) -> Update:
    """The sum over all clients, those who did not answer asked again in the rounds that follow."""
    total, asked = spec.update.zeros(), engine.users
    for round in rounds:
        result = engine.run(spec, Broadcast(round, {}), asked, seed=seed)
        total, asked = total + result.update, result.missing
        if not len(asked):
            break
    return total


def paced(trained: Trained, log: ClientLog) -> FedShareServer:
    """A FedShare of as many rounds as are replayed, each of which goes as far as `interval` rounds."""
    config = trained.config
    assert isinstance(config, FedShareConfig)
    rates = {"item_rate": config.item_rate * log.interval, "client_rate": config.client_rate * log.interval}
    return half_of(config.model_copy(update={"rounds": len(log.rounds), **rates}))
