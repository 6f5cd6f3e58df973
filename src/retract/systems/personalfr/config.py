"""The settings of PersonalFR, each with what it does, and what its clients are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from retract.errors import ConfigError
from retract.federation import TensorSpec, UpdateSpec
from retract.models.widths import BY_ITEM, DECODER, ENCODER, Widths, layer_of
from retract.systems.spectral.config import SpectralConfig

NAME = "personalfr"
CENSUS, RATING_STEP = "census", "rating step"
LOCAL_TRAINING, SILO_TRAINING, PULL = "local training", "silo training", "pull"
"""The tasks of PersonalFR's devices, the last three of the paper's form alone."""
JOINING, PULLING, COUNTING = -1, -2, -3
"""Rounds that are none of training: of who makes an encoder of its own, of `PULL` and of `CENSUS`."""

Feedback = Literal["explicit", "implicit"]

OWN_DEFAULTS: Mapping[tuple[str, Feedback], Mapping[str, Any]] = MappingProxyType(
    {
        ("personal", "explicit"): {"rounds": 400, "participation": 0.1},
        ("personal", "implicit"): {
            "rate": 1.0,
            "encoder_rate": 0.03,
            "dropout": 0.2,
            "output_decay": 0.001,
            "rounds": 300,
            "participation": 0.1,
        },
        ("fedavg", "explicit"): {"rounds": 400, "participation": 0.1, "read_published": False, "compress": False},
        ("fedavg", "implicit"): {
            "rate": 1.0,
            "read_published": False,
            "dropout": 0.2,
            "output_decay": 0.001,
            "rounds": 300,
            "participation": 0.1,
            "compress": False,
        },
        ("joint", "explicit"): {
            "rounds": 400,
            "participation": 0.1,
            "rate": 0.1,
            "read_published": False,
            "local_epochs": 1,
            "compress": False,
        },
        ("joint", "implicit"): {
            "rate": 2.0,
            "read_published": False,
            "dropout": 0.0,
            "output_decay": 0.001,
            "rounds": 300,
            "participation": 0.1,
            "local_epochs": 1,
            "compress": False,
        },
    }
)
"""By mode and feedback, the defaults of the paper's form where they differ from those that its settings show.

