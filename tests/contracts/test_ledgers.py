"""The ledgers against their contract, and ledgers that are broken on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from retract.stores.ledger import FileLedger, Ledger, MemoryLedger, Request
from tests.contracts.breaking import broken_statements
from tests.contracts.ledgers import LedgerContract


class TestMemoryLedger(LedgerContract):
    def ledger(self) -> Ledger:
        return MemoryLedger()


class TestFileLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.root = tmp_path / "ledger"

    def ledger(self) -> Ledger:
        return FileLedger(self.root)

    def restarted(self, ledger: Ledger) -> Ledger:
        return FileLedger(self.root)


class _ForgetsKeys(MemoryLedger):
    def append(self, request: Request, key: str | None = None) -> Request:
        return super().append(request)


class _TakesAnyRequestForTheFirst(MemoryLedger):
    def append(self, request: Request, key: str | None = None) -> Request:
        return (self.by_key(key) if key is not None else None) or super().append(request, key)


class _ClaimsAnything(MemoryLedger):
    def claim(self, ids: Sequence[str]) -> None:
        self._set(ids, "in_progress")


class _KeepsItems(MemoryLedger):
    def settle(self, withdrawals: Mapping[str, str], gone: Sequence[str] = ()) -> None:
        items = {request.id: request.items for request in self.requests()}
        super().settle(withdrawals, gone)
        for id, request in self._requests.items():
            self._requests[id] = Request(**{**request.__dict__, "items": items[id]})


class _KeepsNames(MemoryLedger):
    def settle(self, withdrawals: Mapping[str, str], gone: Sequence[str] = ()) -> None:
        super().settle(withdrawals)


class _CompletesAgain(MemoryLedger):
    def settle(self, withdrawals: Mapping[str, str], gone: Sequence[str] = ()) -> None:
        self._set([id for id in withdrawals if id in self._requests], "pending")
        super().settle(withdrawals, gone)


def _suite(kind: type[MemoryLedger]) -> type[LedgerContract]:
    class Suite(LedgerContract):
        def ledger(self) -> Ledger:
            return kind()

    return Suite


def test_the_suite_passes_on_a_ledger_that_is_not_broken() -> None:
    assert broken_statements(_suite(MemoryLedger)) == set()


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        (_ForgetsKeys, "test_the_same_key_again_changes_nothing_and_returns_the_first"),
        (_TakesAnyRequestForTheFirst, "test_a_key_is_refused_to_another_request"),
        (_ClaimsAnything, "test_what_is_claimed_or_completed_cannot_be_claimed"),
        (_KeepsItems, "test_a_completed_request_keeps_its_count_and_no_item"),
        (_KeepsNames, "test_of_whoever_is_gone_no_request_keeps_the_name_and_none_is_left_to_do"),
        (_CompletesAgain, "test_completing_again_changes_nothing"),
    ],
)
def test_a_broken_ledger_does_not_pass(kind: type[MemoryLedger], statement: str) -> None:
    assert statement in broken_statements(_suite(kind))
