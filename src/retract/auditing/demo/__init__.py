"""The demo's story, lived and measured; `retract.report` shows it."""

from retract.auditing.demo.run import run_demo
from retract.auditing.demo.story import SMALL, tell

__all__ = ["SMALL", "run_demo", "tell"]
