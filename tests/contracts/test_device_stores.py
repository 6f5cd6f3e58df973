"""The stores of devices against their contract, and stores that are broken on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retract.data import Sharing
from retract.federation import DeviceStore
from retract.stores.device_folder import FolderDevices
from retract.stores.devices import MemoryDevices
from tests.contracts.breaking import broken_statements
from tests.contracts.device_stores import DeviceStoreContract


class TestMemoryDevices(DeviceStoreContract):
    def store(self, sharing: Sharing) -> DeviceStore:
        return MemoryDevices(sharing)


class TestFolderDevices(DeviceStoreContract):
    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.path, self.made = tmp_path, 0

    def store(self, sharing: Sharing) -> DeviceStore:
        self.made += 1
        return FolderDevices.create(self.path / str(self.made), sharing)

    def restarted(self, store: DeviceStore) -> DeviceStore:
        assert isinstance(store, FolderDevices)
        return FolderDevices(store.path)


class _AppliesARetryTwice(MemoryDevices):
    def _undo(self, *_: object) -> None:  # type: ignore[override]
        pass


class _CountsTheCatalog(MemoryDevices):
    def __init__(self, sharing: Sharing) -> None:
        super().__init__(sharing)
        self.hosted = np.arange(sharing.shared.n_users)


class _ForgetsOverARestart(MemoryDevices):
    pass


class _OneRunForAll(MemoryDevices):
    def _states(self, run: str) -> object:  # type: ignore[override]
        return super()._states("a")


class _AddsToJournals(MemoryDevices):
    def _write(self, run: str, round: int, clients: object, columns: dict) -> None:
        self.journals.setdefault((run, round), []).append(columns)


def _suite(kind: type[MemoryDevices]) -> type[DeviceStoreContract]:
    class Suite(DeviceStoreContract):
        def store(self, sharing: Sharing) -> DeviceStore:
            return kind(sharing)

        def restarted(self, store: DeviceStore) -> DeviceStore:
            return kind(store.sharing) if kind is _ForgetsOverARestart else store  # type: ignore[attr-defined]

    return Suite


def test_the_suite_passes_on_a_store_that_is_not_broken() -> None:
    assert broken_statements(_suite(MemoryDevices)) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        (_AppliesARetryTwice, "test_a_retry_of_a_round_changes_nothing_twice"),
        (_CountsTheCatalog, "test_state_is_kept_for_the_hosted_clients_alone"),
        (_ForgetsOverARestart, "test_what_was_kept_is_what_the_next_round_begins_with"),
        (_OneRunForAll, "test_a_run_that_is_new_starts_anew_and_leaves_the_other_alone"),
        (_AddsToJournals, "test_who_writes_again_in_a_round_replaces_what_was_written"),
    ],
)
def test_a_broken_store_does_not_pass(kind: type[MemoryDevices], statement: str) -> None:
    assert statement in broken_statements(_suite(kind))
