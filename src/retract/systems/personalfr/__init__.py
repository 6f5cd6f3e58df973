"""PersonalFR: private encoders, one federated decoder."""

from retract.systems.personalfr.config import PersonalFRConfig
from retract.systems.personalfr.system import PersonalFR

__all__ = ["PersonalFR", "PersonalFRConfig"]
