"""FedShare: federated recommendation with user-chosen sharing, and contrastive unlearning."""

from retract.systems.fedshare.config import FedShareConfig
from retract.systems.system import SystemType

FEDSHARE = SystemType(
    "fedshare",
    FedShareConfig,
    "retract.systems.fedshare.server:half_of",
    "retract.systems.fedshare.client:FedShareDevice",
    extra="learn",
    share=None,
)

__all__ = ["FEDSHARE", "FedShareConfig"]
