"""Install the built wheel into empty environments, newest and lowest dependencies, and run every command in each.

    python .ci/wheel.py [newest|lowest ...]

The lowest versions are the lower bounds of pyproject.toml. First with the core alone: data comes in as a matrix, and
what needs an extra says which. Then with the extra `files`: data comes in as a file.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = """
import json
import numpy as np, scipy.sparse as sp
import retract

pairs = json.loads(open("pairs.json").read())
users, items, values = (np.array(column) for column in zip(*pairs))
ratings = sp.csr_matrix((values.astype(float), (users, items)))
model = retract.Exact(ridge=50).fit(ratings)
assert len(model.recommend(["7", "9"], k=10)) == 20
model.erase("9")
receipt = model.unlearn(audit=True)
model.save("model")
model = retract.load("model")
assert "9" not in map(str, model.users), "user 9 was to be erased"
"""
FILES = """
import retract

ratings = "ratings.csv"
model = retract.Exact(ridge=50).fit(ratings)
model.recommend(["u7", "u9"], k=10)
model.erase("u9")
receipt = model.unlearn(audit=True)
model.save("model-of-file")
model = retract.load("model-of-file")
"""
MANY = """
import json, sys
from retract.cli import main

for arguments in json.loads(sys.argv[1]):
    code = main(arguments)
    assert code == 0, (arguments, code)
"""
GRADIENTS = ("fedshare", "unlearnrec", "lightgcn", "receraser")


class Environment:
    """An environment of its own, and a folder to work in.

    Parameters
    ----------
    room
        Where both go.
    constraints
        Versions to install; the newest where none are said.
    """

    def __init__(self, room: Path, constraints: list[str]) -> None:
        self.room, self.work = room, room / "work"
        self.work.mkdir(parents=True)
        self.bin = room / "venv" / "bin"
        self.constraints = room / "constraints.txt"
        self.constraints.write_text("".join(f"{line}\n" for line in constraints))
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", room / "venv"], check=True)

    def install(self, *what: str) -> None:
        """Install from wheels alone."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet", "--no-compile"]
        quiet = ["--disable-pip-version-check", "--no-warn-conflicts", "--only-binary", ":all:"]
        subprocess.run([*pip, *quiet, "-c", str(self.constraints), *what], check=True)

    def run(self, *command: str, code: int = 0) -> tuple[str, str]:
        """Both streams of a command that must end with a code."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"RETRACT_KEY": str(self.work / "key.pem"), "OMP_NUM_THREADS": "1"}
        command = (str(self.bin / command[0]), *command[1:])
        done = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)
        shown = f"{' '.join(command)}\nexit code {done.returncode}, wanted {code}\n{done.stdout}{done.stderr}"
        assert done.returncode == code, shown
        assert "Traceback" not in done.stderr, shown
        return done.stdout, done.stderr

    def told(self, *arguments: str) -> dict[str, object]:
        """What a command answers to scripts."""
        found = json.loads(self.run("retract", *arguments, "--json")[0])
        assert isinstance(found, dict)
        return found

    def refused(self, error: str, hint: str, *arguments: str) -> None:
        """A command that must be refused, for this reason."""
        out, err = self.run("retract", *arguments, "--json", code=2)
        found = json.loads(out)
        assert (found["error"], found["code"]) == (error, 2), found
        assert hint in err, err


def write_data(work: Path) -> None:
    """Interactions of 60 users with 40 items, as a file and as numbers; and scores of two models."""
    pairs = [
        (user, item, 1 + (user * item) % 5) for user in range(60) for item in range(40) if (user * 7 + item * 3) % 4
    ]
    (work / "pairs.json").write_text(json.dumps(pairs))
    rows = "".join(f"u{user},i{item},{rating}\n" for user, item, rating in pairs)
    (work / "ratings.csv").write_text(f"user,item,rating\n{rows}")
    (work / "more.csv").write_text("user,item,rating\nnew,i1,4\nnew,i2,5\nu1,new,3\n")
    gone = pairs[:20]
    (work / "forget.csv").write_text("user,item\n" + "".join(f"u{user},i{item}\n" for user, item, _ in gone))
    for name, factor in (("before", 7), ("after", 11)):
        scores = "".join(
            f"u{user},i{item},{(user * factor + item * 5) % 13}\n" for user in range(60) for item in range(40)
        )
        (work / f"{name}.csv").write_text(f"user,item,score\n{scores}")


def check_core(here: Environment) -> None:
    """What works where nothing but the core is there; everything else says what it lacks."""
    here.run("python", "-c", CORE)
    shown, _ = here.run("retract", "--help")
    commands = re.findall(r"^\W*([a-z]+)\s{2,}\w", shown.partition("Commands")[2], re.MULTILINE)
    assert {"train", "recommend", "unlearn", "verify", "settings"} <= set(commands), shown
    told = [[command, "--help"] for command in commands] + [
        ["settings", system] for system in (*GRADIENTS, "exact", "personalfr")
    ]
    assert here.run("python", "-c", MANY, json.dumps([["--version"], *told]))[0].count("Usage: retract") == len(
        commands
    )
    here.run("retract", "keys", "new", "another.pem")
    check_life(here, "model", "7", "1")
    here.refused("missing_extra", "retract[files]", "train", "exact", "--data", "ratings.csv", "--out", "x")
    here.refused("usage", "--help", "train", "exact", "--seed", "x", "--data", "ratings.csv", "--out", "x")
    here.refused("usage", "Did you mean 'train'?", "trian", "exact")
    here.refused("unknown_id", "nobody", "recommend", "model", "--user", "nobody")


def check_life(here: Environment, folder: str, user: str, item: str) -> None:
    """A trained folder's whole life."""
    assert here.told("recommend", folder, "--user", user)["items"]
    assert here.told("unshare", folder, "--user", user)["pending"] == 1
    assert here.told("erase", folder, "--user", "12" if user.isdigit() else "u12")["pending"] == 2
    assert here.told("unlearn", folder, "--audit")["requests"] == 2
    (certificate, *_) = sorted((here.work / folder / "certificates").glob("*.json"))
    assert here.told("verify", str(certificate))["valid"]
    assert here.told("audit", folder)["audits"]
    assert here.told("status", folder)["applied"] == 2
    here.run("retract", "ship", folder, "--out", f"{folder}.bin")
    assert here.told("recommend", f"{folder}.bin", "--items", item)["items"]


