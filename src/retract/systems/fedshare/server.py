"""FedShare's server: train, unlearn and go on training. It sees no private interaction.

What takes gradients is imported where it is called, so that a server which only reads a model needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import FederationError
from retract.federation import Engine
from retract.models.recommender import DotProduct, HistoryReader, Recommender
from retract.systems.abilities import Learnt, Objective
from retract.systems.base import (
    Checkpoint,
    Keep,
    Kind,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    keep_nothing,
    new_run,
    no_progress,
    require_same_system,
)
from retract.systems.checks import require_extra, require_one_user_each, require_own_checkpoint, require_several
from retract.systems.fedshare.config import NAME, FedShareConfig

if TYPE_CHECKING:
    from torch import Tensor

    from retract.systems.fedshare.graph import Fitted
    from retract.systems.fedshare.rounds import RoundServer


class FedShareServer:
    """Federated recommendation with user-chosen sharing (Qu et al., arXiv 2603.11610, 2026).

    Parameters
    ----------
    config
        Settings; the defaults fit MovieLens.
    """

    def __init__(self, config: FedShareConfig) -> None:
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
        """Fit the shared graph, then learn in rounds of the clients, from nothing.

        Raises
        ------
        DataError
            If fewer than two users hold an interaction.
        ConfigError
            If a client has more than one user, or `resume_from` is of another training.
        FederationError
            If no device answered in any round.
        """
        require_extra(NAME, "learn", "torch")
        from retract.systems.fedshare.rounds import Training

        require_several(NAME, engine)
        require_one_user_each(NAME, engine)
        if resume_from is not None:
            require_own_checkpoint(resume_from, NAME, self.config, seed)
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
        """Make the server's table forget, and then what the clients make together.

        The server's table, by `refit`: it is, bit for bit, the one that training without the forget set gives, for it
        is a function of what is shared. By `contrast` it is moved there, see `ContrastiveUnlearning`, and one snapshot
        is kept, itself: the older ones were made with what is now withdrawn.

        What the clients make: after "unshare" they still hold the data, so Q and their vectors only follow the new
        table for a few rounds; where no device can be reached, Q stays. After "erase" Q must know nothing of it, and Q
        is a sum over everyone: all start anew, for fewer rounds than in training and at higher rates.

        Raises
        ------
        FederationError
            If an erasure reaches no device; nothing is changed then.
        """
        require_extra(NAME, "learn", "torch")
        from retract.systems.fedshare.rounds import finish

        config, watch = _config_of(trained), Stopwatch()
        if withdrawal.kind == "erase" and not len(engine.users):
            raise FederationError(
                f"{NAME} learns anew with its devices to erase, and none with an interaction can be reached from here: "
                "nothing was changed; run this where they are"
            )
        retained = trained.shared - withdrawal.forget
        fitted = _forgotten(trained, retained, withdrawal.forget, config, seed, progress)
        if withdrawal.kind == "erase":
            rounds = config.erase_rounds
            server = _start_anew(fitted.nodes, retained, config, engine, trained.seed, progress)
        else:
            rounds = config.unlearn_rounds if len(engine.users) else 0
            server = _continue(trained, fitted.nodes, retained, config, engine, rounds, seed, progress)
        record = {"stage": "unlearn", "request": withdrawal.request_id, "rounds": rounds}
        record |= {"seconds": round(watch.seconds, 4)}
        return finish(server, retained, fitted.snapshots, config, trained.seed, (*trained.log, record))

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
        """More steps on the shared graph, and more rounds at the rate of unlearning: another would jolt Q.

        Raises
        ------
        FederationError
            If no device can be reached.
        """
        require_extra(NAME, "learn", "torch")
        from retract.systems.fedshare.graph import Fit, SharedGraph
        from retract.systems.fedshare.rounds import finish

        config, watch = _config_of(trained), Stopwatch()
        if not len(engine.users):
            raise FederationError(f"{NAME} learns with its devices, and none can be reached from here")
        nodes, steps = _nodes(trained), range(config.server_steps, config.server_steps + rounds)
        if len(shared):
            nodes = Fit(SharedGraph(shared, config), nodes, steps, seed).run(progress).nodes
        server = _continue(trained, nodes, shared, config, engine, rounds, seed, progress)
        record = {"stage": "continue", "rounds": rounds, "seconds": round(watch.seconds, 4)}
        return finish(server, shared, [nodes], config, trained.seed, (*trained.log, record))

    def learnt(self, kind: Kind) -> Learnt:
        """All that is held; what is unshared was learnt on the server."""
        return "everything" if kind == "erase" else "shared"

    def recommender(self, trained: Trained) -> Recommender:
        """Z read through what is shared; Q where nothing is, for that is all there is then."""
        require_same_system(NAME, trained)
        return HistoryReader(trained.model.get("global_items", trained.model["items"]))

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """Q and Z read through a history, and the server's own rows of the sharers."""
        found: dict[str, Recommender] = {"items": HistoryReader(trained.model["items"])}
        if "global_items" in trained.model:
            require_extra(NAME, "learn", "torch")
            from retract.systems.fedshare.graph import SharedGraph

            users, items = SharedGraph(trained.shared, _config_of(trained)).global_view(_nodes(trained))
            found["shared items"] = HistoryReader(items.numpy())
            found["sharers"] = DotProduct(users.numpy(), items.numpy())
        return found

    def nodes(self, trained: Trained) -> NDArray[np.float32]:
        """The server's own table E."""
        nodes: NDArray[np.float32] = trained.memory.tables["nodes"]
        return nodes

    def objective(self, shared: Interactions, *, seed: int, among: Interactions | None = None) -> Objective:
        """BPR on the shared graph, and L2; the contrast with Q is left out."""
        require_extra(NAME, "learn", "torch")
        from retract.systems.fedshare.graph import SharedGraph

        graph = SharedGraph(shared, self.config)
        mask = None if among is None else among.contains(shared)

        def loss(nodes: Tensor, step: int) -> Tensor:
            ranking = graph.ranking_loss(*graph.global_view(nodes), seed, step, mask)
            return ranking if among is not None else ranking + graph.penalty(nodes)

        return loss

    def with_nodes(self, trained: Trained, nodes: NDArray[np.float32], shared: Interactions) -> Trained:
        """Q as it was, E replaced."""
        require_extra(NAME, "learn", "torch")
        from retract.models.learn.arrays import as_tensor
        from retract.systems.fedshare.rounds import RoundServer, finish

        config, table = _config_of(trained), as_tensor(nodes)
        server = RoundServer(shared, table, config, trained.seed, trained.run, trained)
        return finish(server, shared, [table], config, trained.seed, trained.log)


