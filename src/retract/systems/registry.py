"""The systems by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from retract.errors import ConfigError
from retract.systems.base import System, SystemConfig
from retract.systems.baselines import LightGCN, LightGCNConfig
from retract.systems.exact import Exact, ExactConfig
from retract.systems.fedshare import FedShare, FedShareConfig

_CONFIGS: Mapping[str, type[SystemConfig]] = {
    "exact": ExactConfig,
    "fedshare": FedShareConfig,
    "lightgcn": LightGCNConfig,
}
_SYSTEMS: Mapping[str, Callable[..., Any]] = {"exact": Exact, "fedshare": FedShare, "lightgcn": LightGCN}


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
    config = _CONFIGS[name]
    try:
        system: System = _SYSTEMS[name](config.model_validate(dict(settings or {})))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(name, config, problem) for problem in error.errors())) from None
    return system


def _explain(name: str, config: type[SystemConfig], problem: Mapping[str, Any]) -> str:
    """One problem of a configuration, as one line."""
    setting = ".".join(str(part) for part in problem["loc"])
    known = config.model_json_schema()["properties"]
    if setting not in known:
        return f"{name} has no setting {setting!r}; it has {', '.join(known)}"
    return f"setting {setting} of {name} is {problem['input']!r}: it must be {_allowed(known[setting])}"


def _allowed(schema: Mapping[str, Any]) -> str:
    """A setting's type and range in words, from its JSON schema."""
    kinds = {"integer": "a whole number", "number": "a number"}
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {schema[key]:g}" for key, word in words.items() if math.isfinite(schema.get(key, math.nan))]
    return " ".join([kinds.get(schema.get("type", ""), f"a {schema.get('type')}"), " and ".join(bounds)]).strip()
