"""FRU beside the user's data: the wrapped system's device, and a journal of its own updates."""

from __future__ import annotations

from collections.abc import Mapping

from retract.federation import ClientTask, Kept, TaskMakers, TaskSpec
from retract.models.recommender import Recommender
from retract.systems.base import DeviceSide, Published
from retract.systems.baselines.fru_config import LOGGED, RECORDING
from retract.systems.checks import require_extra


class FruDevice:
    """The wrapped system's device, which also keeps a journal (a `DeviceSide`)."""

    def __init__(self, device: DeviceSide) -> None:
        self.device = device

    @property
    def tasks(self) -> TaskMakers:
        """The system's, and the two of the journal."""
        return {**self.device.tasks, RECORDING: _recording_epoch, LOGGED: _logged_sum}

    def reader(self, model: Published, kept: Kept) -> Recommender:
        """The system's."""
        return self.device.reader(model, kept)

    def views(self, model: Published, kept: Kept) -> Mapping[str, Recommender]:
        """The system's."""
        return self.device.views(model, kept)


def _recording_epoch(spec: TaskSpec) -> ClientTask:
    """It takes gradients, so it is loaded when it is asked for."""
    require_extra("fru", "learn", "torch")
    from retract.systems.baselines.fru_tasks import RecordingEpoch

    return RecordingEpoch(spec)


def _logged_sum(spec: TaskSpec) -> ClientTask:
    """It stands beside the other, in a room that takes gradients."""
    require_extra("fru", "learn", "torch")
    from retract.systems.baselines.fru_tasks import LoggedSum

    return LoggedSum(spec)
