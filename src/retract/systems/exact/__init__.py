"""Exact: closed-form recommenders that forget exactly."""

from retract.systems.exact.config import ExactConfig
from retract.systems.system import SystemType

EXACT = SystemType(
    "exact", ExactConfig, "retract.systems.exact.server:ExactServer", "retract.systems.exact.client:ExactDevice"
)

__all__ = ["EXACT", "ExactConfig"]
