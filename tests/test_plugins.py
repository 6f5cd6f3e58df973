"""Systems, methods, attacks and data sets of another package: installed as such, and found by every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from retract import plugins
from retract.errors import ConfigError
from tests.contracts.plugins import PluginContract

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where the example package is installed, by pip."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", place]
    subprocess.run([*command, EXAMPLE], check=True, capture_output=True, timeout=120)
    return place


def run(installed: Path, *arguments: object) -> dict[str, Any]:
    """What a command says, with the example package installed."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from retract.cli import main; sys.exit(main())",
            *map(str, arguments),
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


class TestTheExample(PluginContract):
    plugged = {  # noqa: RUF012 - read only
        "retract.systems": "popular",
        "retract.methods": "half",
        "retract.attacks": "popularity",
        "retract.datasets": "checkerboard",
    }

    @pytest.fixture
    def place(self, installed: Path) -> Path:
        return installed


@pytest.mark.slow
def test_a_plugged_in_system_lives_the_whole_life(installed: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    trained = run(installed, "train", "popular", "--data", "checkerboard", "--out", out, "--share", 1)
    assert (trained["system"], trained["users"]) == ("popular", 40)
    assert len(run(installed, "recommend", out, "--user", "u3", "-k", 4)["items"]) == 4
    run(installed, "erase", out, "--user", "u3")
    assert run(installed, "unlearn", out)["requests"] == 1
    assert run(installed, "status", out)["applied"] == 1


@pytest.mark.slow
def test_a_comparison_in_two_processes_finds_all_four(installed: Path, tmp_path: Path) -> None:
    rows = run(
        installed,
        *("compare", "--data", "checkerboard", "--systems", "popular", "--methods", "own,naive,half"),
        *("--forget", "users:0.2", "--forget", "random:0.1", "--attacks", "popularity"),
        *("--jobs", 2, "--out", tmp_path / "out", "--share", 1),
    )["rows"]
    assert [row["method"] for row in rows] == ["own", "naive", "half"] * 2
    assert all(0 <= row["attack_popularity_auc_after"] <= 1 for row in rows)
    distance = {row["method"]: row["parameter_distance"] for row in rows if row["forget"] == "users:0.2"}
    assert distance["own"] == 0 < distance["half"] < distance["naive"]


@pytest.mark.slow
def test_the_python_api_knows_a_plugged_in_system(installed: Path) -> None:
    code = (
        "import retract; m = retract.model('popular', smoothing=2).fit('checkerboard');"
        "assert type(m).__name__ == 'Popular' and 'smoothing' in type(m).__doc__;"
        "m.erase('u3'); assert m.unlearn().forgotten == 20"
    )
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr


def test_our_own_names_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from retract.systems.exact import EXACT
    from retract.systems.registry import system_type

    monkeypatch.setattr(plugins, "_of_others", lambda group: pytest.fail("our own names need no look-up"))
    assert system_type("exact") is EXACT


class Broken:
    """An entry point whose package cannot be imported."""

    value = "nowhere:NOTHING"

    def load(self) -> object:
        raise ImportError("No module named 'nowhere'")


def test_a_plug_in_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_of_others", lambda group: {"broken": Broken()})
    with pytest.raises(ConfigError, match=r"system 'broken' is plugged in as nowhere:NOTHING and cannot be loaded"):
        plugins.find("retract.systems", {}, "broken", "system")
