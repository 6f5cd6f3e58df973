"""What others plug in: systems, methods, attacks and data sets, found by the entry points of installed packages.

| group | an entry point loads |
|---|---|
| `retract.systems` | a `retract.systems.system.SystemType` |
| `retract.methods` | a `retract.systems.system.MethodType` |
| `retract.attacks` | a `retract.auditing.attacks.AttackType` |
| `retract.datasets` | a function without arguments that returns a `retract.data.Dataset` |

Our own ones are found by the same look-up, from a table in the room that they belong to; they come first, so that no
installed package can stand in for one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from retract.errors import ConfigError


def resolve(path: str) -> Any:
    """The object that a path such as `package.module:name` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def names(group: str, own: Mapping[str, str]) -> list[str]:
    """All names of a group: our own in their order, then those of others by name."""
    return [*own, *sorted(_of_others(group).keys() - own.keys())]


def find(group: str, own: Mapping[str, str], name: str, kind: str) -> Any:
    """What a name stands for.

    Parameters
    ----------
    own
        Our own ones, as paths for `resolve`.
    kind
        What errors call it: "system".

    Raises
    ------
    ConfigError
        If there is none of this name, or what others plugged in under it cannot be loaded.
    """
    if name in own:
        return resolve(own[name])
    plugged = _of_others(group).get(name)
    if plugged is None:
        raise ConfigError(f"unknown {kind} {name!r}; known {kind}s: {', '.join(sorted(names(group, own)))}")
    try:
        return plugged.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{kind} {name!r} is plugged in as {plugged.value} and cannot be loaded ({error}): mend that package"
        ) from None


@cache
def _of_others(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; installed packages do not change while a process runs."""
    return {entry.name: entry for entry in entry_points(group=group)}
