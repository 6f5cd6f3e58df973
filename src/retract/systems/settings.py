"""Settings given by name, and what is wrong with them, in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from retract.errors import ConfigError
from retract.systems.base import SystemConfig

Config = TypeVar("Config", bound=SystemConfig)


def read_settings(name: str, config: type[Config], settings: Mapping[str, object] | None = None) -> Config:
    """A configuration with its defaults, but for `settings`; text is read as the setting's type.

    Parameters
    ----------
    name
        Whose settings they are, for the message.

    Raises
    ------
    ConfigError
        If there is no such setting, or a value lies outside its range; the message names what is possible.
    """
    try:
        return config.model_validate(dict(settings or {}))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(name, config, problem) for problem in error.errors())) from None


def _explain(name: str, config: type[SystemConfig], problem: Mapping[str, Any]) -> str:
    """One problem of a configuration, as one line."""
    setting = ".".join(str(part) for part in problem["loc"])
    known = config.model_json_schema()["properties"]
    if setting not in known:
        return f"{name} has no setting {setting!r}; it has {', '.join(known) or 'none'}"
    return f"setting {setting} of {name} is {problem['input']!r}: it must be {_allowed(known[setting])}"


def _allowed(schema: Mapping[str, Any]) -> str:
    """A setting's type and range in words, from its JSON schema; one that may be left out is what it is if given."""
    schema = schema.get("anyOf", [schema])[0]
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kinds = {"integer": "a whole number", "number": "a number"}
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {schema[key]:g}" for key, word in words.items() if math.isfinite(schema.get(key, math.nan))]
    return " ".join([kinds.get(schema.get("type", ""), f"a {schema.get('type')}"), " and ".join(bounds)]).strip()
