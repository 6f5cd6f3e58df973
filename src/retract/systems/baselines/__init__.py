"""What every system is compared with."""

from retract.systems.baselines.lightgcn import LightGCN, LightGCNConfig
from retract.systems.baselines.oracle import Naive, Retrain

__all__ = ["LightGCN", "LightGCNConfig", "Naive", "Retrain"]
