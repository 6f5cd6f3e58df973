"""The settings of FedShare, each with what it does, and what its clients are asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from retract.federation import TensorSpec, UpdateSpec
from retract.systems.base import SystemConfig

NAME = "fedshare"
EPOCH = "local epoch"
"""The one task of FedShare's devices."""
BETAS = (0.9, 0.99)
"""How slowly the moments of Adam follow, of the server's tables and of the clients' vectors alike."""


class FedShareConfig(SystemConfig):
    """Settings of FedShare; the defaults were tuned on a validation part of ML-1M's train fold."""

    dimension: Annotated[int, Field(ge=1, description="Size d of all embeddings.")] = 64
    layers: Annotated[
        int, Field(ge=0, description="Layers L by which E is propagated; its spectral start holds the high orders.")
    ] = 0
    rounds: Annotated[int, Field(ge=1, description="Rounds of communication.")] = 100
    participation: Annotated[float, Field(gt=0, le=1, description="Part of the clients in each round.")] = 1.0
    negatives: Annotated[int, Field(ge=1, description="Negatives per positive in a client's local epoch.")] = 1
    server_steps: Annotated[int, Field(ge=0, description="Server's steps on the shared graph, before the rounds.")] = 96
    server_part: Annotated[float, Field(gt=0, le=1, description="Part of the sharers in each of them.")] = 0.125
    item_rate: Annotated[float, Field(gt=0, description="Server's Adam rate for the federated item table Q.")] = 0.01
    server_rate: Annotated[float, Field(gt=0, description="Server's Adam rate for its own table E.")] = 0.01
    client_rate: Annotated[float, Field(gt=0, description="Each client's Adam rate for its user vector.")] = 0.01
    regularisation: Annotated[float, Field(ge=0, description="L2 on Q and on user vectors.")] = 0.05
    server_regularisation: Annotated[float, Field(ge=0, description="L2 on E.")] = 0.02
    activity_exponent: Annotated[
        float, Field(ge=0, le=1, description="A user with n interactions weighs n^-a per interaction.")
    ] = 0.5
    contrast: Annotated[float, Field(ge=0, description="Weight λ of the contrastive alignment.")] = 0.01
    temperature: Annotated[float, Field(gt=0, description="Temperature τ of the alignment's InfoNCE.")] = 0.2
    contrast_batch: Annotated[int, Field(ge=2, description="Items per InfoNCE batch on the server.")] = 1024
    mix: Annotated[float, Field(ge=0, le=1, description="Weight of the global view when all is shared.")] = 0.75
    mix_exponent: Annotated[
        float, Field(gt=0, description="The weight grows with the shared part of all interactions to this power.")
    ] = 1.1
    initial_scale: Annotated[float, Field(gt=0, description="Deviation of the initial table Q.")] = 0.1
    spectral_scale: Annotated[float, Field(gt=0, description="Deviation of E's spectral start.")] = 0.15
    unlearning: Annotated[
        Literal["refit", "contrast"],
        Field(
            description="How E forgets: refit makes it anew of what is retained; contrast is the paper's, which is "
            "compared with it."
        ),
    ] = "refit"
    unlearn_rounds: Annotated[int, Field(ge=1, description="Unshare: client rounds after E has forgotten.")] = 1
    unlearn_item_rate: Annotated[float, Field(gt=0, description="Unshare: server's Adam rate for Q.")] = 0.01
    erase_rounds: Annotated[
        int,
        Field(ge=1, description="Erase: rounds in which the clients learn anew, at rates that make up for it."),
    ] = 40
    snapshots: Annotated[int, Field(ge=1, description="Contrast: snapshots K of E that are kept for it.")] = 4
    unlearn_steps: Annotated[int, Field(ge=0, description="Contrast: steps on the server.")] = 12
    unlearn_rate: Annotated[float, Field(gt=0, description="Contrast: Adam rate of these steps.")] = 0.01
    unlearn_contrast: Annotated[float, Field(ge=0, description="Contrast: weight of the contrastive loss.")] = 0.3
    ascent: Annotated[float, Field(ge=0, description="Contrast: weight of the ascent on the forgotten edges.")] = 5.0
    stay_close: Annotated[float, Field(ge=0, description="Contrast: pull on nodes that R does not touch.")] = 1.0


def epoch_update(n_items: int, dimension: int) -> UpdateSpec:
    """What clients answer to `EPOCH`.

    Their gradients of Q, rows of the touched items only; Σ n^{1-a}, what these are divided by; and how many
    interactions they learned from.
    """
    return UpdateSpec(
        {
            "item_gradient": TensorSpec((n_items, dimension), layout="rows"),
            "weight": TensorSpec(()),
            "interactions": TensorSpec((), "int64"),
        }
    )
