"""The settings of the example's system."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from retract.systems.base import SystemConfig


class PopularConfig(SystemConfig):
    """Settings of `popular`."""

    smoothing: Annotated[float, Field(ge=0, description="Added to every item's count.")] = 1.0
