"""Updates: sums over clients, the specification that each has to fit, and what they weigh on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retract.errors import FederationError

Arrays = Mapping[str, NDArray[Any]]
"""Tables by name: all that crosses a border between rooms or machines."""

Layout = Literal["dense", "rows", "triangle"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of an update.

    Parameters
    ----------
    shape
        Its shape.
    dtype
        NumPy's name of its type.
    layout
        How a client sends it: "dense"; by the "rows" that the client touches, with their numbers; or, of a symmetric
        matrix, by the entries of the upper "triangle" that are not zero, each with its place.
    group
        Tensors sent by rows that name the same group have the same rows, whose numbers travel once. Its own unless
        given.
    bound
        The greatest L2 norm that one client's part may have, of a "triangle" what is sent of it, where the task
        guarantees one: what clipping and noise are calibrated by.
    unit
        Every value is a whole multiple of it, where the task guarantees that: what a fixed-point sum is exact in.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: Layout = "dense"
    group: str | None = None
    bound: float | None = None
    unit: float | None = None


@dataclass(frozen=True)
class UpdateSpec:
    """What the update of one task holds, by name. Both sides know it: the server asks by it, and refuses all else."""

    tensors: Mapping[str, TensorSpec]

    def require(self, tensors: Arrays) -> None:
        """Refuse what does not fit.

        Raises
        ------
        FederationError
            If a tensor is missing or was not asked for, or has another shape or type; the message names it.
        """
        if tensors.keys() != self.tensors.keys():
            odd = sorted(tensors.keys() ^ self.tensors.keys())
            raise FederationError(
                f"an update holds {', '.join(sorted(tensors)) or 'nothing'} where {', '.join(sorted(self.tensors))} "
                f"was asked for; they differ in {', '.join(odd)}"
            )
        for name, spec in self.tensors.items():
            shape, dtype = np.shape(tensors[name]), np.asarray(tensors[name]).dtype.name
            if shape != spec.shape or dtype != spec.dtype:
                raise FederationError(
                    f"tensor {name!r} of an update is {dtype} of shape {shape}, and {spec.dtype} of shape {spec.shape} "
                    "was asked for"
                )

    def zeros(self) -> Update:
        """The sum over nobody."""
        return Update(self, {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.tensors.items()}, 0)


@dataclass(frozen=True)
class Update:
    """A sum over clients, and nothing that tells them apart: it can be formed by a secure sum.

    Parameters
    ----------
    spec
        What it has to hold.
    tensors
        Sums by name.
    clients
        How many clients the sum is over.

    Raises
    ------
    FederationError
        If the tensors do not fit the specification.
    """

    spec: UpdateSpec
    tensors: Arrays
    clients: int

    def __post_init__(self) -> None:
        self.spec.require(self.tensors)

    def __add__(self, other: Update) -> Update:
        """The sum over the clients of both.

        Raises
        ------
        FederationError
            If the two are of different tasks.
        """
        if other.spec != self.spec:
            other.spec.require(self.tensors)  # says which tensor differs, where one does
            raise FederationError("two updates of different specifications cannot be added: they are of other tasks")
        tensors = {name: np.asarray(tensor + other.tensors[name]) for name, tensor in self.tensors.items()}
        return Update(self.spec, tensors, self.clients + other.clients)


def payload_bytes(update: Update) -> int:
    """What an update weighs on the wire, as its specification lays it out: numbers, and the places of sparse ones.

    Row numbers and places are int32. A transport's own header comes on top.
    """
    total, numbered = 0, set[str]()
    for name, spec in update.spec.tensors.items():
        tensor = np.asarray(update.tensors[name])
        if spec.layout == "dense":
            total += tensor.nbytes
        elif spec.layout == "triangle":
            total += int(np.count_nonzero(np.triu(tensor))) * (tensor.itemsize + 4)
        else:
            group = spec.group or name
            rows = touched_rows(update, group)
            total += len(rows) * prod(spec.shape[1:]) * tensor.itemsize + (
                4 * len(rows) if group not in numbered else 0
            )
            numbered.add(group)
    return total


def touched_rows(update: Update, group: str) -> NDArray[np.int64]:
    """The rows of a group in which any of its tensors is not zero, ascending."""
    found: NDArray[np.bool_] | None = None
    for name, spec in update.spec.tensors.items():
        if spec.layout == "rows" and (spec.group or name) == group:
            tensor = np.asarray(update.tensors[name])
            here = tensor.reshape(len(tensor), -1).any(axis=1)
            found = here if found is None else found | here
    assert found is not None
    return np.flatnonzero(found)
