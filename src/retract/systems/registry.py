"""The systems and methods by name: our own, and those that installed packages plug in."""

from __future__ import annotations

from collections.abc import Mapping

from retract import plugins
from retract.errors import ConfigError
from retract.systems.base import Trained
from retract.systems.settings import read_settings
from retract.systems.system import MethodType, System, SystemType

SYSTEMS: Mapping[str, str] = {
    "exact": "retract.systems.exact:EXACT",
    "fedshare": "retract.systems.fedshare:FEDSHARE",
    "lightgcn": "retract.systems.baselines:LIGHTGCN",
    "personalfr": "retract.systems.personalfr:PERSONALFR",
    "receraser": "retract.systems.baselines:RECERASER",
    "unlearnrec": "retract.systems.unlearnrec:UNLEARNREC",
}
METHODS: Mapping[str, str] = {
    "own": "retract.systems.baselines:OWN",
    "retrain": "retract.systems.baselines:RETRAIN",
    "naive": "retract.systems.baselines:NAIVE",
    "finetune": "retract.systems.baselines:FINETUNE",
    "ascent": "retract.systems.baselines:ASCENT",
    "fru": "retract.systems.baselines:FRU",
    "scif": "retract.systems.baselines:SCIF",
}
"""In the order of tables."""


def system_names() -> list[str]:
    """What `make_system` can make."""
    return sorted(plugins.names("retract.systems", SYSTEMS))


def system_type(name: str) -> SystemType:
    """A kind of system by name.

    Raises
    ------
    ConfigError
        If there is none, or what is plugged in under the name is none.
    """
    found = plugins.find("retract.systems", SYSTEMS, name, "system")
    if not isinstance(found, SystemType):
        raise ConfigError(f"system {name!r} is plugged in as {type(found).__name__}: it must be a SystemType")
    return found


def make_system(name: str, settings: Mapping[str, object] | None = None) -> System:
    """A system with its defaults, but for `settings`.

    Parameters
    ----------
    settings
        Values by name; text is read as the setting's type.

    Raises
    ------
    ConfigError
        If there is no such system or setting, or a value lies outside its range; the message names what is possible.
    """
    kind = system_type(name)
    return kind(read_settings(name, kind.config, settings))


def system_of(trained: Trained) -> System:
    """The system that made a model, with the configuration of its training."""
    return system_type(trained.system)(trained.config)


def method_names() -> list[str]:
    """What `make_method` can make, in the order of tables."""
    return plugins.names("retract.methods", METHODS)


def method_type(name: str) -> MethodType:
    """A method by name; errors as of `system_type`."""
    found = plugins.find("retract.methods", METHODS, name, "method")
    if not isinstance(found, MethodType):
        raise ConfigError(f"method {name!r} is plugged in as {type(found).__name__}: it must be a MethodType")
    return found


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
    kind = method_type(name)
    return kind(system, read_settings(name, kind.config, settings))
