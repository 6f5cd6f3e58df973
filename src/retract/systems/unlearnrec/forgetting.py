"""Pre-training an influence encoder for a model, and its forward pass for a request. Tables come and go as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import ConfigError, DataError
from retract.federation import Arrays
from retract.models.learn.arrays import as_tensor
from retract.models.learn.graph import BipartiteGraph
from retract.systems.base import Progress, Trained
from retract.systems.unlearnrec.config import UnlearnRecConfig
from retract.systems.unlearnrec.encoder import Encoder, Removal, make_encoder
from retract.systems.unlearnrec.memory import ENCODER, NODES, encoder_in, is_marked
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

Log = tuple[Mapping[str, Any], ...]


def kept_from_a_twin(shared: Interactions, config: UnlearnRecConfig, seed: int) -> Interactions:
    """What a twin of the model is trained on.

    Raises
    ------
    DataError
        If too little is shared to withhold a part of it.
    """
    gone = withheld(shared, config.withheld, seed)
    kept = shared - gone
    if not len(kept) or not len(gone):
        raise DataError(
            f"{len(shared):,} shared interactions are too few to withhold a part of them from a twin: share more, "
            "or take the encoder that needs none (--set encoder=paper)"
        )
    return kept


def pretrained(
    config: UnlearnRecConfig, trained: Trained, twin: Trained | None, seed: int, progress: Progress
) -> tuple[dict[str, NDArray[Any]], Log]:
    """An encoder for a model: its weights by their names in the memory, and a record per step.

    Parameters
    ----------
    twin
        The same model, trained without a part of the data; None for the paper's encoder, which needs none.
    """
    nodes = trained.memory.tables[NODES]
    encoder = make_encoder(config, len(nodes), seed)
    example = _as_in_paper(config, trained, seed) if twin is None else _against_twin(config, trained, twin, seed)
    schedule = Schedule("pre-training", config.pretrain_steps, config.pretrain_rate, seed)
    log = fit_encoder(config, encoder, encoder.pretrained(), example, schedule, progress)
    return {ENCODER + name: tensor.numpy() for name, tensor in encoder.state_dict().items()}, tuple(log)


def encoder_of(config: UnlearnRecConfig, memory: Arrays) -> dict[str, NDArray[Any]]:
    """The weights of the encoder that belongs to a model, by their names in its memory.

    Raises
    ------
    ConfigError
        If there is none, or one that was made for another model.
    """
    weights = encoder_in(memory)
    if not weights:
        raise ConfigError(
            "this model has no influence encoder: it was trained, but not prepared for forgetting; "
            "prepare it, as `retract train` does"
        )
    expected = make_encoder(config, len(memory[NODES]), 0).state_dict()
    shapes = {name.removeprefix(ENCODER): table.shape for name, table in weights.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in expected.items()} or not is_marked(memory):
        raise ConfigError("the influence encoder was pre-trained for another model: train this one again")
    return weights


def passed(
    config: UnlearnRecConfig,
    trained: Trained,
    weights: Arrays,
    forget: Interactions,
    seed: int,
    progress: Progress,
) -> tuple[NDArray[np.float32], int]:
    """The initial embeddings that a forward pass gives, and how many steps of fine-tuning went before it.

    Parameters
    ----------
    weights
        The encoder's, by their names in the memory.
    """
    nodes, steps = trained.memory.tables[NODES], 0
    if not len(forget):
        return nodes, steps
    encoder = make_encoder(config, len(nodes), seed)
    encoder.load_state_dict({name.removeprefix(ENCODER): as_tensor(table) for name, table in weights.items()})
    removal = _removal(config, trained, forget)
    if config.finetune_steps and len(removal.graph.interactions):
        steps = _fine_tune(config, encoder, removal, trained.shared, seed, progress)
    with torch.no_grad():
        found: NDArray[np.float32] = removal.applied(encoder).numpy()
    return found, steps


def _fine_tune(
    config: UnlearnRecConfig,
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
        found = removal.applied(encoder)
        forward = found, removal.backbone.final(removal.graph, found)
    example = calibrated(removal, held, forward, removal.graph.interactions, seed)
    schedule = Schedule("fine-tuning", config.finetune_steps, config.finetune_rate, seed, config.finetune_seconds)
    layers = encoder.feed_forward.parameters()
    return len(fit_encoder(config, encoder, layers, lambda _: example, schedule, progress))


def _against_twin(config: UnlearnRecConfig, trained: Trained, twin: Trained, seed: int) -> Callable[[int], Example]:
    """Forget sets out of what a twin of the model was trained without."""
    shared, kept = trained.shared, twin.shared
    gone = shared - kept
    final = np.concatenate([twin.model["users"], twin.model["items"]])
    tables = as_tensor(twin.memory.tables[NODES]), as_tensor(final)

    @cache
    def example(number: int) -> Example:
        removal = _removal(config, trained, part_of(gone, number, seed))
        return calibrated(removal, shared, tables, kept, seed)

    return lambda step: example(step % config.forget_sets)


def _as_in_paper(config: UnlearnRecConfig, trained: Trained, seed: int) -> Callable[[int], Example]:
    """A fresh forget set for every step."""

    def example(step: int) -> Example:
        removal = _removal(config, trained, any_part(trained.shared, step, seed))
        return pushed_down(removal, config.contrast_drop, seed)

    return example


def _removal(config: UnlearnRecConfig, trained: Trained, forget: Interactions) -> Removal:
    graph = BipartiteGraph(trained.shared - forget)
    return Removal(graph, forget, as_tensor(trained.memory.tables[NODES]), config)
