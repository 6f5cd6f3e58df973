"""How PersonalFR's clients read a history, and what they recommend: own encoder, published decoder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions
from retract.federation import Clients, ClientState, Cohort
from retract.models.autoencoder import Parameters, decode, encode
from retract.systems.personalfr.client import (
    Decoders,
    Encoders,
    Histories,
    Rates,
    Wanted,
    common_start,
    dropout_masks,
    take_steps,
)
from retract.systems.personalfr.config import PersonalFRConfig

JOINING = -1
"""The round of who joins later, part of the key of all draws."""


class Reader:
    """What turns histories into codes, on the clients.

    Users of one client share its encoder. Who has none yet gets one in a few steps against the frozen decoder, made of
    the history that is read: so does a user who joins after training, and one who erased something.

    Parameters
    ----------
    tables
        The decoder, the mean of all ratings, and the encoder where it is the server's.
    config, seed
        Of the training: the common start of all encoders is a function of them.
    """

    def __init__(self, tables: Parameters, config: PersonalFRConfig, seed: int) -> None:
        self.tables, self.config, self.seed = tables, config, seed
        self.published = tables if config.read_published else None

    def codes(
        self, read: Cohort, clients: NDArray[np.int64], state: ClientState, trained_on: Cohort | None = None
    ) -> Tensor:
        """Shape [len(read), code].

        Parameters
        ----------
        read
            The histories.
        clients
            The row of each user's client in `state`, shape [len(read)].
        state
            What clients keep of `LocalTraining` or `SiloTraining`; zeros for a client that has no encoder.
        trained_on
            What the same users held when the encoders were trained; `read` unless given.
        """
        if self.config.mode != "personal":
            return Encoders(self.histories(read), self.tables, {}, self.published).codes()
        has = state["code.gain"].any(dim=1).numpy()[clients] if state else np.zeros(len(read), dtype=np.bool_)
        codes = torch.empty(len(read), self.config.code)
        if has.any():
            held = None if trained_on is None else trained_on.where(has)
            codes[torch.from_numpy(has)] = self._own(read.where(has), clients[has], state, held)
        if not has.all():
            codes[torch.from_numpy(~has)] = self._joining(read.where(~has))
        return codes

    def histories(self, cohort: Cohort) -> Histories:
        """As encoders read them."""
        return Histories.of(cohort, self.config.feedback == "explicit", float(self.tables["mean"]))

    def _own(self, read: Cohort, clients: NDArray[np.int64], state: ClientState, trained_on: Cohort | None) -> Tensor:
        """By the encoders that training made, which read any history, not only the one they were trained on."""
        histories = self.histories(read)
        if "input.moved" not in state:
            return silo_codes(state, clients, histories, self.published)
        own = {name: rows[torch.from_numpy(clients)] for name, rows in state.items()}
        encoders = Encoders(histories, self._start(read), own, self.published)
        if trained_on is not None:
            encoders.input.reach = _inner(self.histories(trained_on), histories) + 1
        return encoders.codes()

    def _joining(self, read: Cohort) -> Tensor:
        """By encoders made now."""
        config, histories = self.config, self.histories(read)
        wanted = Wanted.of(read, histories, config, self.seed, JOINING)
        encoders = Encoders(histories, self._start(read), {}, self.published)
        decoders = Decoders(wanted.places, self.tables)
        masks = dropout_masks(config, read.users, config.join_steps, self.seed, JOINING)
        take_steps(encoders, decoders, wanted, masks, Rates(config.rate, config.rate), config.clip, frozen=True)
        return encoders.codes()

    def _start(self, cohort: Cohort) -> Parameters:
        return common_start(cohort.n_items, self.config.widths, self.seed)


class PersonalFRRecommender:
    """Recommendations as the clients compute them.

    Parameters
    ----------
    model
        The published tables.
    clients
        The devices.
    config, seed
        Of the training.
    """

    def __init__(self, model: Mapping[str, Tensor], clients: Clients, config: PersonalFRConfig, seed: int) -> None:
        self.model, self.clients, self.config = model, clients, config
        self._reader = Reader(model, config, seed)

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), n_items]."""
        return decode(self.model, self.codes(users, history))

    def codes(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), code]."""
        numbers, clients = np.unique(self.clients.client_of[users], return_inverse=True)
        state = {name: rows[torch.from_numpy(numbers)] for name, rows in self.clients.state.items()}
        held = Cohort.of(self.clients.interactions, users)
        return self._reader.codes(Cohort.of(history, users), clients, state, held)


class RatingRecommender(PersonalFRRecommender):
    """The same for a model of ratings, which ranks by predicted rating."""

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Shape [len(users), n_items]; what too few have rated stands below all else, by the width of the scale."""
        width = self.model["highest"] - self.model["lowest"]
        return self.ratings(users, history) - width * (self.model["support"] < self.config.min_support)

    def ratings(self, users: NDArray[np.int64], history: Interactions) -> Tensor:
        """Predicted ratings within the scale, shape [len(users), n_items]."""
        said = super().scores(users, history) + self.model["mean"]
        return said.clamp(float(self.model["lowest"]), float(self.model["highest"]))


def silo_codes(
    encoders: ClientState, clients: NDArray[np.int64], histories: Histories, published: Parameters | None
) -> Tensor:
    """Codes of users by their clients' encoders, shape [n_users, code].

    Parameters
    ----------
    encoders
        State of `SiloTraining`, a row per client.
    clients
        The client of each user, shape [n_users].
    published
        The decoder, where encoders read it.
    """
    codes = torch.empty(len(clients), encoders["code.bias"].shape[1])
    for client in np.unique(clients):
        users, own = torch.from_numpy(clients == client), {name: rows[client] for name, rows in encoders.items()}
        codes[users] = encode(own, histories.read_by(own, published)[users])
    return codes


def _inner(one: Histories, other: Histories) -> Tensor:
    """⟨x, y⟩ of the same users' two histories, shape [n, 1]."""
    first, second = (each.places.rows.numpy() * each.places.n_columns + each.places.columns for each in (one, other))
    _, mine, theirs = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    products = one.values[mine] * other.values[theirs]
    rows = one.places.rows[torch.from_numpy(mine)]
    return torch.zeros(one.places.n_rows).index_add(0, rows, products)[:, None]
