"""The systems by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retract.errors import ConfigError
from retract.systems.base import System, SystemConfig
from retract.systems.baselines import LightGCN, LightGCNConfig, RecEraser, RecEraserConfig
from retract.systems.exact import Exact, ExactConfig
from retract.systems.fedshare import FedShare, FedShareConfig
from retract.systems.personalfr import PersonalFR, PersonalFRConfig
from retract.systems.settings import read_settings
from retract.systems.unlearnrec import UnlearnRec, UnlearnRecConfig

_CONFIGS: Mapping[str, type[SystemConfig]] = {
    "exact": ExactConfig,
    "fedshare": FedShareConfig,
    "lightgcn": LightGCNConfig,
    "receraser": RecEraserConfig,
    "personalfr": PersonalFRConfig,
    "unlearnrec": UnlearnRecConfig,
}
_SYSTEMS: Mapping[str, Callable[..., Any]] = {
    "exact": Exact,
    "fedshare": FedShare,
    "lightgcn": LightGCN,
    "receraser": RecEraser,
    "personalfr": PersonalFR,
    "unlearnrec": UnlearnRec,
}


def system_names() -> list[str]:
    """What `make_system` can make."""
    return sorted(_SYSTEMS)


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
    if name not in _SYSTEMS:
        raise ConfigError(f"unknown system {name!r}; known systems: {', '.join(system_names())}")
    system: System = _SYSTEMS[name](read_settings(name, _CONFIGS[name], settings))
    return system
