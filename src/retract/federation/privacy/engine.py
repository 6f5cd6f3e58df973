"""The server's side of the stages: an engine whose rounds are paid for before they are asked, and noised after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.errors import ConfigError, FederationError
from retract.federation.contracts import Broadcast, Engine, RoundResult, TaskSpec, Traffic
from retract.federation.participation import require_users
from retract.federation.privacy.accountant import Accountant, Step
from retract.federation.privacy.randomness import Randomness
from retract.federation.privacy.robust import NormBound, RobustEngine
from retract.federation.privacy.stages import (
    Place,
    Stage,
    floor_of,
    limits_of,
    multiplier_of,
    private_name,
    require_sound,
)
from retract.federation.privacy.wrapping import engine_within, users_by_client


class PrivateEngine:
    """An engine whose sums are differentially private (an `Engine`).

    It asks devices for their tasks under a private name, which only devices with the same stages know (`staged`), so
    every update is clipped before it is summed. Epsilon holds for one client's whole data against whoever sees the
    sums after the last stage and all that is made of them. With `ServerNoise` the server itself is trusted. With
    `ClientNoise` it is not, and what each client sends is protected; with a floor above 1 only if the server sees sums
    alone.

    Parameters
    ----------
    engine
        Reaches devices whose tasks are `staged`.
    stages
        In order.
    accountant
        Holds the budget.
    randomness
        The server's own; `Secret()` on a real one.
    participation
        The probability with which each client is asked, by `sample_clients` with the round's seed. Below 1, noise of
        the server counts for more (amplification by sampling), towards whoever does not know who was asked: the seed
        must then be the server's secret. Noise of clients is accounted without it, for the server knows whom it asked.

    Raises
    ------
    ConfigError
        If the stages do not begin with clipping or add no noise, if the probability is not in (0, 1], or if the
        engine's sums are such as one client can move by more than its bound: trimmed means, or bounded by a median.
    """

    sums_only = True

    def __init__(
        self,
        engine: Engine,
        stages: Sequence[Stage],
        accountant: Accountant,
        randomness: Randomness,
        *,
        participation: float = 1.0,
    ) -> None:
        require_sound(stages)
        multiplier_of(stages, 1)
        if not 0 < participation <= 1:
            raise ConfigError(f"clients take part with probability {participation:g}: it must be in (0, 1]")
        robust = engine_within(engine, RobustEngine)
        if robust is not None and not (isinstance(robust.rule, NormBound) and robust.rule.medians is None):
            raise ConfigError(
                f"one client can move a sum of {type(robust.rule).__name__} by more than its bound, so noise on it has "
                "no epsilon: take NormBound with a bound for every tensor and medians=None"
            )
        self.engine, self.stages, self.accountant = engine, tuple(stages), accountant
        self.randomness, self.participation = randomness, participation
        self.traffic: Traffic = engine.traffic

    @property
    def users(self) -> NDArray[np.int64]:
        """Of the engine within."""
        return self.engine.users

    def clients_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The client of each user."""
        return self.engine.clients_of(users)

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], *, seed: int) -> RoundResult:
        """Run a task in private; see `Engine`.

        What a round costs is spent before it is asked. It stays spent if the round fails, for messages may have been
        sent by then.

        Raises
        ------
        ConfigError
            If no user is given, a tensor has no bound, or delta is not below one over the clients.
        PrivacyError
            If the round would exceed the budget. Nothing is sent then.
        FederationError
            If fewer clients are asked, or answer, than the noise is shared among; or, with `participation` below 1, if
            others are asked than the draw gives.
        """
        require_users(users)
        limits, floor = limits_of(self.stages, spec.update), floor_of(self.stages)
        asked = len(users_by_client(self.engine, users))
        if asked < floor:
            raise FederationError(
                f"{asked:,} clients are asked and the noise of at least {floor:,} is needed: ask more"
            )
        if self.accountant.delta * asked >= 1:
            raise ConfigError(
                f"delta is {self.accountant.delta:g} and {asked:,} clients are asked: it must be below one over the "
                "clients, or one of them might be published outright"
            )
        promised = Step(multiplier_of(self.stages, floor), self._sampling(broadcast.round, users, seed))
        self.accountant.spend(promised)
        private = replace(spec, task=private_name(spec.task, self.stages))
        result = self.engine.run(private, broadcast, users, seed=seed)
        update, place = result.update, Place(self.randomness, broadcast.round, spec.task)
        for stage in reversed(self.stages):
            update = stage.on_sum(update, limits, place)
        if update.clients:
            had = Step(multiplier_of(self.stages, update.clients), promised.sampling)
            self.accountant.correct(had, promised)
        return replace(result, update=update)

    def _sampling(self, round: int, users: NDArray[np.int64], seed: int) -> float:
        """The probability that this round may be accounted with."""
        if self.participation == 1 or floor_of(self.stages) > 1 or self._noise_of_clients():
            return 1.0
        known = self.engine.users
        drawn = known[streams.uniform(seed, round, self.clients_of(known), "participation") <= self.participation]
        if not np.array_equal(drawn, users):
            raise FederationError(
                f"{len(users):,} users are asked and the draw at participation={self.participation:g} gives "
                f"{len(drawn):,}: ask those that sample_clients gives, or account without sampling"
            )
        return self.participation

    def _noise_of_clients(self) -> bool:
        """Whether any noise is the clients' own: it alone grows with how many answer."""
        return any(stage.variance(2) > stage.variance(1) for stage in self.stages)
