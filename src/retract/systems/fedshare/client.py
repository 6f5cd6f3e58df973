"""FedShare beside the user's data: the local epoch, and the recommendations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from retract import streams
from retract.data import Interactions
from retract.federation import Broadcast, Clients, ClientState, Cohort, Reply, Update
from retract.models.ego import EgoBatch
from retract.models.losses import activity_weights, bpr
from retract.models.negatives import sample_negatives
from retract.models.recommender import read_history, standardised
from retract.models.sparse import pair_scores, row_sums
from retract.systems.fedshare.config import FedShareConfig

BETAS = (0.9, 0.99)


class LocalEpoch:
    """One epoch over a client's own interactions, shared and private alike (a `ClientTask`).

    The client reads its ego graph h_u from the federated table Q, and minimises, with n = |D_u|,

        n^{-a} ( Σ_{i ∈ D_u} BPR(i, negatives)  +  λ c n InfoNCE(h_u, z_u) )

    where c is the coverage (the shared part of all interactions), z_u is its global view, the same ego graph read from
    the server's table Z, and the negatives of the contrast are the rows of Z of its sampled negative items. It moves
    its own vector p_u by one Adam step and sends the gradient of Q, rows of the touched items only.

    The terms are the paper's (local and global representations aligned by contrast); the ego graph of the client is
    its predecessor's (CDCGNNFed, WWW 2024). Ours are the leave-one-out reading, the activity weight n^{-a}, the
    coverage (a view made of little is worth little to align with), and the items of the contrast: the vectors of other
    users are nobody's to see, so a user is set against items instead.
    """

    def __init__(self, config: FedShareConfig) -> None:
        self.config = config

    def start(self, clients: NDArray[np.int64], seed: int) -> ClientState:
        """Fresh user vectors and Adam moments, one row per user."""
        shape = (len(clients), self.config.dimension)
        vector = torch.from_numpy(streams.normal(seed, 0, clients, "user vector", self.config.dimension))
        return {
            "vector": vector * self.config.initial_scale * 0.1,
            "first_moment": torch.zeros(shape),
            "second_moment": torch.zeros(shape),
            "steps": torch.zeros(len(clients), dtype=torch.int64),
        }

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """Gradient of Q summed over the cohort, and the clients' new vectors."""
        items = broadcast.tensors["items"].detach().requires_grad_()
        vectors = state["vector"].detach().requires_grad_()
        batch = self.batch(broadcast, cohort, seed)
        weights = self.weights(cohort)
        loss = self.loss(batch, weights, vectors, items, broadcast)
        item_gradient, vector_gradient = torch.autograd.grad(loss, (items, vectors))
        total = (weights * torch.from_numpy(cohort.degrees)).sum()
        count = torch.tensor(len(cohort.items), dtype=torch.int64)
        return Reply(
            Update({"item_gradient": item_gradient, "weight": total, "interactions": count}, len(cohort)),
            self._step(state, vector_gradient, torch.from_numpy(cohort.degrees) * weights),
            _upload_bytes(batch, self.config.dimension),
        )

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

    def loss(self, batch: EgoBatch, weights: Tensor, vectors: Tensor, items: Tensor, broadcast: Broadcast) -> Tensor:
        """The sum of the clients' losses, from their vectors (shape [len(cohort), d]) and Q (shape [n_items, d])."""
        users = vectors + batch.read(items)
        scores = batch.scores(users, items)
        ranking = bpr(scores.positive[:, None], scores.negative).mean(dim=1) @ weights[batch.positives.rows]
        strength = self.config.contrast * float(broadcast.tensors["coverage"])
        if "global_items" not in broadcast.tensors or strength == 0:
            return ranking
        degrees = torch.from_numpy(np.diff(batch.positives.indptr))
        contrast = _user_contrast(batch, users, broadcast.tensors["global_items"], self.config.temperature)
        return ranking + strength * (contrast @ (weights * degrees))

    def _step(self, state: ClientState, gradient: Tensor, mass: Tensor) -> ClientState:
        """One Adam step of every client's vector on the mean gradient of its own interactions, plus L2."""
        gradient = gradient / mass.clamp_min(1e-12)[:, None] + self.config.regularisation * state["vector"]
        steps = state["steps"] + 1
        first = BETAS[0] * state["first_moment"] + (1 - BETAS[0]) * gradient
        second = BETAS[1] * state["second_moment"] + (1 - BETAS[1]) * gradient.square()
        age = steps[:, None].float()
        move = (first / (1 - BETAS[0] ** age)) / ((second / (1 - BETAS[1] ** age)).sqrt() + 1e-8)
        vector = state["vector"] - self.config.client_rate * move
        return {"vector": vector, "first_moment": first, "second_moment": second, "steps": steps}


def _user_contrast(batch: EgoBatch, users: Tensor, global_items: Tensor, temperature: float) -> Tensor:
    """InfoNCE(h_u, z_u) against the client's negative items, per client."""
    local = functional.normalize(users, dim=1)
    own = functional.normalize(batch.read(global_items), dim=1)
    same = (local * own).sum(dim=1) / temperature
    others = torch.exp(pair_scores(batch.negatives, local, functional.normalize(global_items, dim=1)) / temperature)
    return torch.log(same.exp() + row_sums(batch.negatives, others)) - same


def _upload_bytes(batch: EgoBatch, dimension: int) -> Tensor:
    """Each client's message: for every touched item, its number (int32) and its gradient (float32)."""
    drawn = batch.negatives
    keys = np.sort(drawn.rows.numpy() * drawn.n_columns + drawn.columns)
    first = np.append(True, keys[1:] != keys[:-1])
    negatives = np.bincount(keys[first] // drawn.n_columns, minlength=drawn.n_rows)
    return torch.from_numpy((negatives + np.diff(batch.positives.indptr)) * (4 + 4 * dimension))


class FedShareRecommender:
    """Recommendations as the clients compute them: the local and the global view, standardised and mixed.

    Parameters
    ----------
    model
        The published tables: "items" (Q, shape [n_items, d]), "coverage", and "global_items" (Z) where anything is
        shared.
    clients
        The devices, for the users' own vectors.
    config
        For the mix: the global view weighs mix * coverage^mix_exponent, for it is as good as the part of all
        interactions that it was made from.
    """

    def __init__(self, model: Mapping[str, Tensor], clients: Clients, config: FedShareConfig) -> None:
        self.items, self.global_items = model["items"], model.get("global_items")
        self.mix = config.mix * float(model["coverage"]) ** config.mix_exponent
        empty = torch.zeros(clients.sharing.shared.n_users, self.items.shape[1])
        self.vectors = clients.state.get("vector", empty)

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), n_items]."""
        local = self.vectors[torch.from_numpy(users)] + read_history(users, history, self.items)
        local_scores = standardised(local @ self.items.T)
        if self.global_items is None:
            return local_scores
        seen = read_history(users, history, self.global_items)
        global_scores = standardised(seen @ self.global_items.T)
        return local_scores.lerp(global_scores, self.mix)
