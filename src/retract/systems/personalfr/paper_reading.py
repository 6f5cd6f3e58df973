"""How PersonalFR's model is read: a history by an encoder into a code, and the code by the published decoder."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retract.data import Interactions
from retract.federation import NOTHING_KEPT, Arrays, ClientState, Cohort, Kept
from retract.models.learn.arrays import as_tensor
from retract.models.learn.autoencoder import Parameters, decode, encode
from retract.models.recommender import Scores
from retract.systems.personalfr.config import JOINING, PersonalFRConfig
from retract.systems.personalfr.encoding import (
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


class Reader:
    """What turns histories into codes.

    Users of one client share its encoder. Who has none yet gets one in a few steps against the frozen decoder, made of
    the history that is read: so does a user who joins after training, one who erased something, and all whose devices
    are out of reach.

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
        self, read: Cohort, places: NDArray[np.int64], state: ClientState, trained_on: Cohort | None = None
    ) -> Tensor:
        """Shape [len(read), code].

        Parameters
        ----------
        read
            The histories.
        places
            The row of each user's client in `state`, shape [len(read)]; -1 for a client that has no encoder.
        state
            What clients keep of `LocalTraining` or `SiloTraining`.
        trained_on
            What the same users held when the encoders were trained; `read` unless given.
        """
        if self.config.mode != "personal":
            return Encoders(self.histories(read), self.tables, {}, self.published).codes()
        has, codes = places >= 0, torch.empty(len(read), self.config.code)
        if has.any():
            held = None if trained_on is None else trained_on.where(has)
            codes[torch.from_numpy(has)] = self._own(read.where(has), places[has], state, held)
        if not has.all():
            codes[torch.from_numpy(~has)] = self._joining(read.where(~has))
        return codes

    def histories(self, cohort: Cohort) -> Histories:
        """As encoders read them."""
        return Histories.of(cohort, self.config.feedback == "explicit", float(self.tables["mean"]))

    def _own(self, read: Cohort, places: NDArray[np.int64], state: ClientState, trained_on: Cohort | None) -> Tensor:
        """By the encoders that training made, which read any history, not only the one they were trained on."""
        histories = self.histories(read)
        if "input.moved" not in state:
            return silo_codes(state, places, histories, self.published)
        own = {name: as_tensor(rows[places]) for name, rows in state.items()}
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
    """Recommendations by a user's own encoder, where its device keeps one, and the published decoder.

    Parameters
    ----------
    tables
        What is published.
    config, seed
        Of the training.
    kept
        What the devices keep; nothing where they are out of reach.
    """

    def __init__(self, tables: Arrays, config: PersonalFRConfig, seed: int, kept: Kept = NOTHING_KEPT) -> None:
        self.tables, self.config, self.kept = tables, config, kept
        self._parameters = tensors(tables)
        self._reader = Reader(self._parameters, config, seed)

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        said: Scores = decode(self._parameters, torch.from_numpy(self.codes(users, history))).numpy()
        return said

    def codes(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """float32, shape [len(users), code]."""
        kept = self.kept
        held = None if kept.held is None else Cohort.of(kept.held, users)
        found: Scores = self._reader.codes(Cohort.of(history, users), kept.places_of(users), kept.state, held).numpy()
        return found


class RatingRecommender(PersonalFRRecommender):
    """The same for a model of ratings, which ranks by predicted rating."""

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]; what too few have rated stands below all else, by the width of the scale."""
        width = float(self.tables["highest"] - self.tables["lowest"])
        too_few = np.asarray(self.tables["support"]) < self.config.min_support
        ratings = self.ratings(users, history)
        return np.where(too_few, ratings - np.float32(width), ratings)

    def ratings(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Predicted ratings within the scale, shape [len(users), n_items]."""
        said = super().scores(users, history) + np.float32(self.tables["mean"])
        return said.clip(float(self.tables["lowest"]), float(self.tables["highest"]))


def recommender_of(
    tables: Arrays, config: PersonalFRConfig, seed: int, kept: Kept = NOTHING_KEPT
) -> PersonalFRRecommender:
    """The recommender for a model's feedback; arguments as of `PersonalFRRecommender`."""
    kind = RatingRecommender if config.feedback == "explicit" else PersonalFRRecommender
    return kind(tables, config, seed, kept)


def silo_codes(
    encoders: ClientState, places: NDArray[np.int64], histories: Histories, published: Parameters | None
) -> Tensor:
    """Codes of users by their clients' encoders, shape [n_users, code].

    Parameters
    ----------
    encoders
        State of `SiloTraining`, a row per client.
    places
        The row of each user's client, shape [n_users].
    published
        The decoder, where encoders read it.
    """
    codes = torch.empty(len(places), encoders["code.bias"].shape[1])
    for place in np.unique(places):
        users, own = torch.from_numpy(places == place), tensors({name: rows[place] for name, rows in encoders.items()})
        codes[users] = encode(own, histories.read_by(own, published)[users])
    return codes


def _inner(one: Histories, other: Histories) -> Tensor:
    """⟨x, y⟩ of the same users' two histories, shape [n, 1]."""
    first, second = (each.places.rows.numpy() * each.places.n_columns + each.places.columns for each in (one, other))
    _, mine, theirs = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    products = one.values[mine] * other.values[theirs]
    rows = one.places.rows[torch.from_numpy(mine)]
    return torch.zeros(one.places.n_rows).index_add(0, rows, products)[:, None]
