"""Federations without a network: Flower's Grid in this process, and a link without Flower."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from retract.federation.flower import Answer, Node, Seen, answering
from retract.federation.wire import Parcel
from retract.version import __version__

if TYPE_CHECKING:
    from flwr.app import Message

Change = Callable[["Message"], "list[Message]"]


class DirectLink:
    """A `Link` that asks nodes in this process, and keeps what passed.

    Parameters
    ----------
    nodes
        By number.
    keys
        What each is known by; its number unless given.
    """

    def __init__(self, nodes: Mapping[int, Node], keys: Mapping[int, str] | None = None) -> None:
        self.there, self.keys = dict(nodes), keys or {number: f"key {number}" for number in nodes}
        self.complaints: list[str] = []
        self.received: list[tuple[str, int, Parcel]] = []
        self.sent: list[tuple[str, int, Parcel]] = []
        self.silent: set[int] = set()
        self.seen: dict[str, Seen] = {}
        self.before: Callable[[str], None] = lambda action: None

    def nodes(self) -> Mapping[int, str]:
        return {number: self.keys[number] for number in self.there}

    def weight(self, parcel: Parcel) -> int:
        return sum(array.nbytes for array in parcel.arrays.values()) + len(json.dumps(dict(parcel.fields)))

    def complain(self, line: str) -> None:
        self.complaints.append(line)

    def ask(self, action: str, parcels: Mapping[int, Parcel], deadline: float) -> Mapping[int, Answer]:
        self.before(action)
        return {number: self._asked(action, number, parcel) for number, parcel in parcels.items()}

    def _asked(self, action: str, number: int, parcel: Parcel) -> Answer:
        self.sent.append((action, number, parcel))
        self.seen.setdefault(action, Seen()).asked(self.weight(parcel))
        if number in self.silent:
            return Answer(None, complaint="it did not answer in time")
        told, answer = answering(self.there[number], action, __version__, parcel)
        if told["refusal"] is not None:
            return Answer(None, complaint=str(told["refusal"]), refused=True)
        self.received.append((action, number, answer))
        found = Answer(answer, self.weight(answer))
        self.seen[action].answered(found)
        return found


def flower_grid(nodes: Mapping[int, Node], change: Change | None = None) -> Any:
    """Flower's Grid over nodes in this process.

    Parameters
    ----------
    change
        What becomes of an answer on its way: none, one, or several.
    """
    from flwr.app import Context, RecordDict
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.serverapp import Grid
    from flwr.supercore.task_identity import TaskIdentity

    from retract.federation.flower.messages import client_app

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1

    class InProcess(Grid):
        def __init__(self) -> None:
            self.waiting: list[Message] = []
            self.number = 0

        def set_run(self, run: object) -> None:
            raise NotImplementedError

        @property
        def run(self) -> Any:
            raise NotImplementedError

        def create_message(self, *args: object, **fields: object) -> Any:
            raise NotImplementedError

        def get_node_ids(self) -> Iterable[int]:
            return list(nodes)

        def get_nodes(self) -> Iterable[Any]:
            return [NodeInfo(node_id=number) for number in nodes]

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            pushed = []
            for message in messages:
                self.number += 1
                message.metadata.__dict__["_message_id"] = f"m{self.number}"
                node = message.metadata.dst_node_id
                context = Context(1, node, {}, RecordDict(), {})
                reply = client_app(lambda context: nodes[context.node_id])(message, context)
                self.waiting += [reply] if change is None else change(reply)
                pushed.append(f"m{self.number}")
            return pushed

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            found, self.waiting = self.waiting, []
            return found

        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            raise NotImplementedError

    return InProcess()
