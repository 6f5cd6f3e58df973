"""The settings of backbones and of their training: for every system that stands on one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from retract.errors import ConfigError
from retract.systems.base import SystemConfig

BackboneName = Literal["lightgcn", "sgl", "simgcl"]

BACKBONE_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "lightgcn": {},
        "sgl": {
            "layers": 2,
            "rate": 0.05,
            "regularisation": 0.004,
            "epochs": 300,
            "contrast_weight": 0.01,
            "edge_dropout": 0.5,
        },
        "simgcl": {"layers": 2, "rate": 0.1, "regularisation": 0.0005, "contrast_weight": 0.15},
    }
)
"""Where a backbone's defaults differ from those of `BackboneConfig`, which are LightGCN's.

Tuned in full batch on a tenth of ML-1M's train fold, of every user held out at random, within two and a half minutes on
one thread; two layers, for they are cheaper. A contrast bears a higher rate than ranking alone. What they reach there:
`python -m benchmarks.backbones validation`.
"""


class GraphConfig(SystemConfig):
    """Settings of every graph recommender."""

    dimension: Annotated[int, Field(ge=1, description="Size d of the embeddings.")] = 64
    layers: Annotated[int, Field(ge=0, description="Layers L.")] = 3
    rate: Annotated[float, Field(gt=0, description="Adam rate.")] = 0.03
    regularisation: Annotated[float, Field(ge=0, description="L2 per node.")] = 0.002
    activity_exponent: Annotated[
        float, Field(ge=0, le=1, description="A user with n interactions weighs n^-a per interaction.")
    ] = 0.5
    initial_scale: Annotated[float, Field(gt=0, description="Deviation of the initial embeddings.")] = 0.1


class BackboneConfig(GraphConfig):
    """Settings of a backbone and of its training; what is not given is the backbone's own default.

    The defaults were tuned in full batch on a validation part of ML-1M's train fold: see `BACKBONE_DEFAULTS`.
    """

    backbone: Annotated[BackboneName, Field(description="Which one.")] = "lightgcn"
    epochs: Annotated[int, Field(ge=1, description="Passes over all edges; in full batch, a step each.")] = 400
    batch: Annotated[int, Field(ge=0, description="Edges per step; 0 for all of them (full batch).")] = 0
    contrast_weight: Annotated[float, Field(ge=0, description="Weight of the contrast of SGL and SimGCL.")] = 0.1
    temperature: Annotated[float, Field(gt=0, description="Temperature of the contrast.")] = 0.2
    contrasted: Annotated[int, Field(ge=1, description="Edges whose users and items a step contrasts, at most.")] = 2048
    edge_dropout: Annotated[float, Field(ge=0, lt=1, description="Edges that each view of SGL lacks.")] = 0.1
    noise: Annotated[float, Field(ge=0, description="Length of SimGCL's noise per layer.")] = 0.1

    defaults_by: ClassVar = {"backbone": BACKBONE_DEFAULTS}

    @model_validator(mode="after")
    def _simgcl_has_layers(self) -> BackboneConfig:
        if self.backbone == "simgcl" and not self.layers:
            raise ConfigError("layers is 0: simgcl is the mean of the layers 1 to L; set at least 1")
        return self
