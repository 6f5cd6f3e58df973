"""UnlearnRec's server: train a backbone, prepare to forget, forget in one forward pass, recommend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import DataError
from retract.federation import Arrays, Engine
from retract.models.nodes import node_degrees
from retract.models.recommender import HistoryReader, Recommender
from retract.systems.abilities import Objective
from retract.systems.base import (
    Checkpoint,
    Keep,
    Memory,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    keep_nothing,
    no_progress,
    require_same_system,
)
from retract.systems.central import begun, recommender_of
from retract.systems.checks import require_extra, require_shared
from retract.systems.unlearnrec.config import UnlearnRecConfig
from retract.systems.unlearnrec.memory import NODES, with_encoder

NAME = "unlearnrec"


class UnlearnRecServer:
    """Pre-training for recommendation unlearning (UnlearnRec; Chen, Xia, Huang, arXiv 2505.22649, 2025).

    A graph recommender is trained as ever, an influence encoder is pre-trained on it once, and a request is a forward
    pass of the encoder. All that is shared lies on the server; devices only read.

    Parameters
    ----------
    config
        Settings.
    """

    def __init__(self, config: UnlearnRecConfig) -> None:
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
        """Train the backbone; without an encoder it can recommend, but not forget.

        Raises
        ------
        DataError
            If nothing is shared.
        """
        require_extra(NAME, "learn", "torch")
        require_shared(NAME, shared, engine)
        return self.fitted(self.config, shared, begun(NAME, self.config, seed, resume_from), keep, progress)

    def prepare(self, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Pre-train the influence encoder.

        The calibrated one needs a twin: the same backbone, trained with the same seed without a part of the data. How
        the model and its twin see that part is what the encoder learns from; then the twin is dropped.

        Raises
        ------
        DataError
            If too little is shared to withhold a part of it from a twin.
        """
        require_extra(NAME, "learn", "torch")
        from retract.systems.unlearnrec import forgetting

        config, twin = _config_of(trained), None
        if config.encoder == "calibrated":
            kept = forgetting.kept_from_a_twin(trained.shared, config, seed)
            start = begun(NAME, config, trained.seed, None)
            twin = self.fitted(config, kept, start, keep_nothing, _as_twin(progress))
        encoder, log = forgetting.pretrained(config, trained, twin, seed, progress)
        return with_encoder(replace(trained, log=(*trained.log, *log)), encoder)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """One forward pass, and `finetune_steps` on the feed-forward layers if asked for.

        The next request begins with what this one left, so that requests add up; what the model was before is kept
        nowhere. Nodes that lose their last edge are zeroed, and their users get what is popular.

        Raises
        ------
        ConfigError
            If the model has no encoder, or one that was pre-trained for another model.
        DataError
            If something is to be forgotten that is not in the graph.
        """
        require_extra(NAME, "learn", "torch")
        from retract.systems.unlearnrec import forgetting

        watch, config, forget = Stopwatch(), _config_of(trained), withdrawal.forget
        encoder = forgetting.encoder_of(config, trained.memory.tables)
        _require_known(forget, trained.shared)
        retained = trained.shared - forget
        nodes, steps = forgetting.passed(config, trained, encoder, forget, seed, progress)
        record = {
            "stage": "unlearn",
            "request": withdrawal.request_id,
            "finetune_steps": steps,
            "isolated_users": len(np.setdiff1d(forget.users, retained.users)),
            "isolated_items": len(np.setdiff1d(forget.items, retained.items)),
            "seconds": round(watch.seconds, 4),
        }
        after = self.with_nodes(trained, nodes, retained)
        return with_encoder(replace(after, log=(*trained.log, record)), encoder)

    def recommender(self, trained: Trained) -> Recommender:
        """Inner products of the final embeddings; what is popular, for users without a shared interaction."""
        return recommender_of(trained.model)

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """The final embeddings, the items read through a history, and the initial embeddings."""
        nodes, n_users = self.nodes(trained), trained.shared.n_users
        return {
            "embeddings": recommender_of(trained.model),
            "items": HistoryReader(trained.model["items"]),
            "initial": recommender_of({**trained.model, "users": nodes[:n_users], "items": nodes[n_users:]}),
        }

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
        """More epochs, at a lower rate; the encoder is of another model then, and goes."""
        require_extra(NAME, "learn", "torch")
        from retract.systems import backbone_training

        config = _config_of(trained)
        nodes, log = backbone_training.go_on(config, shared, self.nodes(trained), rounds, seed=seed, progress=progress)
        further = self.with_nodes(trained, nodes, shared)
        return replace(further, log=(*trained.log, *log))

    def nodes(self, trained: Trained) -> NDArray[np.float32]:
        """The initial embeddings, shape [n_nodes, d]."""
        return trained.memory.tables[NODES]

    def objective(self, shared: Interactions, *, seed: int, among: Interactions | None = None) -> Objective:
        """The backbone's loss on the graph of `shared`."""
        require_extra(NAME, "learn", "torch")
        from retract.systems import backbone_training

        return backbone_training.objective(self.config, shared, seed=seed, among=among)

    def with_nodes(self, trained: Trained, nodes: NDArray[np.float32], shared: Interactions) -> Trained:
        """The model that `nodes` give over the graph of `shared`, without an encoder."""
        return _trained(nodes, _config_of(trained), shared, trained.seed, trained.run, trained.log)

    def fitted(
        self, config: UnlearnRecConfig, shared: Interactions, start: Checkpoint, keep: Keep, progress: Progress
    ) -> Trained:
        """The backbone trained on `shared` from where `start` stands: a model, or its twin."""
        from retract.systems import backbone_training

        nodes, log = backbone_training.learn(config, shared, start, keep=keep, progress=progress)
        return _trained(nodes, config, shared, start.seed, start.run, log)


def _config_of(trained: Trained) -> UnlearnRecConfig:
    """The settings that a model was trained with."""
    require_same_system(NAME, trained)
    assert isinstance(trained.config, UnlearnRecConfig)
    return trained.config


def _require_known(forget: Interactions, shared: Interactions) -> None:
    """Refuse to forget what the model never had."""
    unknown = forget - shared
    if len(unknown):
        pair = f"user {forget.catalog.user_ids[unknown.users[0]]}, item {forget.catalog.item_ids[unknown.items[0]]}"
        raise DataError(f"{len(unknown):,} of {len(forget):,} edges to forget are not in the graph, such as {pair}")


def _trained(
    nodes: NDArray[np.float32],
    config: UnlearnRecConfig,
    shared: Interactions,
    seed: int,
    run: str,
    log: tuple[Mapping[str, Any], ...],
) -> Trained:
    """A model without an encoder; nodes without an edge are zero.

    What is popular is published too, so that who reads the model needs no interactions for it.
    """
    from retract.systems import backbone_training

    nodes = np.where(node_degrees(shared)[:, None] > 0, nodes, np.float32(0))
    model: Arrays = {**backbone_training.tables(config, shared, nodes), "popularity": shared.item_degrees()}
    return Trained(NAME, config, seed, run, model, Memory({NODES: nodes}), shared, log)


def _as_twin(progress: Progress) -> Progress:
    """Progress of a training that is not the model's own."""
    return lambda stage, done, total: progress(f"{stage} a twin", done, total)
