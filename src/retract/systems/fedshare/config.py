"""The settings of FedShare, each with what it does."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from retract.systems.base import SystemConfig


class FedShareConfig(SystemConfig):
    """Settings of FedShare; the defaults were tuned on a validation part of ML-1M's train fold."""

    dimension: Annotated[int, Field(ge=1, description="Size d of all embeddings.")] = 64
    layers: Annotated[int, Field(ge=0, description="Layers L of the server's graph.")] = 3
    rounds: Annotated[int, Field(ge=1, description="Rounds of communication.")] = 100
    participation: Annotated[float, Field(gt=0, le=1, description="Part of the clients in each round.")] = 1.0
    negatives: Annotated[int, Field(ge=1, description="Negatives per positive in a client's local epoch.")] = 1
    server_steps: Annotated[int, Field(ge=0, description="Steps on the shared graph per round.")] = 2
    item_rate: Annotated[float, Field(gt=0, description="Server's Adam rate for the federated item table Q.")] = 0.01
    server_rate: Annotated[float, Field(gt=0, description="Server's Adam rate for its own table E.")] = 0.02
    client_rate: Annotated[float, Field(gt=0, description="Each client's Adam rate for its user vector.")] = 0.01
    regularisation: Annotated[float, Field(ge=0, description="L2 on Q and on user vectors.")] = 0.05
    server_regularisation: Annotated[float, Field(ge=0, description="L2 on E.")] = 0.02
    activity_exponent: Annotated[
        float, Field(ge=0, le=1, description="A user with n interactions weighs n^-a per interaction.")
    ] = 0.5
    contrast: Annotated[float, Field(ge=0, description="Weight λ of the contrastive alignment.")] = 0.01
    temperature: Annotated[float, Field(gt=0, description="Temperature τ of the alignment's InfoNCE.")] = 0.2
    contrast_batch: Annotated[int, Field(ge=2, description="Items per InfoNCE batch on the server.")] = 1024
    mix: Annotated[float, Field(ge=0, le=1, description="Weight of the global view when all is shared.")] = 0.65
    mix_exponent: Annotated[
        float, Field(gt=0, description="The weight grows with the shared part of all interactions to this power.")
    ] = 0.75
    initial_scale: Annotated[float, Field(gt=0, description="Deviation of the initial tables.")] = 0.1
    snapshots: Annotated[int, Field(ge=1, description="Snapshots K of (Q, E) kept for unlearning.")] = 4
    unlearn_steps: Annotated[int, Field(ge=0, description="Contrastive unlearning steps on the server.")] = 12
    unlearn_rounds: Annotated[int, Field(ge=1, description="Client rounds after the unlearning steps.")] = 3
    unlearn_rate: Annotated[float, Field(gt=0, description="Adam rate of the unlearning steps.")] = 0.01
    unlearn_contrast: Annotated[float, Field(ge=0, description="Weight of the contrastive unlearning loss.")] = 0.3
    ascent: Annotated[float, Field(ge=0, description="Weight of the ascent on the forgotten edges.")] = 5.0
    unlearn_item_rate: Annotated[float, Field(gt=0, description="Server's Adam rate for Q in unlearning.")] = 0.003
    stay_close: Annotated[float, Field(ge=0, description="Weight of the pull on nodes that R does not touch.")] = 1.0
