"""What the clients' data still wants of the decoder's last layer: the sums that `influence` makes its step of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.federation import Broadcast, ClientState, Cohort, Reply, Update
from retract.models.autoencoder import dense
from retract.systems.personalfr.client import messages
from retract.systems.personalfr.config import PersonalFRConfig
from retract.systems.personalfr.reading import Reader

PULLING = -2
"""The round of `Pull`."""
CELLS = 8_000_000
"""Users x items at once: bounds the memory, never the result."""


class Pull:
    """How the clients' losses pull at the last layer as it stands, and how stiff they hold it (a `ClientTask`).

    Of implicit feedback every untouched item counts as likely as training draws it: one draw would leave its noise in
    every row. Clients keep nothing of it; who has no encoder makes one for it.
    """

    def __init__(self, config: PersonalFRConfig) -> None:
        self.config = config

    def start(self, clients: NDArray[np.int64], seed: int) -> ClientState:
        """Nothing."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sums; rows are w and b, side by side."""
        config, n_items = self.config, cohort.n_items
        reader = Reader(broadcast.tensors, config, seed)
        clients = np.arange(len(cohort)) if cohort.clients is None else cohort.clients
        parts = [self._sums(cohort.where(some), clients[some], state, reader) for some in _parts(clients, n_items)]
        rows = torch.cat([part.pop("rows") for part in parts])
        sums = {name: torch.stack([part[name] for part in parts]).sum(dim=0) for name in parts[0]}
        _, down = messages(config, n_items, rows, rows)
        sent = rows if config.compress else torch.full_like(rows, n_items)
        numbers = sent * (sums["pull"].shape[1] + 1 + (sent < n_items).long())
        return Reply(Update(sums, cohort.n_clients), {}, 4 * numbers + sums["shape"].nbytes, down)

    def _sums(
        self, cohort: Cohort, clients: NDArray[np.int64], state: ClientState, reader: Reader
    ) -> dict[str, Tensor]:
        """Those of whole clients, and how many rows each of them holds."""
        tables, shape = reader.tables, (len(cohort), cohort.n_items)
        hidden = dense(tables, "hidden", reader.codes(cohort, clients, state))
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


def _parts(clients: NDArray[np.int64], n_items: int) -> Iterator[NDArray[np.bool_]]:
    """Users in parts of whole clients, each of as many cells as fit, or of one client."""
    users = np.bincount(clients)
    part = (np.cumsum(users) - users) // max(1, CELLS // n_items)
    for number in np.unique(part):
        yield (part == number)[clients]
