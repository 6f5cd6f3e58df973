from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.commands import SETTINGS, retract, write_ratings


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("data") / "ratings.csv")


@pytest.fixture(scope="session")
def made(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained folder; ask for `folder` to change it."""
    out = tmp_path_factory.mktemp("made") / "run"
    assert retract("train", "fedshare", "--data", ratings, "--out", out, *SETTINGS).code == 0
    return out


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))
