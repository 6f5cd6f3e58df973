"""What every system is compared with: two central recommenders, and the methods of unlearning."""

from retract.systems.baselines.config import (
    FineTuneConfig,
    GradientAscentConfig,
    LightGCNConfig,
    RecEraserConfig,
    ScifConfig,
)
from retract.systems.baselines.fru_config import FruConfig
from retract.systems.system import MethodType, SystemType

_ROOM = "retract.systems.baselines"
_DEVICE = "retract.systems.central:CentralDevice"

LIGHTGCN = SystemType("lightgcn", LightGCNConfig, f"{_ROOM}.lightgcn:LightGCNServer", _DEVICE, extra="learn")
RECERASER = SystemType("receraser", RecEraserConfig, f"{_ROOM}.receraser:RecEraserServer", _DEVICE, extra="learn")

OWN = MethodType("own", f"{_ROOM}.oracle:own")
RETRAIN = MethodType("retrain", f"{_ROOM}.oracle:Retrain")
NAIVE = MethodType("naive", f"{_ROOM}.oracle:Naive")
FINETUNE = MethodType("finetune", f"{_ROOM}.finetune:FineTune", FineTuneConfig)
ASCENT = MethodType("ascent", f"{_ROOM}.ascent:GradientAscent", GradientAscentConfig, extra="learn")
FRU = MethodType(
    "fru", f"{_ROOM}.fru:Fru", FruConfig, device_half=f"{_ROOM}.fru_client:FruDevice", trains=True, extra="learn"
)
SCIF = MethodType("scif", f"{_ROOM}.scif:Scif", ScifConfig, extra="learn")

__all__ = [
    "ASCENT",
    "FINETUNE",
    "FRU",
    "LIGHTGCN",
    "NAIVE",
    "OWN",
    "RECERASER",
    "RETRAIN",
    "SCIF",
    "FineTuneConfig",
    "FruConfig",
    "GradientAscentConfig",
    "LightGCNConfig",
    "RecEraserConfig",
    "ScifConfig",
]
