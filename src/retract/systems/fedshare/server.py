"""FedShare's server: train, unlearn and go on training. It sees no private interaction.

What takes gradients is imported where it is called, so that a server which only reads a model needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from retract.data import Interactions
from retract.errors import FederationError
from retract.federation import Engine
from retract.models.item_matrix import ItemToItem
from retract.models.recommender import HistoryReader, Recommender
from retract.systems.abilities import Learnt
from retract.systems.base import (
    Checkpoint,
    Keep,
    Kind,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    keep_nothing,
    no_progress,
    require_same_system,
)
from retract.systems.checks import (
    require_extra,
    require_one_user_each,
    require_own_checkpoint,
    require_same_form,
    require_several,
)
from retract.systems.fedshare.config import NAME, VIEW, FedShareConfig
from retract.systems.fedshare.coverage import Coverage
from retract.systems.fedshare.view import view_tables

if TYPE_CHECKING:
    from retract.systems.fedshare.rounds import RoundServer


def half_of(config: FedShareConfig) -> FedShareServer:
    """The server's half of the form that is set."""
    if config.paper:
        from retract.systems.fedshare.paper import PaperServer

        return PaperServer(config)
    return FedShareServer(config)


class FedShareServer:
    """Federated recommendation with user-chosen sharing (after Qu et al., arXiv 2603.11610, 2026).

    The clients find Q's start together (`Subspace`) and learn from there in a few rounds; nothing that is shared enters
    Q. Of what is shared the server makes a view (`view_tables`), which devices mix with their own. Both are ours; the
    paper's form is `PaperServer`.

    Parameters
    ----------
    config
        Settings.
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
        """Learn in rounds of the clients, from nothing, and make the view of what is shared.

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
        require_several(NAME, engine)
        require_one_user_each(NAME, engine)
        if resume_from is not None:
            require_own_checkpoint(resume_from, NAME, self.config, seed)
        return self.anew(shared, self.config, engine, seed, resume_from, keep, progress)

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
        from retract.systems.fedshare.rounds import Training

        return Training(shared, config, seed, resume_from, keep, progress).trained(engine)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Forget, as the oracle would have it, bit for bit.

        After "unshare" the clients hold what they held, and Q is a function of that alone: only the view of what is
        shared is made anew, by nobody but the server. After "erase" all is trained anew on what is left, with the seed
        that it was trained with; training is short.

        Raises
        ------
        ConfigError
            If the model is of another system, or in another form than this half.
        FederationError
            If an erasure reaches no device; nothing is changed then.
        """
        require_extra(NAME, "learn", "torch")
        config, watch = self.config_of(trained), Stopwatch()
        if withdrawal.kind == "erase" and not len(engine.users):
            raise FederationError(
                f"{NAME} learns anew with its devices to erase, and none with an interaction can be reached from here: "
                "nothing was changed; run this where they are"
            )
        retained = trained.shared - withdrawal.forget
        after, rounds = self.forgotten(trained, config, retained, withdrawal, engine, seed, progress)
        record = {"stage": "unlearn", "request": withdrawal.request_id, "rounds": rounds}
        record |= {"seconds": round(watch.seconds, 4)}
        return replace(after, log=(*trained.log, record))

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
        """The model without what is withdrawn, and the rounds of local epochs that took."""
        if withdrawal.kind == "erase":
            after = self.anew(retained, config, engine, trained.seed, progress=progress)
            return after, config.start_rounds + config.rounds
        progress("view of what is shared", 0, 1)
        coverage = np.asarray(Coverage.among(trained.memory.tables).of(retained), dtype=np.float32)
        model = {"items": trained.model["items"], "coverage": coverage, **view_tables(retained, config)}
        progress("view of what is shared", 1, 1)
        return replace(trained, model=model, shared=retained), 0

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
        """More rounds from Q as it stands, at a lower rate: another would jolt it.

        Raises
        ------
        FederationError
            If no device can be reached.
        """
        require_extra(NAME, "learn", "torch")
        config, watch = self.config_of(trained), Stopwatch()
        if not len(engine.users):
            raise FederationError(f"{NAME} learns with its devices, and none can be reached from here")
        after = self.continued(trained, config, shared, engine, rounds, seed, progress)
        record = {"stage": "continue", "rounds": rounds, "seconds": round(watch.seconds, 4)}
        return replace(after, config=config, seed=trained.seed, log=(*trained.log, record))

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
        """The model after more rounds."""
        from retract.models.learn.arrays import as_tensor
        from retract.systems.fedshare.rounds import RoundServer, finish

        coverage, items = Coverage.among(trained.memory.tables), as_tensor(trained.model["items"])
        server = RoundServer(shared, items, quiet(config), seed, trained.run, coverage)
        return finish(more_rounds(server, trained, engine, rounds, progress), (), view_tables(shared, config))

    def learnt(self, kind: Kind) -> Learnt:
        """All that is held; what is unshared was learnt on the server."""
        return "everything" if kind == "erase" else "shared"

    def recommender(self, trained: Trained) -> Recommender:
        """What is made of S, read through what is shared; Q where nothing is, for that is all there is then."""
        views = self.views(trained)
        return views.get("shared items", views["items"])

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """Q and the view, read through a history."""
        require_same_system(NAME, trained)
        found: dict[str, Recommender] = {"items": HistoryReader(trained.model["items"])}
        if (view := ItemToItem.among(trained.model, VIEW)) is not None:
            found["shared items"] = view
        return found

    def config_of(self, trained: Trained) -> FedShareConfig:
        """The settings that a model was trained with; errors as of `unlearn`."""
        require_same_system(NAME, trained)
        config = trained.config
        assert isinstance(config, FedShareConfig)
        require_same_form(config.form, self.config.form)
        return config


def quiet(config: FedShareConfig) -> FedShareConfig:
    """The settings for rounds that only follow."""
    return config.model_copy(update={"item_rate": config.unlearn_item_rate})


def more_rounds(server: RoundServer, trained: Trained, engine: Engine, rounds: int, progress: Progress) -> RoundServer:
    """The server after more rounds, under numbers that no device was asked for in this run before."""
    from retract.systems.fedshare.rounds import run_rounds

    first = server.config.first_epoch + server.config.rounds
    first += sum(int(record.get("rounds", 0)) for record in trained.log)
    return run_rounds(server, engine, range(first, first + rounds), "unlearning", progress)
