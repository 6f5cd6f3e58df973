"""The engine over Flower's Grid against the contract, and what becomes of answers that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retract.data import Sharing
from retract.errors import ConfigError, FederationError
from retract.federation import Engine, Kept
from retract.federation.flower import FlowerEngine, Node, answer_task
from retract.federation.wire import ANSWERED, SUM, Parcel
from retract.stores.devices import MemoryDevices
from tests.contracts.engines import EngineContract, Split
from tests.contracts.tasks import TASKS, data, sharing, spec
from tests.federation.grids import Change, flower_grid

pytest.importorskip("flwr")

SHARES = {"one": 1, "some": 3, "single": 99}


class Hosting:
    """A node that knows the tasks of the contract."""

    def __init__(self, sharing: Sharing, dropout: float) -> None:
        self.devices, self.dropout = MemoryDevices(sharing), dropout

    def answer(self, action: str, parcel: Parcel) -> Parcel:
        assert action == "task"
        return answer_task(parcel, self.devices, lambda spec: TASKS, dropout=self.dropout)


def only(sharing: Sharing, users: np.ndarray) -> Sharing:
    return Sharing(sharing.shared.of_users(users), sharing.private.of_users(users), sharing.client_of)


def nodes_of(sharing: Sharing, split: Split, dropout: float = 0.0) -> tuple[dict[int, Hosting], dict[int, np.ndarray]]:
    users = sharing.everything.active_users()
    clients = users if sharing.client_of is None else sharing.client_of[users]
    hosts, nodes = {}, {}
    for number in range(SHARES[split]):
        own = users[clients % SHARES[split] == number]
        if len(own):
            hosts[100 + number], nodes[100 + number] = own, Hosting(only(sharing, own), dropout)
    return nodes, hosts


def engine_of(
    sharing: Sharing, split: Split = "some", dropout: float = 0.0, change: Change | None = None, deadline: float = 5.0
) -> tuple[FlowerEngine, dict[int, Hosting], list[str]]:
    from retract.federation.flower.messages import FlowerLink

    nodes, hosts = nodes_of(sharing, split, dropout)
    complaints: list[str] = []
    link = FlowerLink(flower_grid(nodes, change), complaints.append)
    return FlowerEngine(link, hosts, client_of=sharing.client_of, deadline=deadline), nodes, complaints


class TestFlowerEngine(EngineContract):
    def engine(self, sharing: Sharing, split: Split = "one", dropout: float = 0.0) -> Engine:
        engine, nodes, _ = engine_of(sharing, split, dropout)
        engine.nodes = nodes  # type: ignore[attr-defined]
        return engine

    def kept(self, engine: Engine, run: str) -> Kept:
        parts = [node.devices.kept(run) for node in engine.nodes.values()]  # type: ignore[attr-defined]
        parts = [part for part in parts if part.state]
        if not parts:
            return Kept()
        clients = np.concatenate([part.clients for part in parts])
        order = np.argsort(clients)
        names = parts[0].state
        state = {name: np.concatenate([part.state[name] for part in parts])[order] for name in names}
        return Kept(clients[order], state)

    # What a node sends is one message for all its users, so bytes are not those of the users' own messages.

    def test_however_the_users_are_parted_the_update_and_the_state_are_the_same(self) -> None:
        for dealt in (sharing(), sharing(3)):
            engines = [self.engine(dealt, split) for split in SHARES]  # type: ignore[arg-type]
            for round in range(3):
                found = [self.round(engine, spec("count"), round) for engine in engines]
                for result in found[1:]:
                    for name, tensor in found[0].update.tensors.items():
                        assert np.array_equal(result.update.tensors[name], tensor)
                    assert result.update.clients == found[0].update.clients
            assert self.seen(engines[0]) == self.seen(engines[1]) == self.seen(engines[2])

    def test_a_round_of_everyone_is_the_sum_of_rounds_of_some(self) -> None:
        whole, parts = self.engine(sharing(), "some"), [self.engine(sharing(), "some") for _ in range(3)]
        result = self.round(whole, spec("count"), 0)
        some = [whole.users[:1], whole.users[1:4], whole.users[4:]]
        found = [self.round(engine, spec("count"), 0, users) for engine, users in zip(parts, some, strict=True)]
        total = found[0].update + found[1].update + found[2].update
        assert np.array_equal(total.tensors["items"], result.update.tensors["items"])

    def test_bytes_updates_and_rounds_are_counted(self) -> None:
        engine = self.engine(sharing(), "some")
        results = [self.round(engine, spec("count"), round) for round in range(2)]
        assert engine.traffic.rounds == 2
        assert engine.traffic.updates == sum(result.update.clients for result in results)
        assert engine.traffic.up == sum(result.bytes_up for result in results) > 0
        assert engine.traffic.down == sum(result.bytes_down for result in results) > 0

    def test_a_single_clients_message_weighs_what_its_update_does(self) -> None:
        """Beside the fields and Flower's 128 bytes for the header of an array."""
        engine = self.engine(sharing(), "single")
        result = self.round(engine, spec("count"), 0, engine.users[:1])
        assert 0 < result.bytes_up < 1500


