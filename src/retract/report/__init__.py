"""What people look at: the demo's story, its plots and its page."""

from retract.report.demo import run_demo

__all__ = ["run_demo"]
