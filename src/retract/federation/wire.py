"""Tasks and updates as what a network carries: plain fields, and arrays that hold numbers alone.

Whatever comes in is checked here, for it comes from somebody else's machine: names, types, shapes, places, and that
every number is finite. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.errors import FederationError
from retract.federation.contracts import Broadcast, RoundResult, TaskSpec
from retract.federation.updates import Arrays, TensorSpec, Update, UpdateSpec, touched_rows

USERS, ANSWERED, TABLE, SUM, ROWS, PLACES = "users", "answered", "table ", "sum ", "rows ", "places "
"""Names of arrays; those with a space at their end go before the name of a table or a tensor."""

NUMBERED = "node "
"""How a node's name begins that has no key, and goes by a number while it is connected."""


@dataclass(frozen=True)
class Parcel:
    """What one message holds.

    Parameters
    ----------
    fields
        Plain values: numbers, texts, lists and mappings of them.
    arrays
        Tables by name.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A task as a node was asked for it: with which tables, of which users, under which seed."""

    spec: TaskSpec
    broadcast: Broadcast
    users: NDArray[np.int64]
    seed: int


def texts(names: Sequence[str]) -> NDArray[np.uint8]:
    """A list of texts as an array, for a long list."""
    return np.frombuffer(json.dumps(list(names), ensure_ascii=False).encode(), dtype=np.uint8)


def texts_of(array: NDArray[Any]) -> list[str]:
    """What `texts` wrote.

    Raises
    ------
    FederationError
        If it is something else.
    """
    try:
        names = json.loads(np.asarray(array, dtype=np.uint8).tobytes())
    except (ValueError, TypeError):
        raise FederationError("a message was to hold a list of texts, and holds something else") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FederationError("a message was to hold a list of texts, and holds something else")
    return names


def task_parcel(spec: TaskSpec, broadcast: Broadcast, users: NDArray[np.int64], seed: int) -> Parcel:
    """A task for some users of a node."""
    fields = {
        **{name: value for name, value in asdict(spec).items() if name != "update"},
        "update": {name: asdict(tensor) for name, tensor in spec.update.tensors.items()},
        "round": broadcast.round,
        "seed": seed,
    }
    tables = {TABLE + name: np.asarray(table) for name, table in broadcast.tables.items()}
    return Parcel(json.loads(json.dumps(fields)), {**tables, USERS: codes_of(users)})


def task_of(parcel: Parcel) -> Asked:
    """What `task_parcel` wrote.

    Raises
    ------
    FederationError
        If it is something else.
    """
    try:
        fields = dict(parcel.fields)
        round, seed = int(fields.pop("round")), int(fields.pop("seed"))
        tensors = {name: TensorSpec(**{**own, "shape": tuple(own["shape"])}) for name, own in fields["update"].items()}
        spec = TaskSpec(**{**fields, "update": UpdateSpec(tensors)})
        users = require_codes(parcel.arrays[USERS])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FederationError("a message was to hold a task, and holds something else") from None
    tables = {name.removeprefix(TABLE): table for name, table in parcel.arrays.items() if name.startswith(TABLE)}
    return Asked(spec, Broadcast(round, tables), users, seed)


def answer_parcel(result: RoundResult) -> Parcel:
    """What a node answers to a task: the sum over its users that took part, and which these are."""
    sums = packed(result.update) if result.update.clients else {}
    return Parcel({"clients": result.update.clients}, {**sums, ANSWERED: codes_of(result.answered)})


def answer_of(parcel: Parcel, spec: UpdateSpec, users: NDArray[np.int64]) -> tuple[Update, NDArray[np.int64]]:
    """What `answer_parcel` wrote: an update that fits, and which of `users` it is over.

    Raises
    ------
    FederationError
        If it does not fit what was asked for, or is over somebody who was not asked.
    """
    arrays = dict(parcel.arrays)
    try:
        answered, clients = require_codes(arrays.pop(ANSWERED)), int(parcel.fields["clients"])
    except (KeyError, TypeError, ValueError):
        raise FederationError("an answer does not say whom it is over") from None
    if (strangers := np.setdiff1d(answered, users)).size:
        raise FederationError(f"an answer is over {len(strangers):,} user(s) who were not asked of that node")
    if not (0 < clients <= len(answered) or clients == len(answered) == 0):
        raise FederationError(f"an answer is over {clients:,} clients and names {len(answered):,} users")
    return (unpacked(spec, arrays, clients) if clients else spec.zeros()), answered


