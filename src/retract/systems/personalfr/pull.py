"""What the clients' data still wants of the decoder's last layer: the sums that `influence` makes its step of."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from retract.federation import Broadcast, ClientState, Cohort, Reply, Update
from retract.models.autoencoder import dense
from retract.models.sparse import pair_scores, row_sums
from retract.systems.personalfr.client import Wanted, held_once, messages
from retract.systems.personalfr.config import PersonalFRConfig
from retract.systems.personalfr.reading import Reader

PULLING = -2
"""The round of `Pull`, part of the key of all draws: the same in every call, so that who stays pulls alike."""


class Pull:
    """How the clients' losses pull at the last layer as it stands, and how stiff they hold it (a `ClientTask`).

    Clients keep nothing of it; who has no encoder makes one for it.
    """

    def __init__(self, config: PersonalFRConfig) -> None:
        self.config = config

    def start(self, clients: NDArray[np.int64], seed: int) -> ClientState:
        """Nothing."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sums; rows are w and b, side by side."""
        config, tables = self.config, broadcast.tensors
        reader = Reader(tables, config, seed)
        clients = np.arange(len(cohort)) if cohort.clients is None else cohort.clients
        hidden = dense(tables, "hidden", reader.codes(cohort, clients, state))
        wanted = Wanted.of(cohort, reader.histories(cohort), config, seed, PULLING)
        said = pair_scores(wanted.places, hidden, tables["output.weight"])
        said += tables["output.bias"][wanted.places.column_index]
        holders, items, users = held_once(cohort, wanted.places.rows.numpy(), wanted.places.columns)
        part = 1 / users  # a client's mean over those of its users that hold the row
        ahead, stiff = torch.cat([hidden, torch.ones(len(cohort), 1)], dim=1), part * wanted.curvature(said)
        sums = {
            "pull": wanted.places.transposed_times(part * wanted.gradient(said), ahead),
            "stiffness": wanted.places.transposed_times(stiff, torch.ones(len(cohort), 1))[:, 0],
            "shape": ahead.T @ (row_sums(wanted.places, stiff)[:, None] * ahead),
            "holders": torch.bincount(items, minlength=cohort.n_items),
        }
        rows = torch.bincount(holders, minlength=cohort.n_clients)
        _, down = messages(config, cohort.n_items, rows, rows)
        sent = rows if config.compress else torch.full_like(rows, cohort.n_items)
        return Reply(Update(sums, cohort.n_clients), {}, 4 * sent * (ahead.shape[1] + 2) + sums["shape"].nbytes, down)
