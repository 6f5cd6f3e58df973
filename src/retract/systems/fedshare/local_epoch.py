"""FedShare's client task: one epoch beside the user's data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from retract import streams
from retract.federation import Arrays, Broadcast, ClientState, Cohort, Reply, TaskSpec, Update
from retract.models.learn.arrays import as_tensor
from retract.models.learn.ego import EgoBatch
from retract.models.learn.losses import activity_weights, bpr
from retract.models.learn.sparse import pair_scores, row_sums
from retract.models.negatives import sample_negatives
from retract.systems.fedshare.config import BETAS, FedShareConfig

COUNTS = 12
"""Bytes of weight (float32) and count (int64) in a client's message."""

CANCELLED = 1e-5
"""Adam's epsilon: of a smaller gradient of a user's vector, rounding decides where it points."""


class LocalEpoch:
    """One epoch over a client's own interactions, shared and private alike (a `ClientTask`).

    The client reads its ego graph h_u from the federated table Q, and minimises, with n = |D_u|,

        n^{-a} ( Σ_{i ∈ D_u} BPR(i, negatives)  +  λ c n InfoNCE(h_u, z_u) )

    where c is the coverage (the shared part of all interactions), z_u is its global view, the same ego graph read from
    the server's table Z, and the negatives of the contrast are the rows of Z of its sampled negative items. Only in the
    paper's form is there a Z, and with it the contrast. It moves its own vector p_u by one Adam step and sends the
    gradient of Q, rows of the touched items only.

    The terms are the paper's (local and global representations aligned by contrast); the ego graph of the client is
    its predecessor's (CDCGNNFed, WWW 2024). Ours are the leave-one-out reading, the activity weight n^{-a}, the
    coverage (a view made of little is worth little to align with), and the items of the contrast: the vectors of other
    users are nobody's to see, so a user is set against items instead.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.update, self.config = spec.update, FedShareConfig.model_validate(spec.settings)

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """Fresh user vectors and Adam moments, one row per user."""
        shape = (len(clients), self.config.dimension)
        vector = streams.normal(seed, 0, clients, "user vector", self.config.dimension)
        return {
            "vector": vector * np.float32(self.config.initial_scale) * np.float32(0.1),
            "first_moment": np.zeros(shape, dtype=np.float32),
            "second_moment": np.zeros(shape, dtype=np.float32),
            "steps": np.zeros(len(clients), dtype=np.int64),
        }

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """Gradient of Q summed over the cohort, and the clients' new vectors."""
        tables, before = tensors(broadcast.tables), tensors(state)
        items = tables["items"].detach().requires_grad_()
        vectors = before["vector"].detach().requires_grad_()
        batch = self.batch(broadcast, cohort, seed)
        weights, degrees = self.weights(cohort), torch.from_numpy(cohort.degrees)
        loss = self.loss(batch, weights, vectors, items, tables)
        item_gradient, vector_gradient = torch.autograd.grad(loss, (items, vectors))
        sums = {
            "item_gradient": item_gradient.numpy(),
            "weight": np.asarray((weights * degrees).sum().numpy(), dtype=np.float32),
            "interactions": np.asarray(len(cohort.items), dtype=np.int64),
        }
        moved = self._step(before, vector_gradient, degrees * weights)
        sent = _touched(batch) * (4 + 4 * self.config.dimension) + COUNTS
        return Reply(Update(self.update, sums, len(cohort)), moved, sent)

    def batch(self, broadcast: Broadcast, cohort: Cohort, seed: int) -> EgoBatch:
        """The clients' interactions and this round's negatives."""
        negatives = sample_negatives(
            cohort.users,
            cohort.indptr,
            cohort.items,
            cohort.n_items,
            seed=seed,
            round=broadcast.round,
            per_positive=self.config.negatives,
        )
        return EgoBatch(cohort.indptr, cohort.items, np.maximum(negatives, 0), cohort.n_items)

    def weights(self, cohort: Cohort) -> Tensor:
        """n^{-a} of every client, shape [len(cohort)]."""
        return activity_weights(cohort.degrees, cohort.n_items, self.config.activity_exponent)

    def loss(
        self, batch: EgoBatch, weights: Tensor, vectors: Tensor, items: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """The sum of the clients' losses, from their vectors (shape [len(cohort), d]) and Q (shape [n_items, d]).

        Parameters
        ----------
        tables
            The public tables, of which "coverage" and, where anything is shared, "global_items" are read.
        """
        users = vectors + batch.read(items)
        scores = batch.scores(users, items)
        ranking = bpr(scores.positive[:, None], scores.negative).mean(dim=1) @ weights[batch.positives.rows]
        strength = self.config.contrast * float(tables["coverage"])
        if "global_items" not in tables or strength == 0:
            return ranking
        degrees = torch.from_numpy(np.diff(batch.positives.indptr))
        contrast = _user_contrast(batch, users, tables["global_items"], self.config.temperature)
        return ranking + strength * (contrast @ (weights * degrees))

    def _step(self, state: Mapping[str, Tensor], gradient: Tensor, mass: Tensor) -> ClientState:
        """One Adam step of every client's vector on the mean gradient of its own interactions, plus L2."""
        gradient = gradient / mass.clamp_min(1e-12)[:, None] + self.config.regularisation * state["vector"]
        steps = state["steps"] + 1
        first = BETAS[0] * state["first_moment"] + (1 - BETAS[0]) * gradient
        second = BETAS[1] * state["second_moment"] + (1 - BETAS[1]) * gradient.square()
        age = steps[:, None].float()
        move = (first / (1 - BETAS[0] ** age)) / ((second / (1 - BETAS[1] ** age)).sqrt() + CANCELLED)
        moved = {"vector": state["vector"] - self.config.client_rate * move, "first_moment": first}
        return {name: rows.numpy() for name, rows in {**moved, "second_moment": second, "steps": steps}.items()}


def tensors(tables: Arrays) -> dict[str, Tensor]:
    """Tables as tensors."""
    return {name: as_tensor(table) for name, table in tables.items()}


def _user_contrast(batch: EgoBatch, users: Tensor, global_items: Tensor, temperature: float) -> Tensor:
    """InfoNCE(h_u, z_u) against the client's negative items, per client."""
    local = functional.normalize(users, dim=1)
    own = functional.normalize(batch.read(global_items), dim=1)
    same = (local * own).sum(dim=1) / temperature
    others = torch.exp(pair_scores(batch.negatives, local, functional.normalize(global_items, dim=1)) / temperature)
    return torch.log(same.exp() + row_sums(batch.negatives, others)) - same


def _touched(batch: EgoBatch) -> NDArray[np.int64]:
    """Each client's touched items, shape [len(cohort)]: its positives, and the different ones of its negatives."""
    drawn = batch.negatives
    keys = np.sort(drawn.rows.numpy() * drawn.n_columns + drawn.columns)
    first = np.append(True, keys[1:] != keys[:-1])
    negatives = np.bincount(keys[first] // drawn.n_columns, minlength=drawn.n_rows)
    touched: NDArray[np.int64] = negatives + np.diff(batch.positives.indptr)
    return touched
