"""The settings of UnlearnRec, each with what it does."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from retract.systems.backbone import BACKBONE_DEFAULTS, BackboneConfig

ENCODER_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"calibrated": {}, "paper": {"pretrain_rate": 0.001, "unlearn_weight": 0.1}}
)
"""Where an encoder's defaults differ: much weight on unlearning costs the paper's form its accuracy."""
UNLEARNING_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {**BACKBONE_DEFAULTS, "simgcl": {**BACKBONE_DEFAULTS["simgcl"], "pull_back": True, "clear_margin": 0.25}}
)
"""Those of the backbone. SimGCL's final embeddings lack layer 0, and the widest of its margins would decide a mean."""


class UnlearnRecConfig(BackboneConfig):
    """Settings of UnlearnRec: those of its backbone, of the influence encoder's pre-training, and of a request."""

    encoder: Annotated[
        Literal["calibrated", "paper"],
        Field(
            description="Calibrated: a closed-form guess, corrected and held against a model that never knew a part "
            "of the data. Paper: the influence dependency matrix, and forgotten edges pushed to a score of zero."
        ),
    ] = "calibrated"
    pretrain_steps: Annotated[int, Field(ge=1, description="Steps of the encoder's pre-training.")] = 60
    pretrain_rate: Annotated[float, Field(gt=0, description="Adam rate of pre-training.")] = 0.03
    withheld: Annotated[
        float,
        Field(gt=0, lt=1, description="Calibrated: part of most users' edges that the model held against lacks."),
    ] = 0.06
    forget_sets: Annotated[int, Field(ge=1, description="Calibrated: forget sets drawn from what was withheld.")] = 4
    hops: Annotated[int, Field(ge=0, description="Paper: layers over the retained graph.")] = 2
    unlearn_weight: Annotated[float, Field(ge=0, description="Weight of the unlearning loss.")] = 10.0
    pull_back: Annotated[
        bool, Field(description="Calibrated: the closed form tells what final embeddings change by, not initial ones.")
    ] = False
    clear_margin: Annotated[
        float,
        Field(
            ge=0,
            description="Calibrated: margins count by their tanh, in units of this part of their size; 0 as they are.",
        ),
    ] = 0.0
    preserve_weight: Annotated[float, Field(ge=0, description="Weight of the preservation loss.")] = 0.1
    contrast_drop: Annotated[
        float, Field(ge=0, lt=1, description="Forgotten edges left out to see that the encoder hardly minds.")
    ] = 0.1
    robust_weight: Annotated[float, Field(ge=0, description="Weight of the robustness loss.")] = 0.01
    finetune_steps: Annotated[
        int, Field(ge=0, description="Steps on the feed-forward layers at a request; 0 for a forward pass alone.")
    ] = 0
    finetune_rate: Annotated[float, Field(gt=0, description="Adam rate of these steps.")] = 0.001
    finetune_seconds: Annotated[
        float, Field(gt=0, description="No further such step begins after so many seconds of them.")
    ] = 60.0

    defaults_by: ClassVar = {"backbone": UNLEARNING_DEFAULTS, "encoder": ENCODER_DEFAULTS}
