"""One self-contained HTML page: no script, nothing fetched from elsewhere."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import retract
from retract.report import findings, plots, wording
from retract.report.facts import Story

PACKAGES = ("torch", "numpy", "scipy")


@dataclass(frozen=True)
class Setting:
    """Where and when a page was made.

    Parameters
    ----------
    command
        What makes the page again.
    machine, versions
        For people to read.
    made
        The day and time (UTC).
    seconds
        How long the whole story took.
    """

    command: str
    machine: str
    versions: str
    made: str
    seconds: float


def describe_machine() -> str:
    """The processor, the cores this process may use, and the system."""
    return f"{_processor()}, {_cores()} cores, {platform.system()}"


def describe_versions() -> str:
    """Versions of retract, Python and the packages that compute."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"retract {retract.__version__}, Python {platform.python_version()}, {packages}"


def render(story: Story, setting: Setting) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("retract.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=wording.percent,
        metric=wording.metric,
        count=wording.count,
        significant=wording.significant,
        size=wording.size,
        seconds=wording.seconds,
    )
    template = environment.get_template("demo.html.j2")
    return template.render(
        story=story,
        setting=setting,
        figures=_figures(story),
        findings=findings,
        changed=changed_settings(story),
    )


def changed_settings(story: Story) -> Mapping[str, object]:
    """The settings that differ from their defaults."""
    config = story.about.config
    defaults = type(config)()
    return {name: value for name, value in config if value != getattr(defaults, name)}


def _figures(story: Story) -> dict[str, Markup]:
    drawn = {
        "sharing": plots.sharing(story.levels),
        "training": plots.training(story.levels),
        "device": plots.ranks(story.device, "device"),
        "server": plots.ranks(story.server, "server"),
        "costs": plots.costs(story.costs),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
