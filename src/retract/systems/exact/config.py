"""The settings of Exact, each with what it does."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from retract.systems.base import SystemConfig

Form = Literal["ease", "filter"]


class ExactConfig(SystemConfig):
    """Settings of Exact; the defaults were tuned on a validation part of ML-1M's and Gowalla's train fold."""

    form: Annotated[
        Literal["auto", "ease", "filter"],
        Field(description="EASE (dense) or the graph filter (sparse); auto takes EASE where its memory suffices."),
    ] = "auto"
    memory_gb: Annotated[float, Field(gt=0, description="What auto lets EASE take, three matrices of items.")] = 2.0
    activity_exponent: Annotated[
        float | None,
        Field(ge=0, le=1, description="A user of n interactions weighs n^-α; unless given 0.5, filter 0.75."),
    ] = None
    ridge: Annotated[float, Field(gt=0, description="Regularisation λ of EASE.")] = 50.0
    source_exponent: Annotated[float, Field(ge=0, le=2, description="Filter: items seen weigh degree^-a.")] = 0.5
    target_exponent: Annotated[float, Field(ge=-1, le=1, description="Filter: items scored weigh degree^-b.")] = 0.3
    count_private: Annotated[
        bool, Field(description="Private interactions count too, through a sum over clients; EASE only.")
    ] = False
    drift: Annotated[
        float, Field(gt=0, le=1e-9, description="Estimated relative error of EASE's inverse that makes it anew.")
    ] = 1e-11

    def form_for(self, n_items: int) -> Form:
        """The form that a catalog of this size gets."""
        if self.form != "auto":
            return self.form
        return "ease" if self.memory_for(n_items) <= self.memory_gb else "filter"

    def exponent_for(self, form: Form) -> float:
        """α."""
        if self.activity_exponent is not None:
            return self.activity_exponent
        return 0.5 if form == "ease" else 0.75

    @staticmethod
    def memory_for(n_items: int) -> float:
        """Gigabytes that EASE takes while it is made."""
        return 3 * 8 * n_items**2 / 1e9
