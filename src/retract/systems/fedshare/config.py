"""The settings of FedShare, each with what it does, and what its clients are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from retract.federation import TensorSpec, UpdateSpec
from retract.systems.spectral.config import SpectralConfig

NAME = "fedshare"
EPOCH = "local epoch"
"""FedShare's own task of its devices; the start has another."""
VIEW, SNAPSHOT = "view", "snapshot."
"""What the names of arrays begin with: of the published view, and of snapshots in a memory or a checkpoint."""
BETAS = (0.9, 0.99)
"""How slowly the moments of Adam follow, of the server's tables and of the clients' vectors alike."""
PAPER: Mapping[str, Any] = {
    "dimension": 64,
    "rounds": 100,
    "mix": 0.75,
    "mix_exponent": 1.1,
    "own_exponent": 0.0,
    "short_history": 0.0,
}


class FedShareConfig(SpectralConfig):
    """Settings of FedShare; the defaults were tuned on validation parts of the train folds."""

    defaults_by: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {"form": {"paper": PAPER}}

    form: Annotated[
        Literal["spectral", "paper"],
        Field(
            description="spectral: a start found by the clients together, and a closed form of what is shared; paper: "
            "the server's graph, contrast both ways, and contrastive unlearning."
        ),
    ] = "spectral"
    rounds: Annotated[int, Field(ge=1, description="Rounds of local epochs.")] = 6
    negatives: Annotated[int, Field(ge=1, description="Negatives per positive in a client's local epoch.")] = 1
    item_rate: Annotated[float, Field(gt=0, description="Server's Adam rate for the federated item table Q.")] = 0.01
    client_rate: Annotated[float, Field(gt=0, description="Each client's Adam rate for its user vector.")] = 0.01
    regularisation: Annotated[float, Field(ge=0, description="L2 on Q and on user vectors.")] = 0.05
    activity_exponent: Annotated[
        float, Field(ge=0, le=1, description="A user with n interactions weighs n^-a per interaction.")
    ] = 0.5
    initial_scale: Annotated[float, Field(gt=0, description="Deviation of Q's start; a tenth of it: vectors'.")] = 0.1
    mix: Annotated[float, Field(ge=0, le=1, description="Weight of the global view when all is shared.")] = 0.3
    mix_exponent: Annotated[
        float, Field(ge=0, description="The weight grows with the shared part of all interactions to this power.")
    ] = 0.6
    own_exponent: Annotated[
        float, Field(ge=0, description="It grows with the part that the user shares to this power.")
    ] = 0.2
    short_history: Annotated[
        float, Field(ge=0, description="It grows with the user's n interactions as n / (n + this).")
    ] = 10.0

    start_scale: Annotated[float, Field(gt=0, description="Spectral: deviation of Q's leading columns.")] = 0.2
    ease_exponent: Annotated[
        float, Field(ge=0, le=1, description="Spectral: in the view a sharer of n interactions weighs n^-α.")
    ] = 0.5
    ridge: Annotated[float, Field(gt=0, description="Spectral: regularisation λ of the view.")] = 50.0
    view_mb: Annotated[float, Field(gt=0, description="Spectral: size of the view that clients get.")] = 4.0
    view_items: Annotated[
        int, Field(ge=1, description="Spectral: the most shared items, which the view is made of.")
    ] = 4_000

    layers: Annotated[int, Field(ge=0, description="Paper: layers L by which E is propagated.")] = 2
    server_steps: Annotated[int, Field(ge=0, description="Paper: server's steps on the shared graph, before.")] = 96
    server_part: Annotated[float, Field(gt=0, le=1, description="Paper: part of the sharers in each of them.")] = 0.125
    server_rate: Annotated[float, Field(gt=0, description="Paper: server's Adam rate for its own table E.")] = 0.01
    server_regularisation: Annotated[float, Field(ge=0, description="Paper: L2 on E.")] = 0.02
    spectral_scale: Annotated[float, Field(gt=0, description="Paper: deviation of E's spectral start.")] = 0.15
    contrast: Annotated[float, Field(ge=0, description="Paper: weight λ of the contrastive alignment.")] = 0.01
    temperature: Annotated[float, Field(gt=0, description="Paper: temperature τ of the alignment's InfoNCE.")] = 0.2
    contrast_batch: Annotated[int, Field(ge=2, description="Paper: items per InfoNCE batch on the server.")] = 1024
    unlearn_rounds: Annotated[int, Field(ge=1, description="Paper: client rounds after E has forgotten.")] = 1
    unlearn_item_rate: Annotated[float, Field(gt=0, description="Rate for Q when training goes on.")] = 0.01
    erase_rounds: Annotated[
        int,
        Field(ge=1, description="Paper: rounds in which clients learn anew, at rates that make up for it."),
    ] = 40
    snapshots: Annotated[int, Field(ge=1, description="Paper: snapshots K of E that are kept to forget by.")] = 4
    unlearn_steps: Annotated[int, Field(ge=0, description="Paper: steps of unlearning on the server.")] = 15
    unlearn_rate: Annotated[float, Field(gt=0, description="Paper: Adam rate of these steps.")] = 0.01
    unlearn_contrast: Annotated[float, Field(ge=0, description="Paper: weight of their contrastive loss.")] = 0.3
    ascent: Annotated[float, Field(ge=0, description="Paper: weight of the ascent on the forgotten edges.")] = 5.0
    stay_close: Annotated[float, Field(ge=0, description="Paper: pull on nodes that R does not touch.")] = 1.0

    @property
    def paper(self) -> bool:
        """Whether it is the paper's form."""
        return self.form == "paper"

    @property
    def first_epoch(self) -> int:
        """The number of the first round of local epochs: those of the start come before."""
        return 0 if self.paper else self.start_rounds


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
