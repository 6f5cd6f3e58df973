"""PersonalFR's histories, encoders and decoders, as training beside the data and all who read a model need them.

Many clients at once: what each of them reads, what its decoder is to say, and the steps that its own halves take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract import streams
from retract.errors import DataError
from retract.federation import Arrays, Cohort
from retract.models.learn.arrays import as_tensor
from retract.models.learn.autoencoder import Parameters, initial, squash, squash_back
from retract.models.learn.local_steps import SteppedInput, SteppedLayer, SteppedRows
from retract.models.learn.sparse import Pattern, row_sums, weighted_sum
from retract.models.negatives import sample_negatives
from retract.models.widths import ENCODER, Widths
from retract.systems.personalfr.config import PersonalFRConfig

NORMS = ("input.gain", "input.offset", "code.gain", "code.offset")
"""The encoder's parameters that normalise."""


def tensors(tables: Arrays) -> dict[str, Tensor]:
    """Tables as tensors, not to be written into."""
    return {name: as_tensor(table) for name, table in tables.items()}


@dataclass(frozen=True)
class Histories:
    """What some users did, as an encoder reads it: values at places, and what the decoder is to say there.

    Parameters
    ----------
    places
        The items, each user's own.
    values
        Ratings less the mean of all, or ones; float32, shape [len(places)].
    """

    places: Pattern
    values: Tensor

    @classmethod
    def of(cls, cohort: Cohort, explicit: bool, mean: float) -> Histories:
        """Of a cohort.

        Raises
        ------
        DataError
            If ratings are wanted and there are none.
        """
        places = Pattern(cohort.indptr, cohort.items, cohort.n_items)
        if not explicit:
            return cls(places, places.ones)
        if cohort.ratings is None and len(cohort.items):
            raise DataError("the model predicts ratings, and this history has none: give them")
        ratings = np.empty(0, dtype=np.float32) if cohort.ratings is None else cohort.ratings
        return cls(places, torch.from_numpy(ratings - np.float32(mean)))

    def read_by(self, encoder: Parameters, published: Parameters | None = None) -> Tensor:
        """What the first layer makes of them, shape [n, hidden]; with the decoder `published`, its last layer added."""
        weight = encoder["input.weight"]
        if published is not None:
            weight = weight + published["output.weight"]
        return weighted_sum(self.places, self.values, weight) + encoder["input.bias"]

    @property
    def reach(self) -> Tensor:
        """‖x‖² + 1, shape [n, 1]."""
        return (row_sums(self.places, self.values.square()) + 1)[:, None]


@dataclass(frozen=True)
class Wanted:
    """What the decoder of each client is to say: `values` at `places`, each item once."""

    places: Pattern
    values: Tensor
    explicit: bool

    @classmethod
    def of(cls, cohort: Cohort, histories: Histories, config: PersonalFRConfig, seed: int, round: int) -> Wanted:
        """The ratings; or ones, and zeros at as many untouched items."""
        if config.feedback == "explicit":
            return cls(histories.places, histories.values, explicit=True)
        drawn = sample_negatives(
            cohort.users,
            cohort.indptr,
            cohort.items,
            cohort.n_items,
            seed=seed,
            round=round,
            per_positive=config.negatives,
        )
        own = histories.places.rows.numpy() * cohort.n_items
        untouched = (own[:, None] + drawn)[drawn >= 0]
        keys = np.concatenate([own + cohort.items, np.unique(untouched)])
        order = np.argsort(keys, kind="stable")
        touched = torch.from_numpy((order < len(cohort.items)).astype(np.float32))
        rows, items = np.divmod(keys[order], cohort.n_items)
        indptr = np.searchsorted(rows, np.arange(len(cohort) + 1)).astype(np.int64)
        return cls(Pattern(indptr, items, cohort.n_items), touched, explicit=False)

    @property
    def sizes(self) -> Tensor:
        """Places per client, shape [n]."""
        return torch.from_numpy(np.diff(self.places.indptr))

    def gradient(self, said: Tensor) -> Tensor:
        """Of each client's mean loss, squared error or binary cross-entropy, shape [len(places)]."""
        grad = 2 * (said - self.values) if self.explicit else torch.sigmoid(said) - self.values
        return grad / self.sizes.clamp_min(1)[self.places.rows]


