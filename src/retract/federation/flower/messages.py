"""Flower's messages: parcels as its records, a `Link` over its Grid, and the one ClientApp of a node."""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retract.errors import FederationError, missing_extra
from retract.federation.flower.engine import Answer, Seen
from retract.federation.flower.node import Node, answering
from retract.federation.wire import NUMBERED, Parcel
from retract.version import __version__

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
except ModuleNotFoundError as error:
    raise missing_extra("a federation over a network", "flower", error.name or "flwr") from None

if TYPE_CHECKING:
    from flwr.serverapp import Grid

HEADER, FIELDS, ARRAYS = "retract", "fields", "arrays"
TYPE = "query"
"""Of our messages, for Flower."""
LATE = 3600.0
"""Seconds after the deadline in which a node may still get rid of its answer, which nobody reads then."""
POLL = 0.2
"""Seconds between two looks at what has come in."""


def to_record(about: Mapping[str, Any], parcel: Parcel) -> RecordDict:
    """What one message holds, for Flower.

    Parameters
    ----------
    about
        What is said of the parcel.
    """
    header = ConfigRecord({"about": json.dumps(dict(about)), FIELDS: json.dumps(dict(parcel.fields))})
    arrays = ArrayRecord({name: Array(np.asarray(array)) for name, array in parcel.arrays.items()})
    return RecordDict({HEADER: header, ARRAYS: arrays})


def of_record(record: RecordDict) -> tuple[dict[str, Any], Parcel]:
    """What `to_record` wrote; arrays are read without pickle.

    Raises
    ------
    FederationError
        If it is something else.
    """
    try:
        header, arrays = record.config_records[HEADER], record.array_records[ARRAYS]
        about, fields = (json.loads(str(header[name])) for name in ("about", FIELDS))
        if not isinstance(about, dict) or not isinstance(fields, dict):
            raise ValueError
        return about, Parcel(fields, {str(name): array.numpy() for name, array in arrays.items()})
    except (KeyError, ValueError, TypeError, EOFError):
        raise FederationError("a message holds what is not of retract, or is damaged") from None


def weight(record: RecordDict) -> int:
    """Bytes of a message's content."""
    arrays = sum(len(array.data) for own in record.array_records.values() for array in own.values())
    texts = (str(value) for own in record.config_records.values() for value in own.values())
    return arrays + sum(len(text.encode()) for text in texts)


class FlowerLink:
    """A `Link` over Flower's Grid.

    Flower's signatures do not cover who sent a message. So every question holds a token that its node alone was sent,
    and an answer counts if it returns it, once.

    Parameters
    ----------
    grid
        Flower's.
    complain
        Takes one line on a node that misbehaved.
    keyed
        Whether nodes have keys of their own. In a simulation, and without TLS, Flower draws new ones at every start.
    """

    def __init__(self, grid: Grid, complain: Callable[[str], None] = lambda line: None, *, keyed: bool = True) -> None:
        self.grid, self._complain, self._keyed = grid, complain, keyed
        self.seen: dict[str, Seen] = {}

    def nodes(self) -> dict[int, str]:
        """The nodes that are connected: known by their keys, or by number where they have none."""
        keys = {node.node_id: node.public_key.hex() if self._keyed else "" for node in _infos(self.grid)}
        return {node: key or f"{NUMBERED}{node}" for node, key in keys.items()}

    def weight(self, parcel: Parcel) -> int:
        """Bytes of a question."""
        return weight(to_record({"token": "0" * 32, "action": "task", "version": __version__}, parcel))

    def complain(self, line: str) -> None:
        """Tell a person."""
        self._complain(line)

    def ask(self, action: str, parcels: Mapping[int, Parcel], deadline: float) -> dict[int, Answer]:
        """Send every node its parcel; one answer for each, an empty one where none came in time.

        Raises
        ------
        FederationError
            If the SuperLink cannot be reached.
        """
        tokens = {node: secrets.token_hex(16) for node in parcels}
        found: dict[int, Answer] = {}
        try:
            waiting = self._sent(action, parcels, tokens, deadline)
            until = time.monotonic() + deadline
            while waiting and time.monotonic() < until:
                for reply in self.grid.pull_messages(list(waiting)):
                    if (node := waiting.pop(reply.metadata.reply_to_message_id, None)) is None:
                        self.complain(f"node {reply.metadata.src_node_id} answered what it was not asked, or twice")
                    else:
                        found[node] = _judged(reply, node, tokens[node])
                        self.seen[action].answered(found[node])
                if waiting:
                    time.sleep(POLL)
        except (ConnectionError, OSError) as error:
            raise FederationError(f"the SuperLink cannot be reached ({type(error).__name__}): start it again") from None
        late = Answer(None, complaint=f"it did not answer within {deadline:g} s")
        return {node: found.get(node, late) for node in parcels}

    def _sent(
        self, action: str, parcels: Mapping[int, Parcel], tokens: Mapping[int, str], deadline: float
    ) -> dict[str, int]:
        """By id of a message, the node that it was sent to."""
        sent = {}
        for node, parcel in parcels.items():
            about = {"token": tokens[node], "action": action, "version": __version__}
            record = to_record(about, parcel)
            self.seen.setdefault(action, Seen()).asked(weight(record))
            message = Message(record, dst_node_id=node, message_type=TYPE, ttl=deadline + LATE)
            for number in self.grid.push_messages([message]):
                if number is not None:
                    sent[number] = node
        return sent


def _infos(grid: Grid) -> Iterable[Any]:
    """What the Grid says of its nodes."""
    return grid.get_nodes()


def _judged(reply: Message, node: int, token: str) -> Answer:
    """An answer, if it is one of the node that was asked, of the same software."""
    if reply.has_error():
        return Answer(None, complaint=" ".join((reply.error.reason or "an error").split())[:300])
    try:
        about, parcel = of_record(reply.content)
    except FederationError as error:
        return Answer(None, complaint=str(error))
    if not hmac.compare_digest(str(about.get("token")), token) or reply.metadata.src_node_id != node:
        return Answer(None, complaint="the answer is of somebody else")
    if about.get("version") != __version__:
        return Answer(None, complaint=f"it has retract {about.get('version')}, the server {__version__}", refused=True)
    if about.get("refusal") is not None:
        return Answer(None, complaint=f"node {node}: {str(about['refusal'])[:500]}", refused=True)
    return Answer(parcel, weight(reply.content))


def client_app(node_of: Callable[[Context], Node]) -> ClientApp:
    """The one ClientApp of a node, for all tasks of all systems.

    Parameters
    ----------
    node_of
        From Flower's context to the node whose users' data it is.
    """
    app = ClientApp()

    @app.query()  # type: ignore[untyped-decorator, unused-ignore]
    def query(message: Message, context: Context) -> Message:
        about, parcel = of_record(message.content)
        told, answer = answering(node_of(context), str(about.get("action")), str(about.get("version")), parcel)
        return Message(to_record({**told, "token": about.get("token")}, answer), reply_to=message)

    return app
