"""What the clients' data still wants of the decoder's last layer: the sums that `influence` makes its step of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.federation import Broadcast, ClientState, Cohort, Reply, TaskSpec, Update
from retract.models.learn.autoencoder import dense
from retract.systems.personalfr.config import PersonalFRConfig, bytes_fetched, bytes_sent
from retract.systems.personalfr.encoding import tensors
from retract.systems.personalfr.paper_reading import Reader

CELLS = 8_000_000
"""Users x items at once: bounds the memory, never the result."""


class Pull:
    """How the clients' losses pull at the last layer as it stands, and how stiff they hold it (a `ClientTask`).

    Of implicit feedback every untouched item counts as likely as training draws it: one draw would leave its noise in
    every row. Clients keep nothing of it, and read by the encoders that they keep of training; who has none makes one
    for the occasion.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.update, self.config = spec.update, PersonalFRConfig.model_validate(spec.settings)

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """Nothing."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sums; rows are w and b, side by side."""
        config, n_items = self.config, cohort.n_items
        reader = Reader(tensors(broadcast.tables), config, seed)
        clients = np.arange(len(cohort)) if cohort.clients is None else cohort.clients
        places = np.where(_has_encoder(state, cohort.n_clients), np.arange(cohort.n_clients), -1)
        parts = [
            self._sums(cohort.where(some), clients[some], places[clients[some]], state, reader)
            for some in _parts(clients, n_items)
        ]
        used = torch.cat([part.pop("rows") for part in parts]).numpy()
        sums = {name: torch.stack([part[name] for part in parts]).sum(dim=0).numpy() for name in parts[0]}
        rows = {"input": used, "output": used}
        down = bytes_fetched(config, n_items, rows, numbers=1)
        return Reply(Update(self.update, sums, cohort.n_clients), {}, bytes_sent(self.update, rows), down)

    def _sums(
        self,
        cohort: Cohort,
        clients: NDArray[np.int64],
        places: NDArray[np.int64],
        state: ClientState,
        reader: Reader,
    ) -> dict[str, Tensor]:
        """Those of whole clients, and how many rows each of them holds."""
        tables, shape = reader.tables, (len(cohort), cohort.n_items)
        hidden = dense(tables, "hidden", reader.codes(cohort, places, state))
        touched = torch.from_numpy(cohort.rows), torch.from_numpy(cohort.items)
        values, chance = torch.zeros(shape), self._chance(cohort)[:, None].repeat(1, cohort.n_items)
        values[touched], chance[touched] = reader.histories(cohort).values, 1.0
        said = torch.addmm(tables["output.bias"], hidden, tables["output.weight"].T)
        if self.config.feedback == "explicit":
            gradient, curvature = 2 * (said - values), torch.full(shape, 2.0)
        else:
            likely = torch.sigmoid(said)
            gradient, curvature = likely - values, likely * (1 - likely)
        numbers, of = np.unique(clients, return_inverse=True)
        client, none = torch.from_numpy(of), torch.zeros(len(numbers), cohort.n_items)
        present = 1 - none.index_add(0, client, torch.log1p(-chance)).exp()
        # A client's row takes the mean over those of its users that hold it, in the rounds in which one does.
        among = (present / none.index_add(0, client, chance).clamp_min(1e-30))[client]
        weight = chance * among / chance.sum(dim=1, keepdim=True)
        ahead, stiff = torch.cat([hidden, torch.ones(len(cohort), 1)], dim=1), weight * curvature
        return {
            "pull": (weight * gradient).T @ ahead,
            "stiffness": stiff.sum(dim=0),
            "shape": ahead.T @ (stiff.sum(dim=1, keepdim=True) * ahead),
            "holders": present.sum(dim=0),
            "rows": (present > 0).sum(dim=1),
        }

    def _chance(self, cohort: Cohort) -> Tensor:
        """How likely a round draws an untouched item at least once, for each user; shape [n]."""
        if self.config.feedback == "explicit":
            return torch.zeros(len(cohort))
        free = np.maximum(cohort.n_items - cohort.degrees, 1)
        return torch.from_numpy(1 - (1 - 1 / free) ** (cohort.degrees * self.config.negatives)).float()


def _has_encoder(state: ClientState, n_clients: int) -> NDArray[np.bool_]:
    """Which clients keep one, shape [n_clients]: who never took part has no state, or a row of zeros beside others."""
    if "code.gain" not in state:
        return np.zeros(n_clients, dtype=np.bool_)
    found: NDArray[np.bool_] = state["code.gain"].any(axis=1)
    return found


def _parts(clients: NDArray[np.int64], n_items: int) -> Iterator[NDArray[np.bool_]]:
    """Users in parts of whole clients, each of as many cells as fit, or of one client."""
    users = np.bincount(clients)
    part = (np.cumsum(users) - users) // max(1, CELLS // n_items)
    for number in np.unique(part):
        yield (part == number)[clients]
