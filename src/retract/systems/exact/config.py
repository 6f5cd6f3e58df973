"""The settings of Exact, each with what it does."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from retract.data import Interactions
from retract.errors import ConfigError
from retract.federation import TensorSpec, UpdateSpec
from retract.machine import available_memory
from retract.models.gram import UNIT
from retract.models.subspace import dimension_for
from retract.systems.base import SystemConfig
from retract.threads import threads

TERM = "term"
"""The one task of Exact's devices."""
Form = Literal["ease", "filter", "spectral"]
OVERSAMPLING, NOISE, SPECTRUM = 16, 1.1, 0.5
"""Of the subspace: columns beyond d; what stands out less than so many times the noise is dropped; columns go with
their singular values to this power. Tuned with PersonalFR's on validation parts."""
NEIGHBOURS, BYTES_A_SUM, LARGEST_GRAM = 128, 12, 1e9
"""How many sums of each item are kept where the whole Gram matrix might take more bytes than the last."""
PRODUCTS, FACTORS = 3e9, 40e9
"""Sparse and dense multiplications a second on one thread, by which `ExactConfig.seconds_for` estimates."""


class ExactConfig(SystemConfig):
    """Settings of Exact, tuned on validation parts of the train folds of MovieLens and Gowalla."""

    form: Annotated[
        Literal["auto", "ease", "filter", "spectral"],
        Field(
            description="spectral: users folded into the leading subspace, with the graph filter beside it; the filter "
            "alone (sparse); or EASE (dense). Auto takes the filter where it is as good or spectral is slow."
        ),
    ] = "auto"
    slow_seconds: Annotated[
        float, Field(gt=0, description="Auto: seconds beyond which the spectral form is slow, by estimate.")
    ] = 60.0
    wait_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="Spectral: where it takes longer to make anew, by estimate, a withdrawal has the filter served "
            "alone meanwhile.",
        ),
    ] = 1.0

    dimension: Annotated[
        int, Field(ge=0, description="Spectral: size d of all embeddings; 0 for what the data bear.")
    ] = 0
    steps: Annotated[int, Field(ge=1, description="Spectral: steps of subspace iteration.")] = 8
    degree_prior: Annotated[
        float, Field(ge=0, description="Spectral: τ, added to all degrees before they are divided by.")
    ] = 20.0
    unobserved: Annotated[
        float, Field(ge=0, description="Spectral: weight of what is untouched, when a user is folded in.")
    ] = 0.8
    fold_ridge: Annotated[
        float, Field(gt=0, description="Spectral: regularisation of a user; grows with the root of what it did.")
    ] = 1.2
    popularity: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Spectral: an item of degree D is read at D^-this, and scored at D^this; found on a part "
            "held out unless given.",
        ),
    ] = None
    blend: Annotated[
        float | None,
        Field(ge=0, description="Spectral: weight of the filter beside it; found likewise."),
    ] = None

    filter_prior: Annotated[
        float, Field(ge=0, description="Filter: τ, added to all degrees before they are divided by.")
    ] = 5.0
    filter_beta: Annotated[
        float | None,
        Field(ge=0, le=1, description="Filter: β of x D^-β R̃ᵀR̃ D^β; found on a part held out unless given."),
    ] = None

    neighbours: Annotated[
        int | None,
        Field(
            ge=0,
            description="Filter: how many of each item's sums with others are kept, the largest; 0 for all. Unless "
            "given all, or 128 where all might take more than 1 GB.",
        ),
    ] = None

    ease_exponent: Annotated[
        float, Field(ge=0, le=1, description="In EASE's sums a user of n interactions weighs n^-α.")
    ] = 0.5
    ridge: Annotated[float, Field(gt=0, description="Regularisation λ of EASE.")] = 50.0
    count_private: Annotated[
        bool, Field(description="Private interactions count too, through a sum over clients; EASE only.")
    ] = False
    drift: Annotated[
        float, Field(gt=0, le=1e-9, description="Estimated relative error of EASE's inverse that makes it anew.")
    ] = 1e-11

    @model_validator(mode="after")
    def _counts_private_by_ease(self) -> ExactConfig:
        if self.count_private and self.form not in ("auto", "ease"):
            raise ConfigError(f"count_private sums dense matrices, for EASE alone: set form=ease, not {self.form}")
        return self

    def seconds_for(self, shared: Interactions) -> float:
        """About how long the spectral form takes to make, on all threads."""
        width = self.dimension_for(shared) + OVERSAMPLING
        products, factors = 2 * len(shared) * width, 3 * shared.n_items * width**2
        return self.steps * (products / PRODUCTS + factors / FACTORS) / threads()

    def neighbours_for(self, shared: Interactions) -> int:
        """How many of each item's sums are kept, 0 for all."""
        if self.neighbours is not None:
            return self.neighbours
        pairs = min(int((shared.user_degrees().astype(np.float64) ** 2).sum()), shared.n_items**2)
        return NEIGHBOURS if BYTES_A_SUM * pairs > LARGEST_GRAM else 0

    def dimension_for(self, shared: Interactions) -> int:
        """D."""
        return self.dimension or dimension_for(shared.item_degrees(), len(shared.active_users()))


def require_memory(n_items: int) -> None:
    """Refuse EASE where the machine has no room for it, before anything of it is allocated.

    Raises
    ------
    ConfigError
        If three matrices of items by items are more than what is free; the message names forms that fit.
    """
    need, room = 24 * n_items**2, available_memory()
    if room is not None and need > room:
        raise ConfigError(
            f"EASE of {n_items:,} items takes {need / 1e9:.3g} GB while it is made, and {room / 1e9:.3g} GB are free: "
            "take form=spectral or form=filter, which make no such table"
        )


def term_update(n_items: int) -> UpdateSpec:
    """What clients answer to `TERM`: the sum of their terms of the Gram matrix, in whole multiples of `UNIT`."""
    return UpdateSpec({"gram": TensorSpec((n_items, n_items), "float64", layout="triangle", unit=UNIT)})
