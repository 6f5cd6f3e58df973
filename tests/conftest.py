from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import settings

# No deadline and no random examples: a slow or busy machine gives the same verdict as a fast one.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("ci")

KEY = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
"""The key of the tests."""


def _shared_data_or_skip() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RETRACT_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"the shared data sets are not at {folder}; set RETRACT_DATA to where they are")
    return folder


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)
    items.sort(key=lambda item: item.get_closest_marker("waits") is None)  # they leave the cores to the others


@pytest.fixture(scope="session", autouse=True)
def own_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Versions are signed by a key of the tests, not by that of whoever runs them."""
    path = tmp_path_factory.mktemp("own") / "key.pem"
    path.touch(mode=0o600)
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRACT_KEY", str(path))
        yield path


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("data"):
        _shared_data_or_skip()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with ml-100k.parquet, ml-1m.parquet and gowalla.parquet. A test that asks for it is marked `data`."""
    return _shared_data_or_skip()
