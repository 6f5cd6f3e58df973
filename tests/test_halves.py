"""Which machine a line is on: each half works where the other does not exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import TINY_OF

DEVICE = ("client", "local_epoch", "local_training", "silo", "pull", "census", "fru_tasks")
SERVER = ("server", "rounds", "unlearning", "graph", "closed_form", "influence", "pretraining", "encoder", "forgetting")

NAMES = [name if name == "exact" else pytest.param(name, marks=pytest.mark.slow) for name in sorted(TINY_OF)]

BLOCK = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if name in {rooms!r} or (parts[:2] == ["retract", "systems"] and parts[-1] in {names!r}):
            raise ImportError(f"{{name}} is on another machine")

sys.meta_path.insert(0, Absent())
"""

TRAIN_ON_A_SERVER = """
from dataclasses import replace
import numpy as np
from retract.data import Interactions
from retract.federation import RoundResult, Traffic
from retract.systems.base import Withdrawal
from retract.systems.registry import make_system
from tests.tiny import TINY_OF, tiny_dataset

class Idle:
    '''A federation that answers, and has nothing to say.'''
    traffic = Traffic()
    users = np.arange(12)
    def clients_of(self, users):
        return users
    def run(self, spec, broadcast, users, *, seed):
        return RoundResult(replace(spec.update.zeros(), clients=len(users)), users, users[:0], 0, 0)

shared = tiny_dataset().interactions
system = make_system({name!r}, TINY_OF[{name!r}])
trained = system.server.train(shared, Idle(), seed=0)
assert system.server.recommender(trained).scores(np.arange(3), shared).shape == (3, 15)
assert all(np.isfinite(view.scores(np.arange(3), shared)).all() for view in system.server.views(trained).values())
if hasattr(system.server, "prepare"):
    trained = system.server.prepare(trained, Idle(), seed=0)
forget = shared.of_users([1])
after = system.server.unlearn(trained, Withdrawal("unshare", forget, np.array([1])), Idle(), seed=0)
assert len(after.shared) == len(shared) - len(forget)
"""

READ_ON_A_DEVICE = """
import sys
import numpy as np
from retract.federation import NOTHING_KEPT
from retract.systems.base import Published
from retract.systems.registry import system_type
from tests.tiny import TINY_OF, tiny_dataset

kind = system_type({name!r})
tables = dict(np.load({path!r}))
config = kind.config.model_validate({settings!r})
system = kind(config)
model = Published({name!r}, config, 0, "run", tables)
scores = system.device.reader(model, NOTHING_KEPT).scores(np.arange(3), tiny_dataset().interactions)
assert scores.shape == (3, 15) and np.isfinite(scores).all()
assert isinstance(dict(system.device.tasks), dict)
assert "retract.stores.versions" not in sys.modules
"""


def run(code: str) -> None:
    """Run code in a process of its own."""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=root)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_servers_half_works_in_a_process_without_the_device_half(name: str) -> None:
    block = BLOCK.format(rooms=("retract.stores.devices", "retract.stores.local"), names=DEVICE)
    code = TRAIN_ON_A_SERVER.replace(
        "from tests.stores.folders import TINY_OF, tiny_dataset", "from tests.tiny import *"
    )
    run(block + code.format(name=name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_device_reads_a_published_model_in_a_process_without_the_servers_half(name: str, tmp_path: Path) -> None:
    from retract.data import Sharing
    from retract.stores.devices import MemoryDevices
    from retract.stores.local import engine_of
    from tests.tiny import tiny_dataset, tiny_system

    system, devices = tiny_system(name), MemoryDevices(Sharing.by_ratio(tiny_dataset().interactions, 1.0))
    trained = system.server.train(devices.sharing.shared, engine_of(system, devices), seed=0)
    path = tmp_path / "published.npz"
    np.savez(path, **trained.model)
    block = BLOCK.format(rooms=("retract.stores.versions", "retract.auditing"), names=SERVER)
    code = READ_ON_A_DEVICE.replace(
        "from tests.stores.folders import TINY_OF, tiny_dataset", "from tests.tiny import *"
    )
    run(block + code.format(name=name, path=str(path), settings=trained.config.model_dump(mode="json")))
