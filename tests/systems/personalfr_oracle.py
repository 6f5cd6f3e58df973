"""The slow, obvious PersonalFR client: one at a time, each with a dense copy of the whole model, by autograd."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from retract import streams
from retract.models.negatives import sample_negatives
from retract.systems.personalfr.config import PersonalFRConfig

LAYERS = ("input", "code", "hidden", "output")


class DenseAutoEncoder(nn.Module):
    """The paper's architecture, dense."""

    def __init__(self, parameters: Mapping[str, Tensor], read_published: bool = False) -> None:
        super().__init__()
        self.published = parameters["output.weight"].clone() if read_published else 0.0
        self.p = nn.ParameterDict({_plain(name): nn.Parameter(table.clone()) for name, table in parameters.items()})

    def _layer(self, name: str, x: Tensor) -> Tensor:
        weight = self.p[f"{name}_weight"] + (self.published if name == "input" else 0.0)
        a = x @ weight + self.p[f"{name}_bias"]
        normal = functional.group_norm(a[None], 1, eps=1e-5)[0]
        return torch.tanh(normal * self.p[f"{name}_gain"] + self.p[f"{name}_offset"])

    def code(self, x: Tensor) -> Tensor:
        return self._layer("code", self._layer("input", x))

    def forward(self, x: Tensor, mask: Tensor | float = 1.0) -> Tensor:
        """Predictions for all items from one dense row."""
        hidden = self._layer("hidden", self.code(x) * mask)
        return self.p["output_weight"] @ hidden + self.p["output_bias"]

    def sgd(self, rate: float, encoder_rate: float) -> torch.optim.SGD:
        """Plain SGD, an encoder's rate being a part of the decoder's."""
        own = [value for name, value in self.p.items() if name.startswith(("input", "code"))]
        shared = [value for name, value in self.p.items() if name.startswith(("hidden", "output"))]
        return torch.optim.SGD([{"params": own, "lr": rate * encoder_rate}, {"params": shared, "lr": rate}])

    def parameters_by_name(self) -> dict[str, Tensor]:
        """As the package names them."""
        return {name.replace("_", ".", 1): value.detach() for name, value in self.p.items()}


def _plain(name: str) -> str:
    return name.replace(".", "_")


def train_one_client(
    user: int,
    items: np.ndarray,
    values: np.ndarray,
    parameters: Mapping[str, Tensor],
    config: PersonalFRConfig,
    n_items: int,
    *,
    rate: float,
    seed: int,
    round: int,
) -> dict[str, Tensor]:
    """All parameters after the local epochs of one user with these items and values (ratings less mean, or ones)."""
    model = DenseAutoEncoder(parameters, config.read_published)
    x = torch.zeros(n_items)
    x[torch.from_numpy(items)] = torch.from_numpy(values)
    wanted, target = items, torch.from_numpy(values)
    if config.feedback == "implicit":
        drawn = sample_negatives(
            np.array([user]), np.array([0, len(items)]), items, n_items,
            seed=seed, round=round, per_positive=config.negatives,
        )  # fmt: skip
        wanted = np.concatenate([items, np.unique(drawn[drawn >= 0])])
        target = torch.cat([torch.ones(len(items)), torch.zeros(len(wanted) - len(items))])
    sgd = model.sgd(rate, config.encoder_rate)
    for epoch in range(config.local_epochs):
        counter = epoch * config.code + np.arange(config.code)
        kept = streams.uniform(seed, round, user, "code dropout", counter) >= config.dropout
        said = model(x, torch.from_numpy(kept).float() / (1 - config.dropout))[torch.from_numpy(wanted)]
        if config.feedback == "explicit":
            loss = functional.mse_loss(said, target)
        else:
            loss = functional.binary_cross_entropy_with_logits(said, target)
        sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        sgd.step()
    return model.parameters_by_name()