def _config_of(trained: Trained) -> FedShareConfig:
    """The settings that a model was trained with."""
    require_same_system(NAME, trained)
    assert isinstance(trained.config, FedShareConfig)
    return trained.config


def _nodes(trained: Trained) -> Tensor:
    """The server's own table E, as a tensor."""
    from retract.models.learn.arrays import as_tensor

    return as_tensor(trained.memory.tables["nodes"])


def _forgotten(
    trained: Trained,
    retained: Interactions,
    forget: Interactions,
    config: FedShareConfig,
    seed: int,
    progress: Progress,
) -> Fitted:
    """E without the forget set, and the snapshots to forget by the next time."""
    from retract.systems.fedshare.graph import Fitted, fit, snapshots_in
    from retract.systems.fedshare.unlearning import ContrastiveUnlearning

    if config.unlearning == "refit" or not len(retained):
        return fit(retained, config, trained.seed, progress)
    before = _nodes(trained)
    snapshots = snapshots_in(trained.memory.tables) or [before]
    nodes = ContrastiveUnlearning(retained, forget, before, snapshots, config, seed).run(progress)
    return Fitted(nodes, [nodes])


def _continue(
    trained: Trained,
    nodes: Tensor,
    shared: Interactions,
    config: FedShareConfig,
    engine: Engine,
    rounds: int,
    seed: int,
    progress: Progress,
) -> RoundServer:
    """The server after more rounds from Q as trained, at the rate of unlearning.

    Where no device answers, the coverage falls as what is shared does: all else that users hold is where it was.
    """
    from retract.systems.fedshare.rounds import RoundServer, run_rounds

    quiet, first = config.model_copy(update={"item_rate": config.unlearn_item_rate}), _next_round(trained, config)
    server = RoundServer(shared, nodes, quiet, seed, trained.run, trained)
    run_rounds(server, engine, range(first, first + rounds), "unlearning", progress)
    if not server.answered:
        server.coverage *= len(shared) / max(len(trained.shared), 1)
    return server


def _next_round(trained: Trained, config: FedShareConfig) -> int:
    """The number of the next round: no device is asked for the same one twice, unless it is to do it again."""
    return config.rounds + sum(int(record.get("rounds", 0)) for record in trained.log)


def _start_anew(
    nodes: Tensor, shared: Interactions, config: FedShareConfig, engine: Engine, seed: int, progress: Progress
) -> RoundServer:
    """The server after `erase_rounds` rounds from nothing, which go as far as all rounds of training.

    Raises
    ------
    FederationError
        If no device answered in any of them.
    """
    from retract.systems.fedshare.rounds import RoundServer, require_answers, run_rounds

    times = config.rounds / config.erase_rounds
    rates = {"item_rate": config.item_rate * times, "client_rate": config.client_rate * times}
    server = RoundServer(shared, nodes, config.model_copy(update=rates), seed, new_run())
    return require_answers(run_rounds(server, engine, range(config.erase_rounds), "unlearning", progress))