class Encoders:
    """The encoders of some clients, each at its own place, while they take steps of SGD.

    Parameters
    ----------
    histories
        What they read, the same in every step.
    start
        The common start, or the aggregated encoder: names as in `retract.models.autoencoder`.
    state
        Where each client stands instead, as `state` gives it; empty where all stand at the start.
    published
        The decoder, where encoders read it.
    """

    def __init__(
        self, histories: Histories, start: Parameters, state: Mapping[str, Tensor], published: Parameters | None = None
    ) -> None:
        n = len(histories.places.indptr) - 1
        moved = state.get("input.moved", torch.zeros(n, start["input.bias"].shape[0]))
        self.input = SteppedInput(histories.read_by(start, published), histories.reach, moved)
        self.code = SteppedLayer(
            state.get("code.weight", start["code.weight"]), state.get("code.bias", start["code.bias"])
        )
        self.norms = {name: state.get(name, start[name].expand(n, -1)) for name in NORMS}

    def codes(self) -> Tensor:
        """Shape [n, code]."""
        hidden = squash(self.input(), self.norms["input.gain"], self.norms["input.offset"]).value
        return squash(self.code(hidden), self.norms["code.gain"], self.norms["code.offset"]).value

    def state(self) -> dict[str, Tensor]:
        """Where they stand now."""
        weight, bias = self.code.now()
        return {"input.moved": self.input.moved, "code.weight": weight, "code.bias": bias, **self.norms}


class Decoders:
    """The decoders of some clients while they take steps of SGD from the same place; frozen, they take none."""

    def __init__(self, places: Pattern, start: Parameters) -> None:
        n = places.n_rows
        self.hidden = SteppedLayer(start["hidden.weight"], start["hidden.bias"])
        self.output = SteppedRows(places, start["output.weight"], start["output.bias"])
        self.norms = {name: start[name].expand(n, -1) for name in ("hidden.gain", "hidden.offset")}


class Rates(NamedTuple):
    """SGD rates of the two halves."""

    encoder: float
    decoder: float

    @classmethod
    def of(cls, config: PersonalFRConfig, part: float = 1.0) -> Rates:
        """Those of the settings, times a part."""
        return cls(config.rate * config.encoder_rate * part, config.rate * part)


def take_steps(
    encoders: Encoders,
    decoders: Decoders,
    wanted: Wanted,
    masks: list[Tensor],
    rates: Rates,
    clip: float,
    frozen: bool = False,
) -> None:
    """As many steps of SGD on each client's own loss as there are dropout masks, the gradient's norm clipped.

    Parameters
    ----------
    masks
        What each code is multiplied with, shape [n, code].
    frozen
        Whether the decoders stay as they are.
    """
    for mask in masks:
        first = squash(encoders.input(), encoders.norms["input.gain"], encoders.norms["input.offset"])
        code = squash(encoders.code(first.value), encoders.norms["code.gain"], encoders.norms["code.offset"])
        dropped = code.value * mask
        third = squash(decoders.hidden(dropped), decoders.norms["hidden.gain"], decoders.norms["hidden.offset"])
        at_output = wanted.gradient(decoders.output(third.value))

        at_hidden, *hidden_norm = squash_back(decoders.output.back(at_output), third)
        at_code, *code_norm = squash_back(decoders.hidden.back(at_hidden) * mask, code)
        at_input, *input_norm = squash_back(encoders.code.back(at_code), first)

        squared = _squared(at_input) * encoders.input.reach[:, 0] + _squared(at_code) * (_squared(first.value) + 1)
        squared += sum(map(_squared, (*code_norm, *input_norm)), torch.zeros(()))
        if not frozen:
            squared += _squared(at_hidden) * (_squared(dropped) + 1) + sum(map(_squared, hidden_norm), torch.zeros(()))
            squared += row_sums(wanted.places, at_output.square()) * (_squared(third.value) + 1)
        by = (rates.decoder * (clip / (squared.sqrt() + 1e-6)).clamp_max(1))[:, None]
        own = by * (rates.encoder / rates.decoder)

        encoders.input.step(own * at_input)
        encoders.code.step(first.value, own * at_code)
        for name, grad in zip(NORMS, (*input_norm, *code_norm), strict=True):
            encoders.norms[name] = encoders.norms[name] - own * grad
        if not frozen:
            decoders.hidden.step(dropped, by * at_hidden)
            decoders.output.step(third.value, by[wanted.places.rows, 0] * at_output)
            for name, grad in zip(("hidden.gain", "hidden.offset"), hidden_norm, strict=True):
                decoders.norms[name] = decoders.norms[name] - by * grad


def _squared(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=1)


@lru_cache(maxsize=2)
def common_start(n_items: int, widths: Widths, seed: int) -> Parameters:
    """The encoder that all clients start from: a function of the seed, so nobody sends it. Not to be written to."""
    return initial(ENCODER, n_items, widths, seed)


def dropout_masks(
    config: PersonalFRConfig, users: NDArray[np.int64], steps: int, seed: int, round: int
) -> list[Tensor]:
    """What each code is multiplied with in each step, keyed by user: 0, or 1 / (1 - dropout)."""
    if not config.dropout:
        return [torch.ones(len(users), config.code)] * steps
    counter = np.arange(steps * config.code)
    kept = streams.uniform(seed, round, users[:, None], "code dropout", counter) >= config.dropout
    scaled = torch.from_numpy(kept.astype(np.float32)) / (1 - config.dropout)
    return list(scaled.view(len(users), steps, config.code).unbind(dim=1))
