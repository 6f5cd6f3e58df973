"""The settings of the baselines, each with what it does."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from retract.systems.backbone import BackboneConfig, GraphConfig
from retract.systems.base import SystemConfig


class LightGCNConfig(GraphConfig):
    """Settings of centralised LightGCN; the defaults were tuned on a validation part of ML-1M's train fold."""

    steps: Annotated[int, Field(ge=1, description="Full-batch steps: one pass over all edges each.")] = 400

    @property
    def backbone(self) -> BackboneConfig:
        """The same as the settings of a backbone."""
        return BackboneConfig(
            backbone="lightgcn", epochs=self.steps, **self.model_dump(include=set(GraphConfig.model_fields))
        )


class RecEraserConfig(LightGCNConfig):
    """Settings of RecEraser; those of LightGCN are those of every sub-model."""

    steps: Annotated[int, Field(ge=1, description="Full-batch steps of every sub-model.")] = 200
    shards: Annotated[int, Field(ge=1, description="Shards K of users.")] = 10
    partition_rounds: Annotated[int, Field(ge=1, description="Rounds of the balanced partition at most.")] = 20
    aggregation_steps: Annotated[int, Field(ge=0, description="Full-batch steps of the aggregation.")] = 100
    aggregation_rate: Annotated[float, Field(gt=0, description="Adam rate of the aggregation.")] = 0.01


class FineTuneConfig(SystemConfig):
    """Settings of fine-tuning."""

    rounds: Annotated[int, Field(ge=1, description="Rounds (steps, for a central system) on the retained data.")] = 20


class GradientAscentConfig(SystemConfig):
    """Settings of gradient ascent."""

    steps: Annotated[int, Field(ge=1, description="Steps of ascent on the forget set.")] = 5
    stride: Annotated[
        float, Field(gt=0, description="Length of a step, as a part of the norm of the forget set's own embeddings.")
    ] = 0.1
    rounds: Annotated[int, Field(ge=1, description="Rounds of fine-tuning on the retained data afterwards.")] = 30


class ScifConfig(SystemConfig):
    """Settings of SCIF."""

    neighbours: Annotated[
        float, Field(ge=0, le=1, description="Part of the forget set's neighbours that moves too, the most influenced.")
    ] = 0.5
    damping: Annotated[
        float, Field(gt=0, description="Added to the curvature, as a part of the curvature along the influence.")
    ] = 0.1
    reach: Annotated[
        float, Field(gt=0, description="Length of the step at most, as a part of the norm of the selected embeddings.")
    ] = 0.1
    iterations: Annotated[int, Field(ge=1, description="Iterations of conjugate gradients at most.")] = 20
    draws: Annotated[int, Field(ge=1, description="Draws of negatives that gradients are averaged over.")] = 4
