"""Where torch is not installed: systems and methods are chosen, models are read, and learning says what it lacks."""

import subprocess
import sys

import pytest

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # an import of it fails
import numpy as np
from retract.federation import NOTHING_KEPT
from retract.systems.base import Published
from retract.systems.registry import make_method, make_system, method_names
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightgcn", "receraser", "unlearnrec"])
def test_a_central_system_is_chosen_and_its_tables_are_read_with_numpy_alone(name):
    out = run(f"""
system = make_system("{name}")
tables = {{"users": np.ones((2, 3), np.float32), "items": np.ones((4, 3), np.float32), "popularity": np.arange(4)}}
model = Published("{name}", system.config, 0, "run", tables)
print(system.device.reader(model, NOTHING_KEPT).scores(np.array([1]), None).tolist())
print(system.server.config == system.config)
""")
    assert out.splitlines() == ["[[3.0, 3.0, 3.0, 3.0]]", "True"]


@pytest.mark.slow
def test_a_method_is_chosen_with_numpy_alone():
    out = run("""
for name in method_names():
    if name != "fru":
        print(make_method(name, make_system("lightgcn")).server.config.steps)
""")
    assert out.split() == ["400"] * 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightgcn", "receraser", "unlearnrec"])
def test_training_tells_which_extra_it_needs(name):
    out = run(f"""
from retract.data import Catalog, Interactions
from retract.errors import MissingExtraError
from retract.federation import NoDevices
data = Interactions.of(Catalog(np.array(["a", "b"]), np.array(["x", "y"])), np.array([0, 1]), np.array([0, 1]))
try:
    make_system("{name}").server.train(data, NoDevices(), seed=0)
except MissingExtraError as error:
    print(error)
""")
    assert out == f"{name} needs torch, which is not installed: pip install 'retract[learn]'\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FedShare", "UnlearnRec", "LightGCN", "RecEraser"])
def test_fitting_through_the_api_tells_which_extra_it_needs(name):
    out = run(f"""
import retract
import scipy.sparse as sp
from retract.errors import MissingExtraError
try:
    retract.{name}().fit(sp.csr_matrix(np.eye(4) + np.eye(4, k=1)), share=0.5)
except MissingExtraError as error:
    print(error)
""")
    assert out == f"{name.lower()} needs torch, which is not installed: pip install 'retract[learn]'\n"
