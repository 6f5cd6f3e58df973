"""The methods of unlearning by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retract.errors import ConfigError
from retract.systems.base import System, SystemConfig
from retract.systems.baselines.ascent import GradientAscent, GradientAscentConfig
from retract.systems.baselines.finetune import FineTune, FineTuneConfig
from retract.systems.baselines.fru import Fru, FruConfig
from retract.systems.baselines.oracle import Naive, Retrain
from retract.systems.baselines.scif import Scif, ScifConfig
from retract.systems.settings import read_settings


def own(system: System) -> System:
    """The system itself: its own way to unlearn."""
    return system


METHODS: Mapping[str, Callable[[System], System]] = {
    "own": own,
    "retrain": Retrain,
    "naive": Naive,
    "finetune": FineTune,
    "ascent": GradientAscent,
    "fru": Fru,
    "scif": Scif,
}
"""Every method, with its defaults, as what it makes of a system."""

_WITH_SETTINGS: Mapping[str, tuple[type[SystemConfig], Callable[..., Any]]] = {
    "finetune": (FineTuneConfig, FineTune),
    "ascent": (GradientAscentConfig, GradientAscent),
    "fru": (FruConfig, Fru),
    "scif": (ScifConfig, Scif),
}


def method_names() -> list[str]:
    """What `make_method` can make, in the order of tables."""
    return list(METHODS)


def make_method(name: str, system: System, settings: Mapping[str, object] | None = None) -> System:
    """A system that trains and recommends as `system` does, and unlearns by the named method.

    Parameters
    ----------
    settings
        Values of the method's own settings by name; text is read as the setting's type.

    Raises
    ------
    ConfigError
        If there is no such method or setting, a value lies outside its range, or the method does not fit the system.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; known methods: {', '.join(method_names())}")
    config, make = _WITH_SETTINGS.get(name, (SystemConfig, None))
    read = read_settings(name, config, settings)
    wrapped: System = METHODS[name](system) if make is None else make(system, read)
    return wrapped
