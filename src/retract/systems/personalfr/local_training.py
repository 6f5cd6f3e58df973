"""PersonalFR's local epochs beside the user's data, for clients of one user each."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from retract.federation import Broadcast, ClientState, Cohort, Reply, TaskSpec, Update
from retract.models.learn.autoencoder import Parameters
from retract.systems.personalfr.config import PersonalFRConfig, bytes_fetched, bytes_sent
from retract.systems.personalfr.encoding import (
    NORMS,
    Decoders,
    Encoders,
    Histories,
    Rates,
    Wanted,
    common_start,
    dropout_masks,
    take_steps,
    tensors,
)


class LocalTraining:
    """The local epochs of a round (a `ClientTask`): private encoders and the decoder learn.

    A client has one user, so every epoch is one step of SGD over all it holds, on the mean squared error of its ratings
    or the mean binary cross-entropy of what it touched against as many items that it did not, with dropout on the code
    and the gradient's norm clipped (Le et al., arXiv 2212.08779, algorithm 1). By `fedavg` and `joint` the encoder is
    the server's too, and its change leaves as well.

    The first layer's rows, |D_u| x hidden numbers per client in the paper, are one vector here, see `SteppedInput`.
    """

    common_draws: Literal[True] = True
    """The start is drawn alike on every device."""

    def __init__(self, spec: TaskSpec) -> None:
        self.update, self.config = spec.update, PersonalFRConfig.model_validate(spec.settings)

    def start(self, clients: NDArray[np.int64], n_items: int, seed: int) -> ClientState:
        """The common start, the same row for each client; nothing where the encoder is the server's."""
        if self.config.mode != "personal":
            return {}
        # None of what a client keeps is by item, so it starts alike in every catalog.
        encoder, n = common_start(1, self.config.widths, seed), len(clients)
        names = ("code.weight", "code.bias", *NORMS)
        rows = {name: np.broadcast_to(encoder[name].numpy(), (n, *encoder[name].shape)) for name in names}
        return {"input.moved": np.zeros((n, self.config.hidden), dtype=np.float32), **rows}

    def __call__(self, broadcast: Broadcast, cohort: Cohort, state: ClientState, seed: int) -> Reply:
        """The sums of what the clients changed, and their new encoders."""
        config, tables, n_items = self.config, tensors(broadcast.tables), cohort.n_items
        personal = config.mode == "personal"
        histories = Histories.of(cohort, config.feedback == "explicit", float(tables["mean"]))
        wanted = Wanted.of(cohort, histories, config, seed, broadcast.round)
        start = common_start(n_items, config.widths, seed) if personal else tables
        published = tables if config.read_published else None
        encoders, decoders = Encoders(histories, start, tensors(state), published), Decoders(wanted.places, tables)
        masks = dropout_masks(config, cohort.users, config.local_epochs, seed, broadcast.round)
        take_steps(encoders, decoders, wanted, masks, Rates.of(config, float(tables["rate"])), config.clip)
        changes, holders = _change_of_decoders(decoders, tables), {"output": wanted.places.columns}
        if not personal:
            changes |= _change_of_encoders(encoders, histories, tables)
            holders["input"] = cohort.items
        sums = {name: change.numpy() for name, change in changes.items()}
        for layer, items in holders.items():
            sums[f"{layer}.holders"] = np.bincount(items, minlength=n_items).astype(np.int32)
        kept = {name: rows.numpy() for name, rows in encoders.state().items()} if personal else {}
        rows = {"input": cohort.degrees, "output": wanted.sizes.numpy()}
        down = bytes_fetched(config, n_items, rows, numbers=2)
        return Reply(Update(self.update, sums, len(cohort)), kept, bytes_sent(self.update, rows), down)


def _change_of_decoders(decoders: Decoders, start: Parameters) -> dict[str, Tensor]:
    sums = {name: (rows - start[name]).sum(dim=0) for name, rows in decoders.norms.items()}
    sums["hidden.weight"], sums["hidden.bias"] = decoders.hidden.change()
    sums["output.weight"], sums["output.bias"] = decoders.output.change()
    return sums


def _change_of_encoders(encoders: Encoders, histories: Histories, start: Parameters) -> dict[str, Tensor]:
    sums = {name: (rows - start[name]).sum(dim=0) for name, rows in encoders.norms.items()}
    sums["code.weight"], sums["code.bias"] = encoders.code.change()
    sums["input.weight"] = -histories.places.transposed_times(histories.values, encoders.input.moved)
    sums["input.bias"] = -encoders.input.moved.sum(dim=0)
    return sums
