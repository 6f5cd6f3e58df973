"""FedShare: federated recommendation with user-chosen sharing, and contrastive unlearning."""

from retract.systems.fedshare.config import FedShareConfig
from retract.systems.fedshare.system import FedShare

__all__ = ["FedShare", "FedShareConfig"]
