"""What every ledger of requests has to pass."""

from __future__ import annotations

import pytest

from retract.errors import FolderError, SharingError
from retract.stores.ledger import Kind, Ledger, Request


def asked(user: str = "u1", kind: Kind = "unshare", items: tuple[str, ...] = ("x", "y"), count: int = 0) -> Request:
    """A request, received now."""
    return Request.of(kind, user, count or len(items), items)


@pytest.mark.contract
class LedgerContract:
    """Inherit it, name the class `Test…`, and say how a ledger is made."""

    def ledger(self) -> Ledger:
        """A new one, empty."""
        raise NotImplementedError

    def restarted(self, ledger: Ledger) -> Ledger:
        """The same ledger in a new process; itself where it lives in one process alone."""
        return ledger

    def states(self, ledger: Ledger) -> list[str]:
        """The requests' states, in their order."""
        return [request.status for request in self.restarted(ledger).requests()]

    # --- receiving ----------------------------------------------------------------------------------------------------

    def test_a_new_one_is_empty(self) -> None:
        assert self.ledger().requests() == ()

    def test_requests_stay_in_the_order_received(self) -> None:
        ledger = self.ledger()
        given = [asked(user, kind, items) for user, kind, items in (("u2", "erase", ()), ("u1", "unshare", ("ü x",)))]
        given += [asked(f"u{n}") for n in range(20, 0, -1)]
        assert [ledger.append(request) for request in given] == given
        assert self.restarted(ledger).requests() == tuple(given)
        assert all(request.pending and request.completed is None for request in ledger.requests())

    def test_the_same_key_again_changes_nothing_and_returns_the_first(self) -> None:
        ledger, first = self.ledger(), asked()
        assert ledger.append(first, "key") == first
        ledger.append(asked("u2"))
        assert self.restarted(ledger).append(asked(), "key") == first
        assert len(self.restarted(ledger).requests()) == 2
        assert self.restarted(ledger).by_key("key") == first
        assert ledger.by_key("another") is None
        assert ledger.append(asked(), "another") != first

    def test_a_key_is_refused_to_another_request(self) -> None:
        ledger = self.ledger()
        ledger.append(asked(), "key")
        for other in (asked("u2"), asked(kind="erase"), asked(items=("x", "z")), asked(items=("x",))):
            with pytest.raises(SharingError, match=r"key 'key' was used for another request \([0-9a-f-]{36}\)"):
                self.restarted(ledger).append(other, "key")
        assert len(ledger.requests()) == 1

    def test_a_key_stays_known_after_its_request_is_completed(self) -> None:
        ledger, first = self.ledger(), asked()
        ledger.append(first, "key")
        ledger.settle({first.id: "w"})
        again = self.restarted(ledger).append(asked(), "key")
        assert (again.id, again.status) == (first.id, "completed")
        ledger.settle({}, gone=["u1"])
        assert ledger.append(asked(), "key").id == first.id
        assert len(self.restarted(ledger).requests()) == 1

    # --- working on them ----------------------------------------------------------------------------------------------

    def test_what_is_claimed_is_in_progress_until_it_is_released(self) -> None:
        ledger, (a, b) = self.ledger(), (asked("u1"), asked("u2"))
        for request in (a, b):
            ledger.append(request)
        ledger.claim([a.id])
        assert self.states(ledger) == ["in_progress", "pending"]
        assert ledger.requests()[0].pending  # it has still to be applied
        ledger.release([a.id])
        assert self.states(ledger) == ["pending", "pending"]
        ledger.claim([a.id, b.id])
        assert self.states(ledger) == ["in_progress", "in_progress"]

    def test_what_is_claimed_or_completed_cannot_be_claimed(self) -> None:
        ledger, (a, b, c) = self.ledger(), (asked("u1"), asked("u2"), asked("u3"))
        for request in (a, b, c):
            ledger.append(request)
        ledger.claim([a.id])
        ledger.settle({b.id: "w"})
        for request, state in ((a, "in_progress"), (b, "completed")):
            with pytest.raises(FolderError, match=rf"request {request.id} is {state}: nothing was applied; run again"):
                self.restarted(ledger).claim([c.id, request.id])
        assert self.states(ledger) == ["in_progress", "completed", "pending"]

    def test_releasing_what_is_completed_changes_nothing(self) -> None:
        ledger, request = self.ledger(), asked()
        ledger.append(request)
        ledger.settle({request.id: "w"})
        before = ledger.requests()
        ledger.release([request.id])
        ledger.release([])
        assert self.restarted(ledger).requests() == before

    # --- completing ---------------------------------------------------------------------------------------------------

    def test_a_completed_request_keeps_its_count_and_no_item(self) -> None:
        ledger, (a, b) = self.ledger(), (asked("u1"), asked("u2"))
        for request in (a, b):
            ledger.append(request)
        ledger.claim([a.id])
        ledger.settle({a.id: "w"})
        done, waiting = self.restarted(ledger).requests()
        assert (done.id, done.kind, done.user, done.count, done.received) == (a.id, "unshare", "u1", 2, a.received)
        assert (done.items, done.withdrawal, done.status, done.pending) == ((), "w", "completed", False)
        assert done.completed is not None
        assert done.completed >= done.received
        assert waiting == b

    def test_completing_again_changes_nothing(self) -> None:
        ledger, request = self.ledger(), asked()
        ledger.append(request)
        ledger.settle({request.id: "first"})
        before = ledger.requests()
        ledger.settle({request.id: "second"})
        ledger.settle({"00000000-0000-0000-0000-000000000000": "of another ledger"})
        assert self.restarted(ledger).requests() == before

    def test_of_whoever_is_gone_no_request_keeps_the_name_and_none_is_left_to_do(self) -> None:
        ledger = self.ledger()
        earlier, erasure, other, late = asked("u1"), asked("u1", "erase"), asked("u2"), asked("u1")
        for request in (earlier, erasure, other):
            ledger.append(request)
        ledger.settle({earlier.id: "first"})
        ledger.append(late)  # while the erasure is worked on
        ledger.settle({erasure.id: "second"}, gone=["u1"])
        found = self.restarted(ledger).requests()
        assert [request.user for request in found] == ["", "", "u2", ""]
        assert [request.withdrawal for request in found] == ["first", "second", None, "second"]
        assert [request.pending for request in found] == [False, False, True, False]
        assert all(not request.items for request in found if not request.pending)

    def test_what_is_shown_to_others_names_no_item(self) -> None:
        ledger = self.ledger()
        ledger.append(asked())
        shown = self.restarted(ledger).requests()[0].public()
        assert "items" not in shown
        assert (shown["user"], shown["count"], shown["status"]) == ("u1", 2, "pending")
