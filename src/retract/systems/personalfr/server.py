"""PersonalFR's server: the decoder that all share. It is handed sums over clients, and no interaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retract.errors import DataError
from retract.federation import Broadcast, Update
from retract.models.autoencoder import BY_ITEM, DECODER, ENCODER, initial, layer_of
from retract.systems.personalfr.config import Feedback, PersonalFRConfig

SCALES = (0, 10)
"""Where the ends of a scale are looked for that nobody states."""


@dataclass(frozen=True)
class Facts:
    """What the census found.

    Parameters
    ----------
    feedback
        What the clients hold.
    mean
        Of all ratings, 0 for implicit feedback; scalar tensor.
    lowest, highest
        Ends of the scale, scalar tensors.
    support
        Clients that hold each item, int64, shape [n_items].
    """

    feedback: Feedback
    mean: Tensor
    lowest: Tensor
    highest: Tensor
    support: Tensor

    @classmethod
    def of(cls, sums: Mapping[str, Tensor], places: Tensor, config: PersonalFRConfig) -> Facts:
        """Read the sums of `Census` at the places of `scale_places`.

        Raises
        ------
        DataError
            If some interactions have a rating and others none, if the feedback is not of the kind asked for, or if
            ratings lie outside the scale that is stated, or outside all that are looked for where none is.
        """
        count, rated = int(sums["interactions"]), int(sums["rated"])
        if rated not in (0, count):
            raise DataError(f"{rated:,} of {count:,} interactions have a rating: give all of them one, or none")
        found: Feedback = "explicit" if rated else "implicit"
        if config.feedback not in ("auto", found):
            raise DataError(_OTHER_KIND[found])
        if found == "implicit":
            zero = torch.tensor(0.0)
            return cls(found, zero, zero, zero, sums["support"])
        lowest = _end("lowest", config.lowest, places, sums["below"], -1)
        highest = _end("highest", config.highest, places, sums["above"], 0)
        return cls(found, (sums["rating"] / rated).float(), lowest, highest, sums["support"])


_OTHER_KIND = {
    "implicit": "explicit feedback is asked for and the data has no ratings: name their column (--rating-col), or set "
    "feedback=implicit",
    "explicit": "implicit feedback is asked for and the data has ratings, the lowest of which would count as likes: "
    "leave that column out, or set feedback=explicit",
}


def scale_places(config: PersonalFRConfig) -> Tensor:
    """Where a scale may end, ascending: on a half step within `SCALES`, or where it is stated to."""
    stated = [end for end in (config.lowest, config.highest) if end is not None]
    return torch.from_numpy(
        np.unique(np.concatenate([np.arange(SCALES[0], SCALES[1] + 0.5, 0.5), stated])).astype(np.float32)
    )


def _end(name: str, stated: float | None, places: Tensor, outside: Tensor, nearest: int) -> Tensor:
    """The stated end of the scale, else the nearest place that leaves no rating outside."""
    if stated is None:
        fitting = places[(outside == 0) & (places >= SCALES[0]) & (places <= SCALES[1])]
        if not len(fitting):
            raise DataError(
                f"ratings lie outside {SCALES[0]:g} to {SCALES[1]:g}: state the scale's lowest=… and highest=…"
            )
        return fitting[nearest]
    if left_out := int(outside[places == np.float32(stated)]):
        raise DataError(
            f"{left_out:,} ratings lie beyond {stated:g}, the {name} of the scale: train with another {name}=…"
        )
    return torch.tensor(stated)


class Server:
    """The server's state in a round.

    Parameters
    ----------
    config
        Settings, resolved.
    facts
        What the census found.
    seed
        Key of the start.
    tables
        The model to go on from. The start unless given.
    """

    def __init__(
        self, config: PersonalFRConfig, facts: Facts, seed: int, tables: Mapping[str, Tensor] | None = None
    ) -> None:
        self.config, self.facts = config, facts
        layers = DECODER if config.mode == "personal" else (*ENCODER, *DECODER)
        start = initial(layers, len(facts.support), config.widths, seed, config.output_scale)
        self.tables = {name: (start if tables is None else tables)[name].clone() for name in start}
        self._velocity = {name: torch.zeros_like(table) for name, table in self.tables.items()}

    def broadcast(self, round: int, rate: float) -> Broadcast:
        """What the clients get; `rate` is the part of their own rate at which they step in this round."""
        return Broadcast(round, {**self.tables, "mean": self.facts.mean, "rate": torch.tensor(rate)})

    def apply(self, update: Update, rate: float) -> None:
        """One step with momentum along what the clients changed on average, and decay of the last layer.

        A row is averaged over the clients that hold it, as partial models are (HeteroFL, Diao et al., ICLR 2021): over
        all clients of the round, what few have would hardly move.
        """
        for name, table in self.tables.items():
            change = update.tensors[name]
            if name in BY_ITEM:
                holders = update.tensors[f"{layer_of(name)}.holders"].clamp_min(1)
                change = change / (holders[:, None] if change.dim() == 2 else holders)
            else:
                change = change / update.clients
            if name == "output.weight":
                change = change - self.config.output_decay * rate * table
            self._velocity[name].mul_(self.config.server_momentum).add_(change)
            table.add_(self._velocity[name])

    def published(self) -> dict[str, Tensor]:
        """The model: the tables, and what reading them takes."""
        facts = self.facts
        about = {"mean": facts.mean, "lowest": facts.lowest, "highest": facts.highest, "support": facts.support}
        return {**{name: table.clone() for name, table in self.tables.items()}, **about}