Tuned, the references like the method, on a tenth of every user held out of the train parts of ML-100K and ML-1M. What
they reach there: `python -m benchmarks.personalfr explicit --validation`, and `implicit` likewise.
"""


class PersonalFRConfig(SpectralConfig):
    """Settings of PersonalFR, tuned on validation parts of train folds; the paper's form has some in `OWN_DEFAULTS`."""

    defaults_by: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
        "mode": {"fedavg": {"form": "paper"}, "joint": {"form": "paper"}}
    }

    dimension: Annotated[
        int, Field(ge=0, description="Closed: size d of all embeddings; 0 for what the clients' data bear.")
    ] = 0
    form: Annotated[
        Literal["closed", "paper"],
        Field(
            description="closed: a start found by the clients together, and encoders that each client solves for "
            "itself; paper: autoencoders, learnt in rounds of SGD."
        ),
    ] = "closed"
    feedback: Annotated[
        Literal["auto", "explicit", "implicit"],
        Field(description="Whether to predict ratings or what is touched next; auto goes by what the clients hold."),
    ] = "auto"
    rounds: Annotated[
        int,
        Field(
            ge=1,
            description="Closed: rounds after the start, in which clients fit a decoder of ratings where they have "
            "some; paper: rounds of communication.",
        ),
    ] = 6
    lowest: Annotated[float | None, Field(description="Explicit: the scale's lower end; found unless given.")] = None
    highest: Annotated[float | None, Field(description="Explicit: its upper end; found unless given.")] = None

    spectrum: Annotated[
        float, Field(ge=0, description="Closed: columns of the start go with their singular values to this power.")
    ] = 0.5
    unobserved: Annotated[
        float, Field(ge=0, description="Closed: weight of what is untouched, when a client solves for its code.")
    ] = 0.8
    ridge: Annotated[
        float, Field(gt=0, description="Closed: regularisation of a code; grows with the root of what a user did.")
    ] = 1.2
    popularity: Annotated[
        float,
        Field(ge=0, le=1, description="Closed: an item of degree D is read at D^-this, and scored at D^this."),
    ] = 0.25
    taste_length: Annotated[
        float, Field(ge=0, description="Closed: length of an item's vector in the rating decoder's start.")
    ] = 0.6
    taste_noise: Annotated[
        float, Field(gt=0, description="Closed: variance of the noise in ratings, as a part of what biases leave.")
    ] = 0.95
    user_bias: Annotated[
        float, Field(gt=0, description="Closed: variance of users' biases, as a part of what items' biases leave.")
    ] = 0.25
    bias_prior: Annotated[
        float,
        Field(ge=0, description="Closed: ratings at the mean that an item's bias counts beside its own."),
    ] = 5.0
    start_pull: Annotated[
        float, Field(ge=0, description="Closed: ratings that the start of an item's vector counts for.")
    ] = 250.0
    links: Annotated[
        int, Field(ge=0, description="Closed: columns of the start that tell a user's taste from what it touched.")
    ] = 32
    link_ridge: Annotated[float, Field(gt=0, description="Closed: regularisation of how they tell it.")] = 15_000.0
    step: Annotated[float, Field(gt=0, le=1, description="Closed: part of the way that each round goes.")] = 0.7
    taste: Annotated[
        float,
        Field(ge=0, description="Closed: weight of the expected rating in lists, beside how likely a touch is."),
    ] = 0.3

    mode: Annotated[
        Literal["personal", "fedavg", "joint"],
        Field(
            description="Paper: what the server aggregates: the decoder, and encoders stay private; the whole model "
            "(fedavg); or the gradient of the whole model, one step of SGD on pooled data per round (joint)."
        ),
    ] = "personal"
    hidden: Annotated[int, Field(ge=2, description="Paper: width of the hidden layers.")] = 256
    code: Annotated[int, Field(ge=2, description="Paper: width of the code.")] = 128
    dropout: Annotated[float, Field(ge=0, lt=1, description="Paper: part of the code dropped in each local step.")] = (
        0.5
    )
    local_epochs: Annotated[
        int, Field(ge=1, description="Paper: a client's steps in a round, each over all its data.")
    ] = 5
    rate: Annotated[float, Field(gt=0, description="Paper: a client's SGD rate; falls to 0 by a cosine.")] = 0.03
    encoder_rate: Annotated[float, Field(gt=0, description="Paper: an encoder's rate, times that of the decoder.")] = (
        1.0
    )
    read_published: Annotated[
        bool,
        Field(description="Paper: whether encoders read a history through the published last layer too."),
    ] = True
    clip: Annotated[float, Field(gt=0, description="Paper: norm to which a client's gradient is clipped.")] = 1.0
    server_momentum: Annotated[float, Field(ge=0, lt=1, description="Paper: momentum of the server's steps.")] = 0.9
    output_decay: Annotated[
        float, Field(ge=0, lt=1, description="Paper: part of the last layer that the server takes away in each round.")
    ] = 0.01
    output_scale: Annotated[
        float, Field(gt=0, description="Paper: deviation of the last layer's start, times Xavier's.")
    ] = 0.1
    negatives: Annotated[
        int, Field(ge=1, description="Paper: implicit: untouched items drawn for each touched one in a round.")
    ] = 1
    compress: Annotated[
        bool, Field(description="Paper: whether clients fetch and send active rows only; the model is the same.")
    ] = True
    min_support: Annotated[
        int, Field(ge=0, description="Paper: explicit: items with fewer ratings are recommended after all others.")
    ] = 5
    join_steps: Annotated[
        int, Field(ge=0, description="Paper: steps against the frozen decoder that give who joins later an encoder.")
    ] = 20
    unlearn_part: Annotated[
        float,
        Field(ge=0, le=1, description="Paper: fedavg, joint: rounds after an erasure, as a part of those before."),
    ] = 0.08
    unlearn_rate: Annotated[
        float, Field(gt=0, description="Paper: rate of further rounds, times that of training; falls likewise.")
    ] = 0.6

    @model_validator(mode="after")
    def _fits_together(self) -> PersonalFRConfig:
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            raise ConfigError(f"lowest is {self.lowest:g} and highest {self.highest:g}: a scale goes up")
        if self.mode != "personal" and self.form != "paper":
            raise ConfigError(f"mode={self.mode} is of the paper's form only: set form=paper, or leave mode out")
        return self

    @property
    def widths(self) -> Widths:
        """Of the autoencoder."""
        return Widths(self.hidden, self.code)

    def resolved(self, feedback: Feedback) -> PersonalFRConfig:
        """The same settings for one kind of feedback, its own defaults where nothing was given."""
        given = {**self.model_dump(include=self.model_fields_set), "feedback": feedback}
        own = OWN_DEFAULTS[self.mode, feedback] if self.form == "paper" else {}
        return PersonalFRConfig.model_validate({**own, **given})


def layers_of(config: PersonalFRConfig) -> tuple[str, ...]:
    """The layers that the server holds: the decoder, and the encoder where that is not private."""
    return DECODER if config.mode == "personal" else (*ENCODER, *DECODER)


