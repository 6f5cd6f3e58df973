"""The wire: broadcasts, updates, and the engines that carry them."""

from retract.federation.contracts import (
    NOTHING_KEPT,
    Broadcast,
    ClientState,
    ClientTask,
    Cohort,
    DeviceStore,
    Engine,
    Kept,
    Reply,
    RoundResult,
    TaskMakers,
    TaskSpec,
    Traffic,
)
from retract.federation.local import LocalEngine, NoDevices
from retract.federation.participation import one_user_each, sample_clients
from retract.federation.updates import Arrays, TensorSpec, Update, UpdateSpec, payload_bytes

__all__ = [
    "NOTHING_KEPT",
    "Arrays",
    "Broadcast",
    "ClientState",
    "ClientTask",
    "Cohort",
    "DeviceStore",
    "Engine",
    "Kept",
    "LocalEngine",
    "NoDevices",
    "Reply",
    "RoundResult",
    "TaskMakers",
    "TaskSpec",
    "TensorSpec",
    "Traffic",
    "Update",
    "UpdateSpec",
    "one_user_each",
    "payload_bytes",
    "sample_clients",
]
