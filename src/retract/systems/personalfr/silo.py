"""PersonalFR beside many users' data: a client that is an organisation, with one encoder for all its users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from retract.federation import Broadcast, ClientState, Cohort, Reply, TaskSpec, Update
from retract.models.learn.autoencoder import Parameters, dense, encode
from retract.models.learn.sparse import Pattern, pair_scores, row_sums, weighted_sum
from retract.models.widths import BY_ITEM, ENCODER, layer_of
from retract.systems.personalfr.config import PersonalFRConfig, bytes_fetched, bytes_sent
from retract.systems.personalfr.encoding import Histories, Rates, Wanted, common_start, dropout_masks, tensors


class SiloTraining:
    """The local epochs of a round where clients hold many users each (a `ClientTask`).

    As `LocalTraining`, with one copy of the model for each client: every epoch is one step of SGD on the mean of the
    losses of its users, and of a row on the mean over those users that hold it, as the server averages it over clients.
    Where each client has one user, the two give the same.
    """

    common_draws: Literal[True] = True
    """The start is drawn alike on every device."""

    def __init__(self, spec: TaskSpec) -> None:
        self.update, self.config = spec.update, PersonalFRConfig.model_validate(spec.settings)

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """The common start, the same row for each client; nothing where the encoder is the server's."""
        if self.config.mode != "personal":
            return {}
        encoder, n = common_start(n_items, self.config.widths, seed), len(clients)
        return {name: np.broadcast_to(table.numpy(), (n, *table.shape)) for name, table in encoder.items()}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The sums of what the clients changed, and their new encoders."""
        config, tables, n_items = self.config, tensors(broadcast.tables), cohort.n_items
        explicit = config.feedback == "explicit"
        histories = Histories.of(cohort, explicit, float(tables["mean"]))
        wanted = Wanted.of(cohort, histories, config, seed, broadcast.round)
        masks = torch.stack(dropout_masks(config, cohort.users, config.local_epochs, seed, broadcast.round))
        rates = Rates.of(config, float(tables["rate"]))
        published = tables["output.weight"] if config.read_published else None
        common = {name: table for name, table in tables.items() if "." in name}
        sums, sizes = dict(self.update.zeros().tensors), []
        new = {name: rows.copy() for name, rows in state.items()}
        for number, users in enumerate(_clients(cohort)):
            silo = Silo(_part(histories.places, users), _part(wanted.places, users), explicit, published)
            values = (histories.values[_places(histories.places, users)], wanted.values[_places(wanted.places, users)])
            own = {name: rows[number] for name, rows in new.items()}
            before = silo.active({**common, **tensors(own)})
            after = silo.trained(before, *values, masks[:, users], rates, config.clip)
            silo.add({name: after[name] - before[name] for name in after}, {**own, **sums})
            sizes.append((len(silo.rows("input.weight")), len(silo.rows("output.weight"))))
        held = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        rows = {"input": held[:, 0], "output": held[:, 1]}
        down = bytes_fetched(config, n_items, rows, numbers=2)
        return Reply(Update(self.update, sums, len(sizes)), new, bytes_sent(self.update, rows), down)


class Silo:
    """One client's model: the rows that its users need of the first and the last layer, and all between.

    Parameters
    ----------
    read, said
        Places that its users' histories fill, and that the decoder is asked for; over all items.
    explicit
        Whether the loss is that of ratings.
    published
        The decoder's last layer, where the encoder reads it; shape [n_items, hidden].
    """

    def __init__(self, read: Pattern, said: Pattern, explicit: bool, published: Tensor | None) -> None:
        self._rows, self.patterns, self._scarcity = {}, {}, {}
        for layer, pattern in (("input", read), ("output", said)):
            rows, columns = np.unique(pattern.columns, return_inverse=True)
            self._rows[layer] = torch.from_numpy(rows)
            self.patterns[layer] = Pattern(pattern.indptr, columns, len(rows))
            self._scarcity[layer] = torch.from_numpy(pattern.n_rows / np.bincount(columns)).float()
        self.explicit = explicit
        self.published = None if published is None else published[self._rows["input"]]

    def rows(self, name: str) -> Tensor:
        """The items whose rows of a parameter are used, ascending."""
        return self._rows[layer_of(name)]

    def active(self, tables: Parameters) -> dict[str, Tensor]:
        """The parameters, of those by item the used rows only."""
        return {name: table[self.rows(name)] if name in BY_ITEM else table for name, table in tables.items()}

    def add(self, moved: Parameters, into: Mapping[str, NDArray[Any]]) -> None:
        """Add what its parameters moved by to whole tables, and itself to the holders of the rows that it uses."""
        for name, change in moved.items():
            if name in BY_ITEM:
                into[name][self.rows(name).numpy()] += change.numpy()
            else:
                into[name][...] += change.numpy()
        for layer in self._rows:
            if (holders := into.get(f"{layer}.holders")) is not None:
                holders[self._rows[layer].numpy()] += 1

    def codes(self, model: Parameters, values: Tensor) -> Tensor:
        """Shape [n_users, code]."""
        weight = model["input.weight"] if self.published is None else model["input.weight"] + self.published
        first = weighted_sum(self.patterns["input"], values, weight) + model["input.bias"]
        return encode(model, first)

    def trained(
        self, start: Parameters, values: Tensor, wanted: Tensor, masks: Tensor, rates: Rates, clip: float
    ) -> dict[str, Tensor]:
        """The parameters after a step for each of `masks` (shape [steps, n_users, code])."""
        model = {name: table.clone().requires_grad_() for name, table in start.items()}
        halves = [
            {"params": [table for name, table in model.items() if (layer_of(name) in ENCODER) == own], "lr": rate}
            for own, rate in ((True, rates.encoder), (False, rates.decoder))
        ]
        sgd = torch.optim.SGD(halves)
        for mask in masks:
            sgd.zero_grad()
            self._loss(model, values, wanted, mask).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.values(), clip)
            for name in BY_ITEM:
                if (table := model.get(name)) is not None and table.grad is not None:
                    table.grad.mul_(self._scarcity[layer_of(name)].view(-1, *[1] * (table.dim() - 1)))
            sgd.step()
        return {name: table.detach() for name, table in model.items()}

    def _loss(self, model: Parameters, values: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
        """The mean over users of each one's mean loss."""
        places = self.patterns["output"]
        hidden = dense(model, "hidden", self.codes(model, values) * mask)
        said = pair_scores(places, hidden, model["output.weight"]) + model["output.bias"][places.column_index]
        loss = mse_loss if self.explicit else binary_cross_entropy_with_logits
        sizes = torch.from_numpy(np.diff(places.indptr)).clamp_min(1)
        return (row_sums(places, loss(said, wanted, reduction="none")) / sizes).mean()


def _clients(cohort: Cohort) -> Iterator[slice]:
    """The users of each client."""
    clients = np.arange(len(cohort)) if cohort.clients is None else cohort.clients
    bounds = np.searchsorted(clients, np.arange(clients[-1] + 2)) if len(clients) else np.zeros(1, dtype=np.int64)
    return (slice(int(first), int(last)) for first, last in pairwise(bounds))


def _places(pattern: Pattern, users: slice) -> slice:
    return slice(int(pattern.indptr[users.start]), int(pattern.indptr[users.stop]))


def _part(pattern: Pattern, users: slice) -> Pattern:
    """The places of some users that follow each other."""
    indptr = pattern.indptr[users.start : users.stop + 1]
    return Pattern(indptr - indptr[0], pattern.columns[_places(pattern, users)], pattern.n_columns)
