"""PersonalFR: private encoders, one federated decoder."""

from retract.systems.base import SystemType
from retract.systems.personalfr.config import PersonalFRConfig

PERSONALFR = SystemType(
    "personalfr",
    PersonalFRConfig,
    "retract.systems.personalfr.server:PersonalFRServer",
    "retract.systems.personalfr.client:PersonalFRDevice",
    extra="learn",
)

__all__ = ["PERSONALFR", "PersonalFRConfig"]
