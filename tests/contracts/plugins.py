"""What every plug-in owes: inherit `PluginContract`, and say where a package is installed and what it plugs in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

CHECK = """
import sys
from retract import plugins
found = plugins.find({group!r}, {{}}, {name!r}, "plug-in")
assert {name!r} in plugins.names({group!r}, {{}})
heavy = [room for room in ("torch", "matplotlib") if room in sys.modules]
assert not heavy, f"to name a plug-in loads {{heavy}}"
"""
KIND = {
    "retract.systems": """
from retract.systems.base import DeviceSide, ServerSide
from retract.systems.system import SystemType
from retract.systems.registry import make_system
assert isinstance(found, SystemType), type(found)
assert found.name == {name!r}, found.name
system = make_system({name!r})
for half, contract in ((system.server, ServerSide), (system.device, DeviceSide)):
    missing = [part for part in dir(contract) if not part.startswith("_") and not hasattr(half, part)]
    assert not missing, f"{{type(half).__name__}} lacks {{missing}}"
""",
    "retract.methods": """
from retract.systems.system import MethodType
from retract.systems.registry import make_method, make_system
assert isinstance(found, MethodType), type(found)
assert found.name == {name!r}, found.name
method = make_method({name!r}, make_system("exact"))
assert hasattr(method.server, "unlearn")
""",
    "retract.attacks": """
from retract.auditing.attacks import AttackType
assert isinstance(found, AttackType), type(found)
assert found.name == {name!r}, found.name
assert callable(found())
""",
    "retract.datasets": """
from retract.data import Dataset, load
data = load({name!r})
assert isinstance(data, Dataset), type(data)
assert len(data.interactions)
""",
}


@pytest.mark.contract
class PluginContract:
    """The promises of `retract.plugins`."""

    plugged: Mapping[str, str]

    @pytest.fixture
    def place(self) -> Path:
        """Where the package is installed."""
        raise NotImplementedError

    @pytest.mark.parametrize("group", sorted(KIND))
    def test_what_is_plugged_in_is_what_its_group_asks_for(self, place: Path, group: str) -> None:
        if group not in self.plugged:
            pytest.skip(f"nothing is plugged in as {group}")
        code = (CHECK + KIND[group]).format(group=group, name=self.plugged[group])
        env = {**os.environ, "PYTHONPATH": str(place)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
        assert done.returncode == 0, done.stderr
