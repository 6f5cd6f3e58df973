"""FRU's settings, and what its clients are asked for beyond the wrapped system's own tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from retract.federation import TaskSpec, TensorSpec, UpdateSpec
from retract.systems.base import SystemConfig, task_spec

RECORDING = "recording epoch"
"""A local epoch in which a client also writes its own update to its own journal."""
LOGGED = "logged sum"
"""The sum of what clients wrote in a round."""


class FruConfig(SystemConfig):
    """Settings of FRU; with the defaults the log of ML-1M takes less than 2 GB."""

    kept: Annotated[
        float, Field(gt=0, le=1, description="Part of a client's item updates of a round that it logs, the largest.")
    ] = 0.1
    interval: Annotated[int, Field(ge=1, description="Every how many rounds a round is logged, and replayed.")] = 2


def recording_spec(epoch: TaskSpec, kept: float) -> TaskSpec:
    """The task that does what `epoch` does and records: it also answers the sum of what is logged, and its bytes."""
    asked = {**epoch.update.tensors, **_of_the_log(epoch.update.tensors["item_gradient"].shape)}
    settings = {"kept": kept, "epoch": epoch.settings}
    return replace(epoch, task=RECORDING, settings=settings, update=UpdateSpec(asked))


def epoch_spec(recording: TaskSpec) -> TaskSpec:
    """The epoch within a recording one, the other way round; its task is the caller's to know."""
    log = _of_the_log(recording.update.tensors["item_gradient"].shape)
    asked = {name: tensor for name, tensor in recording.update.tensors.items() if name not in log}
    return replace(recording, settings=recording.settings["epoch"], update=UpdateSpec(asked))


def logged_spec(config: SystemConfig, system: str, run: str, round: int, shape: tuple[int, ...]) -> TaskSpec:
    """The task that sums what clients wrote in a round; `shape` is that of the item table."""
    return task_spec(config, system, LOGGED, run, UpdateSpec(_of_the_log(shape)), journal=round)


def _of_the_log(shape: tuple[int, ...]) -> dict[str, TensorSpec]:
    """The sum of the logged rows, and the bytes that they take on the devices."""
    return {"logged": TensorSpec(shape, layout="rows"), "journal_bytes": TensorSpec((), "int64")}


def journal_row(dimension: int) -> int:
    """Bytes of a logged row in a journal: client and item (int32 each), and the update (float32)."""
    return 8 + 4 * dimension


def sent_row(dimension: int) -> int:
    """Bytes of a row in a client's message: its number (int32) and its values (float32)."""
    return 4 + 4 * dimension
