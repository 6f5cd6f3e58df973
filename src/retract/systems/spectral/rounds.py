"""The rounds of the start, on the server."""

from __future__ import annotations

from collections.abc import Callable

from retract.federation import Engine, RoundResult, sample_clients
from retract.systems.base import Stopwatch, task_spec
from retract.systems.spectral.config import PROJECTION, SpectralConfig, projection_update
from retract.systems.spectral.subspace import Subspace


def find(
    subspace: Subspace,
    engine: Engine,
    config: SpectralConfig,
    system: str,
    run: str,
    seed: int,
    *,
    begin: int = 0,
    after_round: Callable[[int, RoundResult, float], None],
) -> Subspace:
    """Run the rounds of the start that are left; the same subspace, for convenience.

    Parameters
    ----------
    system, run
        Who asks, and in which training.
    begin
        How many rounds are done already.
    after_round
        Called with how many are done, what the last one brought, and its seconds.
    """
    spec = task_spec(config, system, PROJECTION, run, projection_update(len(subspace.basis), subspace.width))
    for round in range(begin, config.start_rounds):
        watch = Stopwatch()
        users = sample_clients(engine, config.participation, seed, round)
        result = engine.run(spec, subspace.broadcast(round), users, seed=seed)
        subspace.apply(result)
        after_round(round + 1, result, watch.seconds)
    return subspace
