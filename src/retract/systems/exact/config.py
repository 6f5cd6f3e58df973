"""The settings of Exact, each with what it does."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from retract.errors import ConfigError
from retract.federation import TensorSpec, UpdateSpec
from retract.machine import available_memory
from retract.models.gram import UNIT
from retract.systems.base import SystemConfig

TERM = "term"
"""The one task of Exact's devices."""
Form = Literal["ease", "filter", "block"]


class ExactConfig(SystemConfig):
    """Settings of Exact.

    EASE's were tuned on a validation part of ML-1M's train fold; the filter's are those of its paper.
    """

    form: Annotated[
        Literal["auto", "ease", "filter", "block"],
        Field(
            description="EASE (dense), the graph filter (sparse), or block: EASE on the most frequent items and the "
            "filter on all. Auto takes EASE where its memory suffices, else the filter."
        ),
    ] = "auto"
    memory_gb: Annotated[float, Field(gt=0, description="What EASE may take while it is made, in GB.")] = 2.0
    ease_exponent: Annotated[
        float, Field(ge=0, le=1, description="In EASE's sums a user of n interactions weighs n^-α.")
    ] = 0.5
    ridge: Annotated[float, Field(gt=0, description="Regularisation λ of EASE.")] = 50.0
    filter_exponent: Annotated[
        float, Field(ge=0, le=1, description="In the filter's sums a user of n interactions weighs n^-α.")
    ] = 1.0
    source_exponent: Annotated[float, Field(ge=0, le=2, description="Filter: items seen weigh degree^-a.")] = 1.0
    target_exponent: Annotated[float, Field(ge=-1, le=1, description="Filter: items scored weigh degree^-b.")] = 0.0
    head: Annotated[
        int | None, Field(ge=1, description="Items that EASE covers in block form; as many as memory_gb allows.")
    ] = None
    blend: Annotated[float, Field(ge=0, description="Weight of the filter beside EASE in block form.")] = 3.0
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

    def head_for(self, n_items: int) -> int:
        """How many items EASE covers in block form."""
        affordable = math.isqrt(int(self.memory_gb * 1e9 / 24))
        return max(1, min(n_items, affordable if self.head is None else self.head))

    @staticmethod
    def memory_for(n_items: int) -> float:
        """Gigabytes that EASE takes while it is made: three matrices of items by items."""
        return 24 * n_items**2 / 1e9

    def require_memory(self, n_items: int) -> None:
        """Refuse, before anything of it is allocated, a dense inverse for which the machine has no room.

        Where the machine does not tell what it has free, it is `memory_gb`.

        Raises
        ------
        ConfigError
            If there is no room; the message names the form that fits.
        """
        form = self.form_for(n_items)
        dense = {"ease": n_items, "block": self.head_for(n_items), "filter": 0}[form]
        found = available_memory()
        room = self.memory_gb if found is None else found / 1e9
        if (need := self.memory_for(dense)) > room:
            head = max(1, math.isqrt(int(room * 1e9 / 24)))
            raise ConfigError(
                f"EASE of {dense:,} items takes {need:.3g} GB while it is made, and {room:.3g} GB are free: "
                f"take form=filter, which makes no such table, or form=block with head={head} at most"
            )


def term_update(n_items: int) -> UpdateSpec:
    """What clients answer to `TERM`: the sum of their terms of the Gram matrix, in whole multiples of `UNIT`."""
    return UpdateSpec({"gram": TensorSpec((n_items, n_items), "float64", layout="triangle", unit=UNIT)})
