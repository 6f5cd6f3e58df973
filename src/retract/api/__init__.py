"""The Python API: models by name and loading; `tools` has the audit and evaluation of anybody's recommender."""

from retract.api.models import Model
from retract.api.receipt import Receipt
from retract.api.systems import Exact, FedShare, LightGCN, PersonalFR, RecEraser, UnlearnRec, load, model

__all__ = [
    "Exact",
    "FedShare",
    "LightGCN",
    "Model",
    "PersonalFR",
    "RecEraser",
    "Receipt",
    "UnlearnRec",
    "load",
    "model",
]
