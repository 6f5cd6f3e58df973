"""What every store of devices has to pass."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retract.data import Catalog, Interactions, Sharing
from retract.federation import ClientState, ClientTask, Cohort, DeviceStore, Reply, TaskSpec, TensorSpec, UpdateSpec
from tests.contracts.tasks import N_ITEMS, TASKS, Count, broadcast, data, sharing, spec

ALL = 10**6
WIDE = 256


@pytest.mark.contract
class DeviceStoreContract:
    """Inherit it, name the class `Test…`, and say how a store is made."""

    def store(self, sharing: Sharing) -> DeviceStore:
        """A new store that hosts these users."""
        raise NotImplementedError

    def restarted(self, store: DeviceStore) -> DeviceStore:
        """The same store in a new process; itself where it lives in one process alone."""
        return store

    def round(
        self,
        store: DeviceStore,
        asked: TaskSpec,
        round: int,
        users: NDArray[np.int64] | None = None,
        bound: int = 10**6,
        seed: int = 1,
    ) -> list[Reply]:
        """One round of some users, all of them unless given, as an engine runs it."""
        task, replies = TASKS[asked.task](asked), []
        for cohort in store.cohorts(asked, store.users if users is None else users, bound):
            state = store.state(task, asked, round, cohort, seed)
            replies.append(task(broadcast(round), cohort, state, seed))
            store.keep(asked, round, cohort, replies[-1])
        return replies

    # --- who is there -------------------------------------------------------------------------------------------------

    def test_users_are_those_who_hold_something_ascending(self) -> None:
        store = self.restarted(self.store(sharing()))
        assert store.users.tolist() == [0, 1, 2, 4, 5, 6, 7]
        assert store.clients_of(store.users).tolist() == store.users.tolist()

    def test_users_who_are_dealt_among_clients_stay_with_theirs(self) -> None:
        dealt = sharing(3)
        store = self.restarted(self.store(dealt))
        assert dealt.client_of is not None
        assert store.clients_of(store.users).tolist() == dealt.client_of[store.users].tolist()

    # --- cohorts ------------------------------------------------------------------------------------------------------

    def test_cohorts_are_of_whole_clients_within_the_bound_or_of_a_single_one(self) -> None:
        for clients in (None, 3):
            store = self.store(sharing(clients))
            for bound in (1, 5, 9, 10**6):
                cohorts = list(store.cohorts(spec("count"), store.users, bound))
                users = np.concatenate([cohort.users for cohort in cohorts])
                assert sorted(users.tolist()) == store.users.tolist()
                parts = [set(store.clients_of(cohort.users).tolist()) for cohort in cohorts]
                assert sum(map(len, parts)) == len(set().union(*parts))
                for cohort in cohorts:
                    assert len(cohort.items) <= bound or cohort.n_clients == 1
                    assert cohort.n_clients == len(np.unique(store.clients_of(cohort.users)))
                    self.assert_is_theirs(store, cohort)

    def assert_is_theirs(self, store: DeviceStore, cohort: Cohort) -> None:
        held = data()
        assert held.ratings is not None
        assert cohort.n_items == N_ITEMS
        assert cohort.ratings is not None
        for place, user in enumerate(cohort.users):
            own = slice(cohort.indptr[place], cohort.indptr[place + 1])
            assert cohort.items[own].tolist() == held.items_of(user).tolist()
            assert cohort.ratings[own].tolist() == held.ratings[held.users == user].tolist()
        if cohort.clients is not None:
            assert cohort.clients.tolist() == np.unique(store.clients_of(cohort.users), return_inverse=True)[1].tolist()

    def test_only_who_is_asked_and_hosted_is_in_a_cohort(self) -> None:
        store = self.store(sharing())
        assert [cohort.users.tolist() for cohort in store.cohorts(spec("count"), np.array([1, 3, 6, 8]), 100)] == [
            [1, 6]
        ]
        assert not list(store.cohorts(spec("count"), np.empty(0, dtype=np.int64), 100))
        assert not list(store.cohorts(spec("count"), np.array([3, 8]), 100))

    # --- state by (run, round) ----------------------------------------------------------------------------------------

    def seen(self, store: DeviceStore, run: str = "a") -> dict[int, int]:
        """What every client with a state has counted."""
        kept = store.kept(run)
        return dict(zip(kept.clients.tolist(), kept.state["seen"].tolist(), strict=True)) if kept.state else {}

    def expected(self, rounds: Iterable[int], client: int, n: int, seed: int = 1) -> int:
        """What a client of n interactions has counted after taking part in some rounds."""
        count = int(Count(spec("count")).start(np.array([client]), N_ITEMS, seed)["seen"][0])
        for round in rounds:
            count = 2 * count + n + round
        return count

    def test_a_client_starts_its_own_state_whoever_else_is_there(self) -> None:
        degrees = data().user_degrees()
        for users in ([0, 1, 2, 4, 5, 6, 7], [4], [6, 7]):
            for bound in (1, 10**6):
                store = self.store(sharing())
                self.round(store, spec("count"), 0, np.array(users), bound)
                wanted = {user: self.expected([0], user, degrees[user]) for user in users}
                assert self.seen(self.restarted(store)) == wanted

    def test_what_was_kept_is_what_the_next_round_begins_with(self) -> None:
        degrees, store = data().user_degrees(), self.store(sharing())
        for round in range(4):
            self.round(store, spec("count"), round, np.array([1, 2, 5][: 3 - round % 2]))
            store = self.restarted(store)
        wanted = {user: self.expected(range(4), user, degrees[user]) for user in (1, 2)}
        assert self.seen(store) == {**wanted, 5: self.expected([0, 2], 5, degrees[5])}
        kept = store.kept("a")
        assert kept.state["table"].dtype == np.float32
        assert kept.state["table"].shape == (3, 2)
        assert kept.places_of(np.array([2, 3, 5])).tolist() == [1, -1, 2]
        assert kept.held is not None
        assert kept.held.keys.tolist() == data().keys.tolist()

    def test_a_retry_of_a_round_changes_nothing_twice(self) -> None:
        for first, again in (([0, 1, 2], [0, 1, 2]), ([0, 1, 2], [2]), ([1, 2], [1, 2, 4]), ([4], [1, 2, 4])):
            store, plain = self.store(sharing()), self.store(sharing())
            for one in (store, plain):
                self.round(one, spec("count"), 0)
            self.round(store, spec("count"), 1, np.array(first))
            store = self.restarted(store)
            self.round(store, spec("count"), 1, np.array(again), bound=1)
            self.round(store, spec("count"), 1, np.array(again))
            once = np.array(sorted({*first, *again}))
            replies = self.round(plain, spec("count"), 1, once)
            assert self.seen(self.restarted(store)) == self.seen(plain)
            retried = self.round(self.restarted(store), spec("count"), 1, once)
            assert [each.update.tensors["items"].tolist() for each in retried] == [
                each.update.tensors["items"].tolist() for each in replies
            ]

    def test_a_retry_of_the_first_round_begins_anew(self) -> None:
        store = self.store(sharing())
        for _ in range(3):
            self.round(store, spec("count"), 0, seed=1)
            store = self.restarted(store)
        degrees = data().user_degrees()
        assert self.seen(store) == {user: self.expected([0], user, degrees[user]) for user in store.users.tolist()}

    def test_a_round_that_was_cut_off_half_way_can_be_done_again(self) -> None:
        store, plain = self.store(sharing()), self.store(sharing())
        for one in (store, plain):
            self.round(one, spec("count"), 0)
        task, asked = Count(spec("count")), spec("count")
        for number, cohort in enumerate(store.cohorts(asked, store.users, 1)):
            state = store.state(task, asked, 1, cohort, 1)
            if number < 3:  # the other clients were asked for their state, and then the process died
                store.keep(asked, 1, cohort, task(broadcast(1), cohort, state, 1))
        store = self.restarted(store)
        for one in (store, plain):
            self.round(one, asked, 1)
        assert self.seen(self.restarted(store)) == self.seen(plain)

    def test_another_task_of_the_same_round_is_no_retry(self) -> None:
        store, degrees = self.store(sharing()), data().user_degrees()
        self.round(store, spec("count"), 1)
        store = self.restarted(store)
        self.round(store, spec("read", journal=1), 1)
        self.round(store, spec("write"), 1)
        assert self.seen(store) == {user: self.expected([1, 1], user, degrees[user]) for user in store.users.tolist()}

    def test_a_run_that_is_new_starts_anew_and_leaves_the_other_alone(self) -> None:
        store, degrees = self.store(sharing()), data().user_degrees()
        for round in range(2):
            self.round(store, spec("count", "a"), round)
        before = self.seen(store, "a")
        self.round(store, spec("count", "b"), 0, np.array([0, 1]))
        store = self.restarted(store)
        self.round(store, spec("count", "b"), 1)  # the others were away when the run began
        assert self.seen(store, "a") == before
        wanted = {user: self.expected([1], user, degrees[user]) for user in store.users.tolist()}
        assert self.seen(store, "b") == {
            **wanted,
            **{user: self.expected([0, 1], user, degrees[user]) for user in (0, 1)},
        }

    def test_a_client_of_several_users_keeps_one_state(self) -> None:
        dealt = sharing(3)
        store = self.store(dealt)
        assert dealt.client_of is not None
        for round in range(2):
            self.round(store, spec("count"), round, bound=1 if round else 10**6)
            store = self.restarted(store)
        own = np.bincount(dealt.client_of[data().users])
        assert self.seen(store) == {client: self.expected([0, 1], client, own[client]) for client in range(3)}
        kept = store.kept("a")
        assert kept.clients_of(store.users).tolist() == dealt.client_of[store.users].tolist()

    def test_of_a_run_that_nobody_took_part_in_nothing_is_kept(self) -> None:
        store = self.store(sharing())
        self.round(store, spec("read", journal=0), 0)
        for run in ("a", "never"):
            kept = self.restarted(store).kept(run)
            assert kept.held is not None
            assert (len(kept.clients), kept.held.keys.tolist()) == (0, data().keys.tolist())

    # --- journals -----------------------------------------------------------------------------------------------------

    def written(self, store: DeviceStore, round: int, run: str = "a", bound: int = 10**6) -> list[int]:
        """How often each item was written down in a round."""
        replies = self.round(store, spec("read", run, journal=round), 9, bound=bound)
        return np.sum([reply.update.tensors["items"] for reply in replies], axis=0).tolist()

    def test_a_journal_is_read_by_its_round_and_its_writers_alone(self) -> None:
        for clients in (None, 3):
            store = self.store(sharing(clients))
            some = store.users[np.isin(store.clients_of(store.users), store.clients_of(store.users[:2]))]
            self.round(store, spec("write"), 0)
            self.round(store, spec("write"), 1, some, bound=3)
            store = self.restarted(store)
            assert self.written(store, 0) == self.written(store, 0, bound=1) == data().item_degrees().tolist()
            assert self.written(store, 1) == self.written(store, 1, bound=1)
            assert self.written(store, 1) == data().of_users(some).item_degrees().tolist()
            assert self.written(store, 2) == self.written(store, 0, run="b") == [0] * N_ITEMS
            for bound in (1, 10**6):
                for cohort in store.cohorts(spec("read", journal=0), store.users, bound):
                    held = np.bincount(cohort.clients[cohort.rows] if cohort.clients is not None else cohort.rows)
                    assert np.bincount(cohort.journal["client"]).tolist() == held.tolist()
            assert not next(iter(store.cohorts(spec("count"), store.users, 10**6))).journal

    def test_who_writes_again_in_a_round_replaces_what_was_written(self) -> None:
        store = self.store(sharing())
        self.round(store, spec("write"), 0)
        store = self.restarted(store)
        self.round(store, spec("write"), 0, bound=1)
        self.round(store, spec("write"), 0, store.users[:3])
        assert self.written(self.restarted(store), 0) == data().item_degrees().tolist()

    # --- what it costs ------------------------------------------------------------------------------------------------

    def test_state_is_kept_for_the_hosted_clients_alone(self) -> None:
        names = Catalog(np.zeros(ALL, dtype="<U2"), np.array(["x", "y", "z"]))
        names.user_ids[-1] = "me"
        store = self.store(Sharing(Interactions.of(names, [ALL - 1], [1]), Interactions.of(names, [ALL - 1], [2])))
        asked = TaskSpec("contract", "wide", {}, "a", UpdateSpec({"n": TensorSpec((), "int64")}))
        task: ClientTask = Wide(asked)
        next(iter(store.cohorts(asked, store.users, 10)))  # what is counted once of the data is not what is asked here
        tracemalloc.start()
        try:
            for round in range(2):
                for cohort in store.cohorts(asked, store.users, 10):
                    state = store.state(task, asked, round, cohort, 0)
                    store.keep(asked, round, cohort, task(broadcast(round), cohort, state, 0))
            kept = store.kept("a")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept.state["wide"].tolist() == [[2.0] * WIDE]
        assert kept.clients.tolist() == [ALL - 1]
        assert peak < 4 * ALL  # a row for each user of the catalog would take 1024 times a million bytes


class Wide:
    """Keeps much of a single client."""

    def __init__(self, spec: TaskSpec) -> None:
        self.update = spec.update

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        return {"wide": np.zeros((len(clients), WIDE), dtype=np.float32)}

    def __call__(self, broadcast: Any, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        after = {"wide": state["wide"] + np.float32(1)}
        return Reply(self.update.zeros(), after, np.full(cohort.n_clients, 8))