def census_update(n_items: int, n_places: int) -> UpdateSpec:
    """What clients answer to `CENSUS`, asked about so many places of the scale.

    Interactions, how many are rated, users, the sum of squared ratings, each item's users and its ratings' sum, and the
    ratings below and above each place. A count of an item's users is an int32: it is exact for fewer than 2³¹ of them.
    """
    return UpdateSpec(
        {
            "interactions": TensorSpec((), "int64"),
            "rated": TensorSpec((), "int64"),
            "users": TensorSpec((), "int64"),
            "squares": TensorSpec((), "float64"),
            "ratings": TensorSpec((n_items,), "float64", layout="rows", group="support"),
            "support": TensorSpec((n_items,), "int32", layout="rows", group="support"),
            "below": TensorSpec((n_places,), "int64"),
            "above": TensorSpec((n_places,), "int64"),
        }
    )


def rating_update(config: PersonalFRConfig, n_items: int) -> UpdateSpec:
    """What clients answer to `RATING_STEP`.

    The gradients of their items' vectors and biases and, over the users that hold each item, how many; and three small
    matrices: how users' vectors spread, how their links do, and how the two go together.
    """
    d, links = config.dimension, min(config.links, config.dimension)
    return UpdateSpec(
        {
            "gradient": TensorSpec((n_items, d), layout="rows", group="items"),
            "bias": TensorSpec((n_items,), layout="rows", group="items"),
            "holders": TensorSpec((n_items,), "int32", layout="rows", group="items"),
            "spread": TensorSpec((d, d)),
            "links": TensorSpec((links, links)),
            "linked": TensorSpec((links, d + 1)),
        }
    )


def training_update(config: PersonalFRConfig, n_items: int) -> UpdateSpec:
    """What clients answer to `LOCAL_TRAINING` and `SILO_TRAINING`: the change of all that the server holds.

    And, of the layers by item, the clients that hold each row, int32: exact for fewer than 2³¹ of them. Compressed,
    the rows of one layer share one list of numbers.
    """
    tensors: dict[str, TensorSpec] = {}
    for name, shape in config.widths.shapes(layers_of(config), n_items).items():
        by_rows = config.compress and name in BY_ITEM
        tensors[name] = TensorSpec(shape, layout="rows", group=layer_of(name)) if by_rows else TensorSpec(shape)
        if name in BY_ITEM and name.endswith("weight"):
            layer = layer_of(name)
            counts = TensorSpec((n_items,), "int32")
            rows = TensorSpec((n_items,), "int32", layout="rows", group=layer)
            tensors[f"{layer}.holders"] = rows if by_rows else counts
    return UpdateSpec(tensors)


def pull_update(config: PersonalFRConfig, n_items: int) -> UpdateSpec:
    """What clients answer to `PULL`.

    How their losses pull at every row of the last layer (w and b, side by side), how stiff they hold it, how many hold
    it, and the shape of all these stiffnesses. Of ratings a client sends what it holds; else every item counts.
    """
    width, sparse = config.hidden + 1, config.compress and config.feedback == "explicit"

    def rows(*shape: int) -> TensorSpec:
        return TensorSpec(shape, layout="rows", group="output") if sparse else TensorSpec(shape)

    return UpdateSpec(
        {
            "pull": rows(n_items, width),
            "stiffness": rows(n_items),
            "holders": rows(n_items),
            "shape": TensorSpec((width, width)),
        }
    )


def bytes_sent(update: UpdateSpec, rows: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """What each client's own update weighs, int64, shape [n_clients].

    Parameters
    ----------
    rows
        By group, how many rows of it each client touches, shape [n_clients].
    """
    total = np.zeros(len(next(iter(rows.values()))), dtype=np.int64)
    numbered = set[str]()
    for one in update.tensors.values():
        size = np.dtype(one.dtype).itemsize
        if one.layout == "dense":
            total += prod(one.shape) * size
        else:
            assert one.group is not None
            total += rows[one.group] * (prod(one.shape[1:]) * size + (4 if one.group not in numbered else 0))
            numbered.add(one.group)
    return total


def bytes_fetched(
    config: PersonalFRConfig, n_items: int, rows: Mapping[str, NDArray[np.int64]], *, numbers: int
) -> NDArray[np.int64]:
    """What each client fetches of a broadcast, int64, shape [n_clients].

    Compressed, it asks for the rows that it will use, whose numbers it then need not send again with their change;
    else it gets whole tables.

    Parameters
    ----------
    rows
        By layer, how many rows each client uses of the first and of the last one, shape [n_clients].
    numbers
        How many numbers the broadcast has beside its tables, float32: mean and rate, or the mean alone.
    """
    total = np.full(len(rows["output"]), numbers, dtype=np.int64)
    for name, shape in config.widths.shapes(layers_of(config), n_items).items():
        by_rows = config.compress and name in BY_ITEM
        total += rows[layer_of(name)] * prod(shape[1:]) if by_rows else prod(shape)
    return 4 * total
