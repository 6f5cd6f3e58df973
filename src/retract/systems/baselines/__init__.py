"""What every system is compared with."""

from retract.systems.baselines.ascent import GradientAscent, GradientAscentConfig
from retract.systems.baselines.finetune import FineTune, FineTuneConfig
from retract.systems.baselines.fru import Fru, FruConfig
from retract.systems.baselines.lightgcn import LightGCN, LightGCNConfig
from retract.systems.baselines.methods import METHODS, make_method, method_names
from retract.systems.baselines.oracle import Naive, Retrain
from retract.systems.baselines.receraser import RecEraser, RecEraserConfig
from retract.systems.baselines.scif import Scif, ScifConfig

__all__ = [
    "METHODS",
    "FineTune",
    "FineTuneConfig",
    "Fru",
    "FruConfig",
    "GradientAscent",
    "GradientAscentConfig",
    "LightGCN",
    "LightGCNConfig",
    "Naive",
    "RecEraser",
    "RecEraserConfig",
    "Retrain",
    "Scif",
    "ScifConfig",
    "make_method",
    "method_names",
]