def codes_of(users: NDArray[np.int64]) -> NDArray[np.int32]:
    """User codes as they travel."""
    return np.asarray(users, dtype=np.int32)


def require_codes(array: NDArray[Any]) -> NDArray[np.int64]:
    """User codes, each once and ascending.

    Raises
    ------
    FederationError
        If they are something else.
    """
    codes = np.asarray(array)
    if codes.ndim != 1 or codes.dtype.kind not in "iu" or (np.diff(codes.astype(np.int64)) <= 0).any():
        raise FederationError("user codes are whole numbers, each once and ascending, and a message holds others")
    return codes.astype(np.int64)


def packed(update: Update) -> dict[str, NDArray[Any]]:
    """An update as its specification lays it out: dense, by the rows that are not zero, or by places."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, spec in update.spec.tensors.items():
        tensor = np.asarray(update.tensors[name])
        if spec.layout == "rows":
            group = spec.group or name
            if ROWS + group not in arrays:
                arrays[ROWS + group] = touched_rows(update, group).astype(np.int32)
            arrays[SUM + name] = tensor[arrays[ROWS + group]]
        elif spec.layout == "triangle":
            upper = np.triu(tensor).reshape(-1)
            places = np.flatnonzero(upper)
            arrays[PLACES + name] = places.astype(_place_type(upper.size))
            arrays[SUM + name] = upper[places]
        else:
            arrays[SUM + name] = tensor
    return arrays


def unpacked(spec: UpdateSpec, arrays: Arrays, clients: int) -> Update:
    """What `packed` wrote, checked.

    Raises
    ------
    FederationError
        If something is missing, was not asked for, is of another type or shape, or is not finite; the message names it.
    """
    if (odd := sorted(arrays.keys() ^ _names(spec))) or not spec.tensors:
        raise FederationError(f"an answer does not hold what was asked for: {', '.join(odd)[:200]}")
    tensors: dict[str, NDArray[Any]] = {}
    for name, wanted in spec.tensors.items():
        sent = np.asarray(arrays[SUM + name])
        if sent.dtype.name != wanted.dtype:
            raise FederationError(f"tensor {name!r} of an answer is {sent.dtype}, and {wanted.dtype} was asked for")
        if not np.isfinite(sent).all():
            raise FederationError(f"tensor {name!r} of an answer holds values that are not finite")
        if wanted.layout == "dense":
            tensors[name] = sent
        elif wanted.layout == "rows":
            rows = _require_places(arrays[ROWS + (wanted.group or name)], wanted.shape[0], name)
            tensors[name] = _laid(sent, rows, wanted, (len(rows), *wanted.shape[1:]), name)
        else:
            flat = TensorSpec((wanted.shape[0] * wanted.shape[1],), wanted.dtype)
            places = _require_places(arrays[PLACES + name], flat.shape[0], name)
            upper = _laid(sent, places, flat, sent.shape, name)
            square = upper.reshape(wanted.shape)
            tensors[name] = square + np.triu(square, 1).T
    return Update(spec, tensors, clients)  # refuses another shape


def _names(spec: UpdateSpec) -> set[str]:
    """The arrays that `packed` makes of an update."""
    names = {SUM + name for name in spec.tensors}
    for name, tensor in spec.tensors.items():
        if tensor.layout == "rows":
            names.add(ROWS + (tensor.group or name))
        elif tensor.layout == "triangle":
            names.add(PLACES + name)
    return names


def _laid(
    sent: NDArray[Any], places: NDArray[np.int64], whole: TensorSpec, shape: tuple[int, ...], name: str
) -> NDArray[Any]:
    """Rows or entries in their places, zeros elsewhere."""
    if sent.shape != shape or len(sent) != len(places):
        raise FederationError(f"tensor {name!r} of an answer has shape {sent.shape} for {len(places):,} places")
    found = np.zeros(whole.shape, whole.dtype)
    found[places] = sent
    return found


def _require_places(array: NDArray[Any], size: int, name: str) -> NDArray[np.int64]:
    """Places below `size`, each once and ascending."""
    places = np.asarray(array)
    wide = places.astype(np.int64) if places.dtype.kind in "iu" and places.ndim == 1 else None
    if wide is None or (len(wide) and (wide[0] < 0 or wide[-1] >= size or (np.diff(wide) <= 0).any())):
        raise FederationError(f"tensor {name!r} of an answer has places that are not in it, or twice")
    return wide


def _place_type(size: int) -> type[np.unsignedinteger[Any]]:
    return np.uint32 if size <= 2**32 else np.uint64
