"""Exact: closed-form recommenders that forget exactly."""

from retract.systems.exact.config import ExactConfig
from retract.systems.exact.system import Exact

__all__ = ["Exact", "ExactConfig"]
