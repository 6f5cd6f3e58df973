"""The demo's story, lived and measured; `retract.report` shows it."""

from retract.auditing.demo.run import run_demo
from retract.auditing.demo.story import tell

__all__ = ["run_demo", "tell"]
