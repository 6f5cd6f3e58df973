"""Fixtures that tests of trained folders share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.stores.folders import make_folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained folder that nobody changes."""
    return make_folder(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(made, tmp_path / "run"))
