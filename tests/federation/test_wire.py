from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.errors import FederationError
from retract.federation import Broadcast, RoundResult, TaskSpec, TensorSpec, Update, UpdateSpec, payload_bytes
from retract.federation.wire import (
    Parcel,
    answer_of,
    answer_parcel,
    packed,
    task_of,
    task_parcel,
    texts,
    texts_of,
    unpacked,
)

SPEC = UpdateSpec(
    {
        "whole": TensorSpec((3,), "float64"),
        "number": TensorSpec((), "int64"),
        "rows": TensorSpec((5, 2), layout="rows", group="items"),
        "degrees": TensorSpec((5,), "int32", layout="rows", group="items"),
        "square": TensorSpec((4, 4), "float64", layout="triangle", unit=0.5),
    }
)
USERS = np.array([2, 5, 9])


def update(seed: int = 0, clients: int = 3) -> Update:
    draw = np.random.default_rng(seed)
    square = draw.integers(-2, 3, (4, 4)) * draw.integers(0, 2, (4, 4)) * 0.5
    rows = draw.normal(size=(5, 2)).astype(np.float32) * draw.integers(0, 2, (5, 1)).astype(np.float32)
    return Update(
        SPEC,
        {
            "whole": draw.normal(size=3),
            "number": np.asarray(7),
            "rows": rows,
            "degrees": draw.integers(0, 2, 5).astype(np.int32),
            "square": square + square.T,
        },
        clients,
    )


def answer(**changes: object) -> Parcel:
    whole = answer_parcel(RoundResult(update(), USERS, USERS[:0], 0, 0))
    arrays = {**whole.arrays, **{name.replace("_", " "): value for name, value in changes.items()}}
    return Parcel(whole.fields, {name: np.asarray(array) for name, array in arrays.items() if array is not None})


@given(st.integers(0, 200))
def test_an_update_comes_out_as_it_went_in_to_the_last_bit(seed: int) -> None:
    before = update(seed)
    after = unpacked(SPEC, packed(before), before.clients)
    assert after.clients == before.clients
    for name, tensor in before.tensors.items():
        assert np.array_equal(after.tensors[name], tensor)
        assert np.asarray(after.tensors[name]).dtype == np.asarray(tensor).dtype


@given(st.integers(0, 200))
def test_an_update_weighs_what_its_payload_says(seed: int) -> None:
    assert sum(array.nbytes for array in packed(update(seed)).values()) == payload_bytes(update(seed))


def test_a_task_comes_out_as_it_went_in() -> None:
    spec = TaskSpec("exact", "term", {"ridge": 5.0, "sizes": [1, 2], "form": None}, "run", SPEC, 4)
    broadcast = Broadcast(-3, {"basis": np.arange(6.0).reshape(2, 3), "n": np.asarray(4)})
    parcel = task_parcel(spec, broadcast, USERS, 11)
    asked = task_of(Parcel(json.loads(json.dumps(dict(parcel.fields))), parcel.arrays))
    assert asked.spec == spec
    assert (asked.broadcast.round, asked.seed, asked.users.tolist()) == (-3, 11, USERS.tolist())
    assert asked.broadcast.tables.keys() == broadcast.tables.keys()
    assert np.array_equal(asked.broadcast.tables["basis"], broadcast.tables["basis"])


def test_an_answer_names_whom_it_is_over() -> None:
    found, answered = answer_of(answer(), SPEC, np.array([1, 2, 5, 9]))
    assert (answered.tolist(), found.clients) == (USERS.tolist(), 3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sum_whole": np.array([1.0, np.nan, 2.0])}, "not finite"),
        ({"sum_whole": np.array([1.0, np.inf, 2.0])}, "not finite"),
        ({"sum_whole": np.zeros(4)}, "shape"),
        ({"sum_whole": np.zeros(3, dtype=np.float32)}, "float32"),
        ({"sum_whole": None}, "sum whole"),
        ({"sum_other": np.zeros(3)}, "sum other"),
        ({"rows_items": np.array([0, 0, 1, 2, 3], dtype=np.int32)}, "twice"),
        ({"rows_items": np.array([0, 1, 2, 3, 5], dtype=np.int32)}, "not in it"),
        ({"rows_items": np.array([-1, 1, 2, 3, 4], dtype=np.int32)}, "not in it"),
        ({"rows_items": np.array([0], dtype=np.int32)}, "places"),
        ({"places_square": np.array([99], dtype=np.uint32)}, "not in it"),
        ({"answered": np.array([2, 5, 10], dtype=np.int32)}, "not asked"),
        ({"answered": np.array([5, 2, 9], dtype=np.int32)}, "ascending"),
        ({"answered": np.array([2.0, 5.0])}, "whole numbers"),
        ({"answered": np.array([2], dtype=np.int32)}, "3 clients and names 1"),
        ({"answered": None}, "whom it is over"),
    ],
)
def test_garbage_is_refused_in_one_line_that_names_it(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(FederationError, match=complaint) as error:
        answer_of(answer(**changes), SPEC, USERS)
    assert "\n" not in str(error.value)


def test_what_is_no_task_is_refused() -> None:
    whole = task_parcel(TaskSpec("exact", "term", {}, "run", SPEC), Broadcast(0, {}), USERS, 0)
    for fields in ({}, {**whole.fields, "round": "x"}, {**whole.fields, "more": 1}, {**whole.fields, "update": 3}):
        with pytest.raises(FederationError):
            task_of(Parcel(fields, whole.arrays))
    with pytest.raises(FederationError):
        task_of(Parcel(whole.fields, {}))


def test_texts_come_out_as_they_went_in_and_nothing_else_does() -> None:
    names = ["a", "ü", "", "x,y"]
    assert texts_of(texts(names)) == names
    for other in (np.arange(3, dtype=np.uint8), np.frombuffer(b"{}", dtype=np.uint8), np.frombuffer(b"[1]", np.uint8)):
        with pytest.raises(FederationError):
            texts_of(other)
