"""The Python API: models by name, loading, and the audit and evaluation of anybody's recommender."""

from retract.api.models import Model
from retract.api.receipt import Receipt
from retract.api.systems import Exact, FedShare, LightGCN, PersonalFR, RecEraser, UnlearnRec, load, model
from retract.api.tools import audit, evaluate

__all__ = [
    "Exact",
    "FedShare",
    "LightGCN",
    "Model",
    "PersonalFR",
    "RecEraser",
    "Receipt",
    "UnlearnRec",
    "audit",
    "evaluate",
    "load",
    "model",
]
