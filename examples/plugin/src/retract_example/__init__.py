"""What this package plugs into retract: names and paths alone, so that nothing is imported before it is used."""

from retract.auditing.attacks import AttackType
from retract.systems.system import MethodType, SystemType
from retract_example.config import PopularConfig
from retract_example.data import checkerboard

POPULAR = SystemType(
    "popular", PopularConfig, "retract_example.system:PopularServer", "retract_example.system:PopularDevice"
)
HALF = MethodType("half", "retract_example.method:Half")
POPULARITY = AttackType("popularity", "retract_example.attack:ByPopularity")

__all__ = ["HALF", "POPULAR", "POPULARITY", "checkerboard"]