def check_files(here: Environment) -> None:
    """What works where files can be read too."""
    here.run("python", "-c", FILES)
    here.run("retract", "train", "exact", "--data", "ratings.csv", "--out", "trained")
    here.run("retract", "tune", "exact", "--data", "ratings.csv", "--set", "form=ease", "--grid", "ridge=10,50")
    check_life(here, "trained", "u7", "i1")
    here.run("retract", "extend", "trained", "--data", "more.csv")
    scores = ["--before", "before.csv", "--after", "after.csv", "--forget", "forget.csv"]
    assert here.told("audit", *scores)["verdict"]
    here.refused("missing_extra", "retract[report]", "audit", *scores, "--out", "page.html")
    here.refused("missing_extra", "retract[report]", "compare", "--data", "ratings.csv", "--forget", "users:0.1")
    here.refused("missing_extra", "retract[", "demo")
    for system in GRADIENTS:
        train = ("train", system, "--data", "ratings.csv", "--share", "1", "--out", "x")
        here.refused("missing_extra", "retract[learn]", *train)


def lowest() -> list[str]:
    """The lower bounds of pyproject.toml as constraints: of the core, and of the extra that reads files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [*project["dependencies"], *project["optional-dependencies"]["files"]]
    return [re.sub(r"^([\w-]+)>=([\w.]+).*$", r"\1==\2", bound) for bound in bounds]


def check(name: str, wheel: Path, room: Path) -> str:
    """Run everything in one environment; how long it took."""
    began = time.monotonic()
    here = Environment(room / name, lowest() if name == "lowest" else [])
    write_data(here.work)
    here.install(str(wheel))
    check_core(here)
    here.install(f"{wheel}[files]")
    check_files(here)
    return f"{name}: every command runs, {time.monotonic() - began:.0f} s"


def main(names: list[str]) -> None:
    """Build the wheel, and check it in all environments at once."""
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(room), str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = room.glob("*.whl")
        with ThreadPoolExecutor() as pool:
            for told in pool.map(lambda name: check(name, wheel, room), names):
                print(told, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["newest", "lowest"])
