"""The wire: broadcasts, updates, and the engines that carry them."""

from retract.federation.contracts import (
    Broadcast,
    ClientState,
    ClientTask,
    Cohort,
    Engine,
    Reply,
    Traffic,
    Update,
)
from retract.federation.local import Clients, LocalEngine
from retract.federation.participation import one_user_each, sample_clients

__all__ = [
    "Broadcast",
    "ClientState",
    "ClientTask",
    "Clients",
    "Cohort",
    "Engine",
    "LocalEngine",
    "Reply",
    "Traffic",
    "Update",
    "one_user_each",
    "sample_clients",
]
