"""The slow, obvious FedShare client: one at a time, plain dense torch, straight from the formulas."""

import numpy as np
import torch
from torch.nn.functional import normalize, softplus

from retract.federation import Broadcast
from retract.models.negatives import sample_negatives
from retract.systems.fedshare.config import FedShareConfig


def client_loss(own, drawn, vector, table, broadcast: Broadcast, config: FedShareConfig) -> torch.Tensor:
    """The local loss of one user: `own` are the n positives, `drawn` the negatives of each, shape [n, per positive]."""
    n = len(own)
    if n == 0 or n == len(table):
        return vector.sum() * 0
    user = vector + table[own].sum(dim=0) / n**0.5
    positive = ((user - table[own] / n**0.5) * table[own]).sum(dim=1)
    negative = table[drawn] @ user
    loss = softplus(negative - positive[:, None]).mean(dim=1).sum()
    if "global_items" in broadcast.tables:
        global_table = torch.from_numpy(broadcast.tables["global_items"])
        coverage = float(broadcast.tables["coverage"])
        view, local = normalize(global_table[own].sum(dim=0), dim=0), normalize(user, dim=0)
        others = normalize(global_table[drawn.reshape(-1)], dim=1)
        logits = torch.cat([(local @ view)[None], others @ local]) / config.temperature
        loss = loss + config.contrast * coverage * n * (torch.logsumexp(logits, dim=0) - logits[0])
    return n**-config.activity_exponent * loss


def run_one_client(user: int, own, state: dict, broadcast: Broadcast, config: FedShareConfig, seed: int):
    """One client's item gradient, weight, new state (as arrays) and bytes sent."""
    n_items = len(broadcast.tables["items"])
    state = {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}
    drawn = sample_negatives(
        np.array([user]), np.array([0, len(own)]), own, n_items,
        seed=seed, round=broadcast.round, per_positive=config.negatives,
    )  # fmt: skip
    table = torch.from_numpy(broadcast.tables["items"]).clone().requires_grad_()
    vector = state["vector"].clone().requires_grad_()
    loss = client_loss(torch.from_numpy(own), torch.from_numpy(drawn), vector, table, broadcast, config)
    loss.backward()
    weight = 0.0 if len(own) in (0, n_items) else len(own) ** (1 - config.activity_exponent)
    gradient = vector.grad / max(weight, 1e-12) + config.regularisation * state["vector"]
    first = 0.9 * state["first_moment"] + 0.1 * gradient
    second = 0.99 * state["second_moment"] + 0.01 * gradient**2
    age = int(state["steps"]) + 1
    step = (first / (1 - 0.9**age)) / ((second / (1 - 0.99**age)).sqrt() + 1e-5)
    moved = state["vector"] - config.client_rate * step
    new = {"vector": moved, "first_moment": first, "second_moment": second, "steps": torch.tensor(age)}
    touched = len(set(own.tolist()) | set(np.maximum(drawn, 0).reshape(-1).tolist()))
    sent = touched * (4 + 4 * config.dimension) + 4 + 8
    return table.grad.numpy(), weight, {name: value.numpy() for name, value in new.items()}, sent