def altered(node: int, change: Any) -> Change:
    """Change the answers of one node."""
    from flwr.app import Message

    from retract.federation.flower.messages import of_record, to_record

    def on_the_way(reply: Message) -> list[Message]:
        if reply.metadata.src_node_id != node:
            return [reply]
        about, parcel = of_record(reply.content)
        about, parcel = change(about, parcel)
        reply.content = to_record(about, parcel)
        return [reply]

    return on_the_way


GARBAGE = {
    "a value that is not finite": lambda about, parcel: (
        about,
        replace(parcel, arrays={**parcel.arrays, SUM + "items": parcel.arrays[SUM + "items"] * np.nan}),
    ),
    "another shape": lambda about, parcel: (
        about,
        replace(parcel, arrays={**parcel.arrays, SUM + "interactions": np.zeros(3, dtype=np.int64)}),
    ),
    "another's users": lambda about, parcel: (
        about,
        replace(parcel, arrays={**parcel.arrays, ANSWERED: np.array([0, 1, 2, 4, 5, 6, 7], dtype=np.int32)}),
    ),
    "another version": lambda about, parcel: ({**about, "version": "0.0.1"}, parcel),
    "another token": lambda about, parcel: ({**about, "token": "0" * 32}, parcel),
    "no token": lambda about, parcel: ({"version": about["version"]}, parcel),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_node_that_answers_garbage_is_missing_and_the_round_is_over_the_others(kind: str) -> None:
    engine, _, complaints = engine_of(sharing(), change=altered(101, GARBAGE[kind]))
    result = engine.run(spec("count"), _broadcast(), engine.users, seed=1)
    gone = engine.hosts[101]
    assert result.missing.tolist() == gone.tolist()
    assert result.answered.tolist() == np.setdiff1d(engine.users, gone).tolist()
    assert result.update.tensors["items"][:, 1].tolist() == data().of_users(result.answered).item_degrees().tolist()
    assert len(complaints) == 1
    assert "101" in complaints[0]


def test_who_answers_for_another_node_is_not_heard() -> None:
    def steal(reply: Any) -> list[Any]:
        if reply.metadata.src_node_id == 101:
            reply.metadata.__dict__["_src_node_id"] = 100
        return [reply]

    engine, _, complaints = engine_of(sharing(), change=steal)
    result = engine.run(spec("count"), _broadcast(), engine.users, seed=1)
    assert result.missing.tolist() == engine.hosts[101].tolist()
    assert "somebody else" in complaints[0]


def test_who_answers_twice_counts_once() -> None:
    engine, _, complaints = engine_of(sharing(), change=lambda reply: [reply, reply])
    alone, _, _ = engine_of(sharing())
    twice, once = (each.run(spec("count"), _broadcast(), each.users, seed=1) for each in (engine, alone))
    assert np.array_equal(twice.update.tensors["items"], once.update.tensors["items"])
    assert (twice.update.clients, len(twice.missing)) == (once.update.clients, 0)
    assert all("twice" in line for line in complaints)


def test_a_node_that_does_not_answer_in_time_is_missing() -> None:
    engine, _, complaints = engine_of(
        sharing(), change=lambda reply: [] if reply.metadata.src_node_id == 102 else [reply], deadline=0.5
    )
    result = engine.run(spec("count"), _broadcast(), engine.users, seed=1)
    assert result.missing.tolist() == engine.hosts[102].tolist()
    assert "within 0.5 s" in complaints[0]


def test_a_message_that_is_not_ours_is_told_as_such() -> None:
    from flwr.app import ConfigRecord, RecordDict

    def other(reply: Any) -> list[Any]:
        reply.content = RecordDict({"retract": ConfigRecord({"about": "[]"})})
        return [reply]

    engine, _, complaints = engine_of(sharing(), change=other)
    result = engine.run(spec("count"), _broadcast(), engine.users, seed=1)
    assert not len(result.answered)
    assert all("not of retract" in line for line in complaints)


def test_arrays_of_objects_never_leave_and_never_come_in() -> None:
    from retract.federation.flower.messages import of_record, to_record

    with pytest.raises((ValueError, TypeError)):
        of_record(to_record({}, Parcel({}, {"x": np.array([{}], dtype=object)})))


def test_a_deadline_of_nothing_is_refused() -> None:
    nodes, hosts = nodes_of(sharing(), "some")
    assert isinstance(next(iter(nodes.values())), Hosting)
    with pytest.raises(ConfigError, match="deadline is 0"):
        FlowerEngine(None, hosts, deadline=0.0)  # type: ignore[arg-type]


def test_a_failing_node_tells_the_server_nothing_of_why() -> None:
    from retract.federation.flower.node import answering

    class Refusing:
        def answer(self, action: str, parcel: Parcel) -> Parcel:
            raise FederationError("no")

    node: Node = Refusing()
    told, parcel = answering(node, "task", "0.0.1", Parcel())
    assert "update the older one" in str(told["refusal"])
    assert parcel == Parcel()


def _broadcast() -> Any:
    from tests.contracts.tasks import broadcast

    return broadcast(0)
