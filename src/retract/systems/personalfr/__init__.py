"""PersonalFR: private encoders, one federated decoder."""

from retract.systems.personalfr.config import PersonalFRConfig
from retract.systems.system import SystemType

PERSONALFR = SystemType(
    "personalfr",
    PersonalFRConfig,
    "retract.systems.personalfr.server:half_of",
    "retract.systems.personalfr.client:PersonalFRDevice",
    extra="learn",
    share=0.0,
    learns_ratings=True,
)

__all__ = ["PERSONALFR", "PersonalFRConfig"]
