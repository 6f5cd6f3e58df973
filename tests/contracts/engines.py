"""What every engine has to pass. The tasks are those of `tests.contracts.tasks`; an engine's devices must know them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from retract.data import Sharing
from retract.errors import ConfigError, FederationError
from retract.federation import Engine, Kept, RoundResult, TaskSpec, payload_bytes
from tests.contracts.tasks import COUNTED, N_ITEMS, Count, broadcast, data, sharing, spec

Split = Literal["one", "some", "single"]
SPLITS: tuple[Split, ...] = ("one", "some", "single")
DOWN = 12
"""Bytes of a broadcast."""


@pytest.mark.contract
class EngineContract:
    """Inherit it, name the class `Test…`, and say how an engine is made, and how to look into its devices."""

    def engine(self, sharing: Sharing, split: Split = "one", dropout: float = 0.0) -> Engine:
        """An engine over new devices that know the tasks of `tests.contracts.tasks`.

        Parameters
        ----------
        split
            How the users are parted where they are: all in "one" cohort or node, "some" in each, or every client alone.
        dropout
            The part of the clients that does not answer.
        """
        raise NotImplementedError

    def kept(self, engine: Engine, run: str) -> Kept:
        """What the devices keep of a run."""
        raise NotImplementedError

    def round(
        self, engine: Engine, asked: TaskSpec, round: int, users: NDArray[np.int64] | None = None, seed: int = 1
    ) -> RoundResult:
        """One round of some users, all of them unless given."""
        return engine.run(asked, broadcast(round), engine.users if users is None else users, seed=seed)

    def seen(self, engine: Engine, run: str = "a") -> dict[int, int]:
        """What every client with a state has counted."""
        kept = self.kept(engine, run)
        return dict(zip(kept.clients.tolist(), kept.state["seen"].tolist(), strict=True)) if kept.state else {}

    # --- the law ------------------------------------------------------------------------------------------------------

    def test_users_are_those_who_hold_something_and_have_the_clients_of_their_data(self) -> None:
        for dealt in (sharing(), sharing(3)):
            for split in SPLITS:
                engine = self.engine(dealt, split)
                assert engine.users.tolist() == [0, 1, 2, 4, 5, 6, 7]
                wanted = engine.users if dealt.client_of is None else dealt.client_of[engine.users]
                assert engine.clients_of(engine.users).tolist() == wanted.tolist()

    def test_however_the_users_are_parted_the_update_and_the_state_are_the_same(self) -> None:
        for dealt in (sharing(), sharing(3)):
            engines = [self.engine(dealt, split) for split in SPLITS]
            for round in range(3):
                users = engines[0].users[: 7 - 2 * round]
                if dealt.client_of is not None:
                    users = engines[0].users  # a client takes part as a whole
                found = [self.round(engine, spec("count"), round, users) for engine in engines]
                for result in found:
                    assert result.update.spec == COUNTED
                    for name, tensor in found[0].update.tensors.items():
                        assert np.array_equal(result.update.tensors[name], tensor), name
                        assert np.asarray(result.update.tensors[name]).dtype == np.asarray(tensor).dtype
                    assert result.update.clients == len(np.unique(engines[0].clients_of(users)))
                    assert (result.bytes_up, result.bytes_down) == (found[0].bytes_up, found[0].bytes_down)
            assert self.seen(engines[0]) == self.seen(engines[1]) == self.seen(engines[2])

    def test_a_round_of_everyone_is_the_sum_of_rounds_of_some(self) -> None:
        whole, parts = self.engine(sharing()), [self.engine(sharing()) for _ in range(3)]
        result = self.round(whole, spec("count"), 0)
        some = [whole.users[:1], whole.users[1:4], whole.users[4:]]
        found = [self.round(engine, spec("count"), 0, users) for engine, users in zip(parts, some, strict=True)]
        total = found[0].update + found[1].update + found[2].update
        assert total.clients == result.update.clients == 7
        assert np.array_equal(total.tensors["items"], result.update.tensors["items"])
        assert result.update.tensors["items"][:, 1].tolist() == data().item_degrees().tolist()
        assert sum(each.bytes_up for each in found) == result.bytes_up

    # --- who answered -------------------------------------------------------------------------------------------------

    def test_who_answered_and_who_is_missing_are_told_apart_and_the_sum_is_over_the_former(self) -> None:
        for dealt in (sharing(), sharing(4)):
            missed = 0
            for round in range(12):
                engine = self.engine(dealt, dropout=0.4)
                result = self.round(engine, spec("count"), round)
                everyone = np.concatenate([result.answered, result.missing])
                assert sorted(everyone.tolist()) == engine.users.tolist()
                assert (np.diff(result.answered) > 0).all()
                assert (np.diff(result.missing) > 0).all()
                answering = np.unique(engine.clients_of(result.answered))
                assert not np.isin(answering, engine.clients_of(result.missing)).any()
                assert result.update.clients == len(answering)
                held = data().of_users(result.answered)
                assert result.update.tensors["items"][:, 1].tolist() == held.item_degrees().tolist()
                assert sorted(self.seen(engine)) == answering.tolist()
                missed += len(result.missing)
            assert 0 < missed < 12 * 7

    def test_where_nobody_answers_the_sum_is_over_nobody(self) -> None:
        for round in range(40):
            engine = self.engine(sharing(), dropout=0.9)
            result = self.round(engine, spec("count"), round)
            if not len(result.answered):
                break
        assert len(result.missing) == 7
        assert result.update.clients == 0
        assert not any(np.any(tensor) for tensor in result.update.tensors.values())
        assert (result.bytes_up, self.seen(engine)) == (0, {})

    def test_who_is_asked_and_holds_nothing_did_not_answer(self) -> None:
        result = self.round(self.engine(sharing()), spec("count"), 0, np.array([1, 3, 8]))
        assert (result.answered.tolist(), result.missing.tolist()) == ([1], [3, 8])
        assert result.update.clients == 1

    # --- refusals -----------------------------------------------------------------------------------------------------

    def test_a_round_of_nobody_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="no client takes part in this round"):
            self.round(self.engine(sharing()), spec("count"), 0, np.empty(0, dtype=np.int64))

    def test_a_reply_that_does_not_fit_the_specification_is_refused(self) -> None:
        for split in SPLITS:
            engine = self.engine(sharing(), split)
            self.round(engine, spec("count"), 0)
            before = self.seen(engine)
            with pytest.raises(FederationError):
                self.round(engine, spec("misshape"), 1)
            assert self.seen(engine) == before

    def test_a_task_that_no_device_knows_is_refused(self) -> None:
        engine = self.engine(sharing())
        with pytest.raises(FederationError, match="unheard"):
            self.round(engine, spec("unheard"), 0)
        assert self.seen(engine) == {}

    # --- what passed --------------------------------------------------------------------------------------------------

    def test_bytes_updates_and_rounds_are_counted(self) -> None:
        for split in SPLITS:
            engine = self.engine(sharing(), split)
            touched = np.unique(data().keys)
            count = self.round(engine, spec("count"), 0)
            assert (count.bytes_up, count.bytes_down) == (len(touched) * 20 + 7 * 8, 7 * DOWN)
            write = self.round(engine, spec("write"), 1, engine.users[:2])
            assert write.bytes_down == 2 * 4
            passed = engine.traffic
            assert (passed.rounds, passed.updates) == (2, 9)
            assert (passed.up, passed.down) == (count.bytes_up + write.bytes_up, 7 * DOWN + 2 * 4)
            assert passed.seconds > 0

    def test_a_single_clients_message_weighs_what_its_update_does(self) -> None:
        for dealt in (sharing(), sharing(3)):
            engine = self.engine(dealt)
            clients = engine.clients_of(engine.users)
            for client in np.unique(clients):
                result = self.round(engine, spec("count"), 0, engine.users[clients == client])
                assert result.bytes_up == payload_bytes(result.update)

    # --- runs and retries ---------------------------------------------------------------------------------------------

    def test_a_retry_of_a_round_brings_the_same_update_and_leaves_the_same_state(self) -> None:
        for split in SPLITS:
            engine = self.engine(sharing(), split)
            for round in range(3):
                first = self.round(engine, spec("count"), round)
                state = self.seen(engine)
                again = self.round(engine, spec("count"), round)
                assert np.array_equal(first.update.tensors["items"], again.update.tensors["items"])
                assert self.seen(engine) == state

    def test_a_new_run_starts_everyone_anew_whoever_was_away(self) -> None:
        engine, fresh = self.engine(sharing()), self.engine(sharing())
        for round in range(2):
            self.round(engine, spec("count", "a"), round)
        self.round(engine, spec("count", "b"), 0, engine.users[:3])
        self.round(fresh, spec("count", "b"), 0, engine.users[:3])
        mine, theirs = (self.round(each, spec("count", "b"), 1) for each in (engine, fresh))
        assert np.array_equal(mine.update.tensors["items"], theirs.update.tensors["items"])
        assert self.seen(engine, "b") == self.seen(fresh, "b")

    def test_who_was_away_goes_on_from_its_own_last_round(self) -> None:
        engine = self.engine(sharing())
        for round, users in enumerate((engine.users, engine.users[:2], engine.users)):
            result = self.round(engine, spec("count"), round, users)
        wanted = np.zeros(N_ITEMS)
        for user in engine.users.tolist():
            own = data().items_of(user)
            count = int(Count(spec("count")).start(np.array([user]), N_ITEMS, 1)["seen"][0])
            for round in (0, 1) if user in engine.users[:2] else (0,):
                count = 2 * count + len(own) + round
            wanted[own] += count
        assert result.update.tensors["items"][:, 0].tolist() == wanted.tolist()

    def test_a_journal_is_read_where_it_was_written(self) -> None:
        for split in SPLITS:
            engine = self.engine(sharing(), split)
            self.round(engine, spec("write"), 0)
            self.round(engine, spec("write"), 1, engine.users[2:4])
            read = self.round(engine, spec("read", journal=0), 5)
            assert read.update.tensors["items"].tolist() == data().item_degrees().tolist()
            read = self.round(engine, spec("read", journal=1), 6)
            assert read.update.tensors["items"].tolist() == data().of_users(engine.users[2:4]).item_degrees().tolist()
