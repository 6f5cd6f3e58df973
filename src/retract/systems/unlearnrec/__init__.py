"""UnlearnRec: any graph recommender made forgettable by an influence encoder, pre-trained once."""

from retract.systems.system import SystemType
from retract.systems.unlearnrec.config import UnlearnRecConfig

UNLEARNREC = SystemType(
    "unlearnrec",
    UnlearnRecConfig,
    "retract.systems.unlearnrec.server:UnlearnRecServer",
    "retract.systems.unlearnrec.client:UnlearnRecDevice",
    extra="learn",
)

__all__ = ["UNLEARNREC", "UnlearnRecConfig"]
