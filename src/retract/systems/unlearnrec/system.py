"""UnlearnRec as a system: train a backbone, prepare to forget, forget in one forward pass, recommend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retract.data import Interactions
from retract.errors import ConfigError, DataError
from retract.federation import Clients, Engine
from retract.models.graph import BipartiteGraph, node_degrees
from retract.models.lightgcn import DotProduct
from retract.models.recommender import HistoryReader, OrPopular, Recommender
from retract.systems import backbone
from retract.systems.base import (
    Memory,
    Objective,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    no_progress,
    require_shared,
)
from retract.systems.unlearnrec.config import UnlearnRecConfig
from retract.systems.unlearnrec.encoder import Encoder, Removal, make_encoder
from retract.systems.unlearnrec.pretraining import (
    Example,
    Schedule,
    any_part,
    calibrated,
    fit_encoder,
    part_of,
    pushed_down,
    withheld,
)

_ENCODER = "encoder."
_MADE_FOR = "made_for"


class UnlearnRec:
    """Pre-training for recommendation unlearning (UnlearnRec; Chen, Xia, Huang, arXiv 2505.22649, 2025).

    A graph recommender is trained as ever, an influence encoder is pre-trained on it once, and a request is a forward
    pass of the encoder. All that is shared lies on the server; there are no clients.

    Parameters
    ----------
    config
        Settings.
    """

    name = "unlearnrec"

    def __init__(self, config: UnlearnRecConfig | None = None) -> None:
        self.config = config if config is not None else UnlearnRecConfig()

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Train the backbone; without an encoder it can recommend, but not forget.

        Raises
        ------
        DataError
            If nothing is shared.
        """
        require_shared(self.name, shared, engine)
        nodes, log = backbone.learn(self.config, shared, seed=seed, progress=progress)
        return self._trained(nodes, shared, seed, log)

    def prepare(self, trained: Trained, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Pre-train the influence encoder.

        The calibrated one needs a twin: the same backbone, trained with the same seed without a part of the data. How
        the model and its twin see that part is what the encoder learns from; then the twin is dropped.
        """
        encoder = make_encoder(self.config, trained.shared.n_users + trained.shared.n_items, seed)
        paper = self.config.encoder == "paper"
        example = self._as_in_paper(trained, seed) if paper else self._against_twin(trained, engine, seed, progress)
        schedule = Schedule("pre-training", self.config.pretrain_steps, self.config.pretrain_rate, seed)
        log = fit_encoder(self.config, encoder, encoder.pretrained(), example, schedule, progress)
        tensors = {_ENCODER + name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
        return _with_encoder(replace(trained, log=(*trained.log, *log)), tensors)

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
        watch, tensors, forget = Stopwatch(), self._encoder_of(trained), withdrawal.forget
        unknown = forget - trained.shared
        if len(unknown):
            pair = f"user {forget.catalog.user_ids[unknown.users[0]]}, item {forget.catalog.item_ids[unknown.items[0]]}"
            raise DataError(f"{len(unknown):,} of {len(forget):,} edges to forget are not in the graph, such as {pair}")
        retained = trained.shared - forget
        nodes, steps = self._passed(trained, tensors, forget, retained, seed, progress)
        record = {
            "stage": "unlearn",
            "request": withdrawal.request_id,
            "finetune_steps": steps,
            "isolated_users": len(np.setdiff1d(forget.users, retained.users)),
            "isolated_items": len(np.setdiff1d(forget.items, retained.items)),
            "seconds": round(watch.seconds, 4),
        }
        after = self._trained(nodes, retained, trained.seed, [*trained.log, record])
        return _with_encoder(replace(after, config=trained.config), tensors)

    def recommender(self, trained: Trained, clients: Clients) -> Recommender:
        """Inner products of the final embeddings; what is popular, for users without a shared interaction."""
        return _or_popular(trained.model["users"], trained.model["items"], trained.shared)

    def views(self, trained: Trained, clients: Clients | None) -> Mapping[str, Recommender]:
        """The final embeddings, the items read through a history, and the initial embeddings."""
        nodes, n_users = self.nodes(trained), trained.shared.n_users
        return {
            "embeddings": _or_popular(trained.model["users"], trained.model["items"], trained.shared),
            "items": HistoryReader(trained.model["items"]),
            "initial": _or_popular(nodes[:n_users], nodes[n_users:], trained.shared),
        }

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
        """More epochs, at a lower rate; the encoder is of another model then, and goes."""
        nodes, log = backbone.go_on(self.config, shared, self.nodes(trained), rounds, seed=seed, progress=progress)
        return self._trained(nodes, shared, trained.seed, [*trained.log, *log])

    def nodes(self, trained: Trained) -> Tensor:
        """The initial embeddings, shape [n_nodes, d]."""
        return trained.memory.tensors["nodes"]

    def objective(self, shared: Interactions, *, seed: int, among: Interactions | None = None) -> Objective:
        """The backbone's loss on the graph of `shared`."""
        return backbone.objective(self.config, shared, seed=seed, among=among)

    def with_nodes(self, trained: Trained, nodes: Tensor, shared: Interactions) -> Trained:
        """The final embeddings that `nodes` give over the graph of `shared`."""
        return self._trained(nodes, shared, trained.seed, trained.log)

    def _against_twin(
        self, trained: Trained, engine: Engine, seed: int, progress: Progress
    ) -> Callable[[int], Example]:
        """Forget sets out of what a twin of the model was trained without."""
        shared, nodes = trained.shared, self.nodes(trained)
        gone = withheld(shared, self.config.withheld, seed)
        kept = shared - gone
        if not len(kept) or not len(gone):
            raise DataError(
                f"{len(shared):,} shared interactions are too few to withhold a part of them from a twin: share more, "
                "or take the encoder that needs none (--set encoder=paper)"
            )
        twin = self.train(kept, engine, seed=trained.seed, progress=_as_twin(progress))
        twins = self.nodes(twin), torch.cat([twin.model["users"], twin.model["items"]])

        @cache
        def example(number: int) -> Example:
            forget = part_of(gone, number, seed)
            return calibrated(self._removal(shared, forget, nodes), shared, twins, kept, seed)

        return lambda step: example(step % self.config.forget_sets)

    def _as_in_paper(self, trained: Trained, seed: int) -> Callable[[int], Example]:
        """A fresh forget set for every step."""
        shared, nodes = trained.shared, self.nodes(trained)

        def example(step: int) -> Example:
            removal = self._removal(shared, any_part(shared, step, seed), nodes)
            return pushed_down(removal, self.config.contrast_drop, seed)

        return example

    def _removal(self, shared: Interactions, forget: Interactions, nodes: Tensor) -> Removal:
        return Removal(BipartiteGraph(shared - forget), forget, nodes, self.config)

    def _passed(
        self,
        trained: Trained,
        tensors: Mapping[str, Tensor],
        forget: Interactions,
        retained: Interactions,
        seed: int,
        progress: Progress,
    ) -> tuple[Tensor, int]:
        """The initial embeddings that a forward pass gives, and how many steps of fine-tuning went before it."""
        nodes, steps = self.nodes(trained), 0
        if not len(forget):
            return nodes, steps
        encoder = make_encoder(self.config, len(nodes), seed)
        encoder.load_state_dict({name.removeprefix(_ENCODER): tensor for name, tensor in tensors.items()})
        removal = Removal(BipartiteGraph(retained), forget, nodes, self.config)
        if self.config.finetune_steps and len(retained):
            steps = self._fine_tune(encoder, removal, trained.shared, seed, progress)
        with torch.no_grad():
            return removal.applied(encoder), steps

    def _fine_tune(
        self,
        encoder: Encoder,
        removal: Removal,
        held: Interactions,
        seed: int,
        progress: Progress,
    ) -> int:
        """A few steps on the feed-forward layers, and how many there were.

        They mend the fit to what is retained, while the forgotten stay where the forward pass has put them.
        """
        with torch.no_grad():
            passed = removal.applied(encoder)
            forward = passed, removal.backbone.final(removal.graph, passed)
        example = calibrated(removal, held, forward, removal.graph.interactions, seed)
        config = self.config
        schedule = Schedule("fine-tuning", config.finetune_steps, config.finetune_rate, seed, config.finetune_seconds)
        layers = encoder.feed_forward.parameters()
        return len(fit_encoder(config, encoder, layers, lambda _: example, schedule, progress))

    def _encoder_of(self, trained: Trained) -> dict[str, Tensor]:
        """The tensors of the encoder that belongs to this model."""
        tensors = {name: tensor for name, tensor in trained.memory.tensors.items() if name.startswith(_ENCODER)}
        if not tensors:
            raise ConfigError(
                "this model has no influence encoder: it was trained, but not prepared for forgetting; "
                "prepare it, as `retract train` does"
            )
        expected = make_encoder(self.config, len(self.nodes(trained)), 0).state_dict()
        shapes = {name.removeprefix(_ENCODER): tensor.shape for name, tensor in tensors.items()}
        made_for = trained.memory.tensors.get(_MADE_FOR)
        if shapes != {name: tensor.shape for name, tensor in expected.items()} or made_for != _mark(
            self.nodes(trained)
        ):
            raise ConfigError("the influence encoder was pre-trained for another model: train this one again")
        return tensors

    def _trained(self, nodes: Tensor, shared: Interactions, seed: int, log: Sequence[Mapping[str, Any]]) -> Trained:
        """A model without an encoder; nodes without an edge are zero."""
        nodes = torch.where(torch.from_numpy(node_degrees(shared) > 0)[:, None], nodes, torch.zeros_like(nodes))
        model = backbone.tables(self.config, shared, nodes)
        return Trained(self.name, self.config, seed, model, Memory({"nodes": nodes}), shared, tuple(log))


def _with_encoder(trained: Trained, tensors: Mapping[str, Tensor]) -> Trained:
    """The model, with an encoder marked as made for it."""
    nodes = trained.memory.tensors["nodes"]
    return replace(trained, memory=Memory({"nodes": nodes, **tensors, _MADE_FOR: _mark(nodes)}))


def _mark(nodes: Tensor) -> Tensor:
    """What tells a model from another, int64, shape [1]."""
    digest = hashlib.blake2b(nodes.contiguous().numpy().tobytes(), digest_size=8).digest()
    return torch.tensor([int.from_bytes(digest, "little", signed=True)])


def _as_twin(progress: Progress) -> Progress:
    """Progress of a training that is not the model's own."""
    return lambda stage, done, total: progress(f"{stage} a twin", done, total)


def _or_popular(users: Tensor, items: Tensor, shared: Interactions) -> Recommender:
    """Inner products; what is popular, for users of whom nothing is shared."""
    return OrPopular(DotProduct(users, items), shared.user_degrees() > 0, shared.item_degrees())
