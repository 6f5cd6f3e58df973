"""What every system is compared with."""

from retract.systems.baselines.ascent import GradientAscent, GradientAscentConfig
from retract.systems.baselines.finetune import FineTune, FineTuneConfig
from retract.systems.baselines.lightgcn import LightGCN, LightGCNConfig
from retract.systems.baselines.methods import METHODS, make_method, method_names
from retract.systems.baselines.oracle import Naive, Retrain

__all__ = [
    "METHODS",
    "FineTune",
    "FineTuneConfig",
    "GradientAscent",
    "GradientAscentConfig",
    "LightGCN",
    "LightGCNConfig",
    "Naive",
    "Retrain",
    "make_method",
    "method_names",
]
