"""FedShare in the paper's form: a graph of what is shared, contrast both ways, and contrastive unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.federation import Engine
from retract.models.recommender import DotProduct, HistoryReader, Recommender
from retract.systems.abilities import Objective
from retract.systems.base import Checkpoint, Keep, Progress, Trained, Withdrawal, keep_nothing, new_run, no_progress
from retract.systems.checks import require_extra
from retract.systems.fedshare.config import NAME, FedShareConfig
from retract.systems.fedshare.coverage import Coverage
from retract.systems.fedshare.server import FedShareServer, more_rounds, quiet

if TYPE_CHECKING:
    from torch import Tensor

    from retract.systems.fedshare.graph import Fitted
    from retract.systems.fedshare.paper_rounds import AligningServer
    from retract.systems.fedshare.rounds import RoundServer


class PaperServer(FedShareServer):
    """Federated learning and unlearning with personalised data sharing (Qu et al., arXiv 2603.11610, 2026).

    The server fits a table E to the graph of what is shared, and reads Z from it through L layers of LightGCN; clients
    and server draw the federated table Q and the users' vectors towards Z by contrast. It forgets by contrast against
    snapshots of E (`ContrastiveUnlearning`); then Q and the clients' vectors follow it for a few rounds after
    "unshare", and start anew after "erase", for fewer rounds than in training and at higher rates.
    """

    def anew(
        self,
        shared: Interactions,
        config: FedShareConfig,
        engine: Engine,
        seed: int,
        resume_from: Checkpoint | None = None,
        keep: Keep = keep_nothing,
        progress: Progress = no_progress,
    ) -> Trained:
        """A training; errors as of `train`, which refuses what cannot be."""
        from retract.systems.fedshare.paper_rounds import PaperTraining

        return PaperTraining(shared, config, seed, resume_from, keep, progress).trained(engine)

    def forgotten(
        self,
        trained: Trained,
        config: FedShareConfig,
        retained: Interactions,
        withdrawal: Withdrawal,
        engine: Engine,
        seed: int,
        progress: Progress,
    ) -> tuple[Trained, int]:
        """E moved away from what is withdrawn, and then what the clients make together; and the rounds of that."""
        fitted = _without(trained, config, retained, withdrawal.forget, seed, progress)
        if withdrawal.kind == "erase":
            server = _start_anew(fitted, retained, config, engine, trained.seed, progress)
            return _finished(server, fitted, trained), config.erase_rounds
        rounds = config.unlearn_rounds if len(engine.users) else 0
        server = _server_of(trained, config, fitted, retained, seed)
        return _finished(more_rounds(server, trained, engine, rounds, progress), fitted, trained), rounds

    def continued(
        self,
        trained: Trained,
        config: FedShareConfig,
        shared: Interactions,
        engine: Engine,
        rounds: int,
        seed: int,
        progress: Progress,
    ) -> Trained:
        """As many more steps of E, and then the rounds."""
        from retract.systems.fedshare.graph import Fit, Fitted, SharedGraph

        nodes, steps = _nodes(trained), range(config.server_steps, config.server_steps + rounds)
        if len(shared):
            nodes = Fit(SharedGraph(shared, config), nodes, steps, seed).run(progress).nodes
        fitted = Fitted(nodes, [nodes])
        server = _server_of(trained, config, fitted, shared, seed)
        return _finished(more_rounds(server, trained, engine, rounds, progress), fitted, trained)

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """Q and Z read through a history, and the server's own rows of the sharers."""
        found = dict(super().views(trained))
        if "global_items" in trained.model:
            require_extra(NAME, "learn", "torch")
            from retract.systems.fedshare.graph import SharedGraph

            users, items = SharedGraph(trained.shared, self.config_of(trained)).global_view(_nodes(trained))
            found["shared items"] = HistoryReader(trained.model["global_items"])
            found["sharers"] = DotProduct(users.numpy(), items.numpy())
        return found

    def recommender(self, trained: Trained) -> Recommender:
        """Z read through what is shared; Q where nothing is, for that is all there is then."""
        self.config_of(trained)
        return HistoryReader(trained.model.get("global_items", trained.model["items"]))

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
        from retract.systems.fedshare.graph import Fitted

        fitted = Fitted(as_tensor(nodes), [as_tensor(nodes)])
        server = _server_of(trained, self.config_of(trained), fitted, shared, trained.seed)
        return replace(_finished(server, fitted, trained), log=trained.log)


def _nodes(trained: Trained) -> Tensor:
    """The server's own table E, as a tensor."""
    from retract.models.learn.arrays import as_tensor

    return as_tensor(trained.memory.tables["nodes"])


def _without(
    trained: Trained,
    config: FedShareConfig,
    retained: Interactions,
    forget: Interactions,
    seed: int,
    progress: Progress = no_progress,
) -> Fitted:
    """E without the forget set; it is the one snapshot to forget by the next time, for older ones know what is gone."""
    from retract.systems.fedshare.graph import Fitted, fit, snapshots_in
    from retract.systems.fedshare.unlearning import ContrastiveUnlearning

    if not len(retained):
        return fit(retained, config, trained.seed, progress)
    before = _nodes(trained)
    snapshots = snapshots_in(trained.memory.tables) or [before]
    nodes = ContrastiveUnlearning(retained, forget, before, snapshots, config, seed).run(progress)
    return Fitted(nodes, [nodes])


def _server_of(
    trained: Trained, config: FedShareConfig, fitted: Fitted, shared: Interactions, seed: int
) -> AligningServer:
    """The server where a model stands, for rounds that only follow."""
    from retract.models.learn.arrays import as_tensor
    from retract.systems.fedshare.paper_rounds import AligningServer

    coverage, items = Coverage.among(trained.memory.tables), as_tensor(trained.model["items"])
    return AligningServer(shared, items, quiet(config), seed, trained.run, coverage, fitted=fitted)


def _start_anew(
    fitted: Fitted, shared: Interactions, config: FedShareConfig, engine: Engine, seed: int, progress: Progress
) -> AligningServer:
    """The server after `erase_rounds` rounds from nothing, which go as far as all rounds of training.

    Raises
    ------
    FederationError
        If no device answered in any of them.
    """
    from retract.systems.fedshare.paper_rounds import AligningServer, random_items
    from retract.systems.fedshare.rounds import require_answers, run_rounds

    times = config.rounds / config.erase_rounds
    rates = {"item_rate": config.item_rate * times, "client_rate": config.client_rate * times}
    items, faster = random_items(shared.n_items, config, seed), config.model_copy(update=rates)
    server = AligningServer(shared, items, faster, seed, new_run(), fitted=fitted)
    run_rounds(server, engine, range(config.erase_rounds), "unlearning", progress)
    require_answers(server)
    return server


def _finished(server: RoundServer, fitted: Fitted, trained: Trained) -> Trained:
    """The model after a change, with the settings and the seed of its training; its log is the caller's."""
    from retract.systems.fedshare.paper_rounds import fitted_tables
    from retract.systems.fedshare.rounds import finish

    return replace(finish(server, (), {}, fitted_tables(fitted)), config=trained.config, seed=trained.seed)
