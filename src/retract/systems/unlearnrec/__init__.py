"""UnlearnRec: any graph recommender made forgettable by an influence encoder, pre-trained once."""

from retract.systems.unlearnrec.config import UnlearnRecConfig
from retract.systems.unlearnrec.system import UnlearnRec

__all__ = ["UnlearnRec", "UnlearnRecConfig"]
