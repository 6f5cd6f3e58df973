"""FRU beside the user's data: the epoch that writes a journal, and the sum over what was written."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from retract.federation import Arrays, Broadcast, ClientState, Cohort, Reply, TaskSpec, Update
from retract.models.learn.arrays import as_tensor
from retract.models.learn.ego import EgoBatch
from retract.systems.baselines.fru_config import epoch_spec, journal_row, sent_row
from retract.systems.fedshare.local_epoch import LocalEpoch, tensors

BYTES = 8
"""Bytes of the number that says how much was written."""


@dataclass(frozen=True)
class ClientUpdates:
    """What clients write down of a round: for each client and item, the client's own gradient of the item's embedding.

    Parameters
    ----------
    clients
        Places of the clients in their cohort, int32, shape [n], ascending.
    items
        Codes, int32, shape [n].
    rows
        The updates, float32, shape [n, d].
    """

    clients: NDArray[np.int32]
    items: NDArray[np.int32]
    rows: NDArray[np.float32]

    @property
    def columns(self) -> Arrays:
        """As a journal has them."""
        return {"client": self.clients, "items": self.items, "rows": self.rows}

    def largest(self, part: float) -> ClientUpdates:
        """Of every client, the ⌈part · n⌉ rows of the greatest norm (the top α by significance)."""
        order = np.lexsort((-np.linalg.norm(self.rows, axis=1), self.clients))
        begins = np.searchsorted(self.clients, self.clients)  # of every row's client; the order leaves clients in place
        counts = np.searchsorted(self.clients, self.clients, side="right") - begins
        chosen = np.sort(order[np.arange(len(self.clients)) - begins < np.ceil(part * counts)])
        return ClientUpdates(self.clients[chosen], self.items[chosen], self.rows[chosen])

    def sum(self, n_items: int) -> NDArray[np.float32]:
        """What an aggregation of these updates gives, shape [n_items, d]."""
        n = len(self.items)
        places = sp.csc_matrix((np.ones(n, dtype=np.float32), self.items, np.arange(n + 1)), shape=(n_items, n))
        total: NDArray[np.float32] = places @ self.rows
        return total

    def sums(self, n_items: int) -> dict[str, NDArray[np.generic]]:
        """What is told of them: their sum, and the bytes that they take."""
        written = len(self.items) * journal_row(self.rows.shape[1])
        return {"logged": self.sum(n_items), "journal_bytes": np.asarray(written, dtype=np.int64)}

    def sent(self, n_clients: int) -> NDArray[np.int64]:
        """Bytes of each client's message of these sums, shape [n_clients]."""
        each: NDArray[np.int64] = np.bincount(self.clients, minlength=n_clients) * sent_row(self.rows.shape[1]) + BYTES
        return each


class RecordingEpoch:
    """A client's local epoch that also writes the client's own update to its own journal (a `ClientTask`).

    The journal is the paper's *on-device* storage: what a single client did is written beside its data, and only sums
    over clients leave it. The sums of the plain epoch are among them, to the last bit.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.update, self.kept = spec.update, float(spec.settings["kept"])
        self.epoch = LocalEpoch(epoch_spec(spec))

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """As the epoch's."""
        return self.epoch.start(clients, n_items, seed)

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The epoch's own reply, and what is written in it."""
        written = client_updates(self.epoch, broadcast, cohort, state, seed).largest(self.kept)
        reply = self.epoch(broadcast, cohort, state, seed)
        sums = {**reply.update.tensors, **written.sums(cohort.n_items)}
        return replace(
            reply,
            update=Update(self.update, sums, len(cohort)),
            upload_bytes=reply.upload_bytes + written.sent(len(cohort)),
            journal=written.columns,
        )


def client_updates(
    epoch: LocalEpoch, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int
) -> ClientUpdates:
    """Every client's own gradient of every item it touches, of a whole cohort at once.

    Each (client, touched item) pair gets a row of its own in an expanded table, a copy of the item's; the same loss on
    that table leaves in every row the gradient of one client alone. Their sum over clients is the gradient of Q.
    """
    batch = epoch.batch(broadcast, cohort, seed)
    positives, negatives = batch.positives, batch.negatives
    rows, columns = torch.cat([positives.rows, negatives.rows]), np.append(positives.columns, negatives.columns)
    pairs, place = np.unique(rows.numpy() * cohort.n_items + columns, return_inverse=True)
    own, drawn = place[: len(positives)], place[len(positives) :].reshape(-1, batch.per_positive)
    expanded = EgoBatch(cohort.indptr, own, drawn, len(pairs))
    items = torch.from_numpy(pairs % cohort.n_items)
    public = tensors(broadcast.tables)
    tables = {name: table.index_select(0, items) if table.dim() else table for name, table in public.items()}
    table = tables["items"].detach().requires_grad_()
    loss = epoch.loss(expanded, epoch.weights(cohort), as_tensor(state["vector"]), table, tables)
    clients = (pairs // cohort.n_items).astype(np.int32)
    return ClientUpdates(clients, items.numpy().astype(np.int32), torch.autograd.grad(loss, table)[0].numpy())


class LoggedSum:
    """The sum of what clients wrote to their journals in a round (a `ClientTask`): it reads nothing else of theirs."""

    def __init__(self, spec: TaskSpec) -> None:
        self.update = spec.update

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """A client keeps nothing of it."""
        return {}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The cohort's sum; of a client without a journal of this round, zeros."""
        rows, codes = np.empty((0, self.update.tensors["logged"].shape[1]), np.float32), np.empty(0, np.int32)
        journal: Arrays = cohort.journal or {"client": codes, "items": codes, "rows": rows}
        written = ClientUpdates(journal["client"], journal["items"], journal["rows"])
        sums, sent = written.sums(cohort.n_items), written.sent(cohort.n_clients)
        return Reply(Update(self.update, sums, cohort.n_clients), {}, sent)
