"""The settings of the common start, and what clients are asked for in its rounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from retract.federation import TensorSpec, UpdateSpec
from retract.systems.base import SystemConfig

PROJECTION = "projection"
"""The task of the start's rounds."""


class SpectralConfig(SystemConfig):
    """Base of the settings of systems that start from the clients' leading subspace."""

    dimension: Annotated[int, Field(ge=1, description="Size d of all embeddings.")] = 96
    participation: Annotated[float, Field(gt=0, le=1, description="Part of the clients in each round.")] = 1.0
    start_rounds: Annotated[int, Field(ge=1, description="Spectral: rounds of subspace iteration before.")] = 8
    oversampling: Annotated[int, Field(ge=0, description="Spectral: columns of the subspace beyond d.")] = 16
    degree_prior: Annotated[
        float, Field(ge=0, description="Spectral: τ, added to all degrees before they are divided by.")
    ] = 20.0
    noise: Annotated[
        float,
        Field(ge=0, description="Spectral: what stands out less than so many times the noise is dropped."),
    ] = 1.1


def projection_update(n_items: int, width: int) -> UpdateSpec:
    """What clients answer to `PROJECTION`: x_u ω_u (x_uᵀ C), x_u and x_u ω_u, rows of their own items only."""
    return UpdateSpec(
        {
            "projection": TensorSpec((n_items, width), layout="rows", group="items"),
            "degrees": TensorSpec((n_items,), "int32", layout="rows", group="items"),
            "weights": TensorSpec((n_items,), layout="rows", group="items"),
        }
    )
