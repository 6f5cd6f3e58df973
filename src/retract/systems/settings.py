"""Settings given by name, and what is wrong with them, in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
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


@dataclass(frozen=True)
class Setting:
    """One setting of a configuration, as people and scripts are told of it.

    Parameters
    ----------
    name
        What `--set` calls it.
    meaning
        What it does.
    values
        Its type and range, in words.
    unit
        What it is measured in; None for counts, ratios and the like.
    default
        What it is unless set; None where it is found unless given.
    """

    name: str
    meaning: str
    values: str
    unit: str | None
    default: object

    @property
    def shown_default(self) -> str:
        """The default as `--set` takes it."""
        if self.default is None:
            return "unset"
        text = str(self.default).lower() if isinstance(self.default, bool) else str(self.default)
        return text if self.unit is None else f"{text} {self.unit}"


def settings_of(config: type[SystemConfig]) -> list[Setting]:
    """All settings of a configuration, in its own order."""
    return [
        Setting(
            name,
            " ".join(schema.get("description", "").split()),
            _allowed(schema),
            next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), None),
            schema.get("default"),
        )
        for name, schema in config.model_json_schema()["properties"].items()
    ]


_UNITS = {"_seconds": "s"}
"""By how the name of a setting ends."""


def _explain(name: str, config: type[SystemConfig], problem: Mapping[str, Any]) -> str:
    """One problem of a configuration, as one line."""
    setting = ".".join(str(part) for part in problem["loc"])
    known = {one.name: one for one in settings_of(config)}
    if setting not in known:
        near = sorted(known, key=lambda other: -SequenceMatcher(None, setting, other).ratio())[:3]
        told = "; ".join(f"{one} ({known[one].values}, default {known[one].shown_default})" for one in near)
        listed = f"the nearest are {told}; `retract settings {name}` lists all" if near else "it has none"
        return f"{name} has no setting {setting!r}: {listed}"
    return f"setting {setting} of {name} is {problem['input']!r}: it must be {known[setting].values}"


def _allowed(schema: Mapping[str, Any]) -> str:
    """A setting's type and range in words, from its JSON schema; one that may be left out is what it is if given."""
    schema = schema.get("anyOf", [schema])[0]
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {schema[key]:g}" for key, word in words.items() if math.isfinite(schema.get(key, math.nan))]
    return " ".join([kinds.get(schema.get("type", ""), f"a {schema.get('type')}"), " and ".join(bounds)]).strip()
