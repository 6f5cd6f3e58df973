"""What UnlearnRec keeps to forget by: the initial embeddings, an influence encoder, and for which model it was made."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.federation import Arrays
from retract.systems.base import Memory, Trained

NODES, ENCODER, MADE_FOR = "nodes", "encoder.", "made_for"
"""Names in the memory; those of the encoder's weights begin with the second."""


def with_encoder(trained: Trained, encoder: Arrays) -> Trained:
    """The model, with an encoder (its weights by their names in the memory) marked as made for it."""
    nodes = trained.memory.tables[NODES]
    return replace(trained, memory=Memory({NODES: nodes, **encoder, MADE_FOR: mark(nodes)}))


def encoder_in(memory: Arrays) -> dict[str, NDArray[Any]]:
    """The weights of the encoder, by their names in the memory; empty where there is none."""
    return {name: table for name, table in memory.items() if name.startswith(ENCODER)}


def is_marked(memory: Arrays) -> bool:
    """Whether the encoder was made for the embeddings beside it."""
    return np.array_equal(memory.get(MADE_FOR, np.empty(0)), mark(memory[NODES]))


def mark(nodes: NDArray[np.float32]) -> NDArray[np.int64]:
    """What tells a model from another, shape [1]."""
    digest = hashlib.blake2b(np.ascontiguousarray(nodes).tobytes(), digest_size=8).digest()
    return np.frombuffer(digest, dtype="<i8").astype(np.int64)
