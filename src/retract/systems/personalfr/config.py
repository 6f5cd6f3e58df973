"""The settings of PersonalFR, each with what it does."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from retract.errors import ConfigError
from retract.models.autoencoder import Widths
from retract.systems.base import SystemConfig

Feedback = Literal["explicit", "implicit"]

OWN_DEFAULTS: Mapping[tuple[str, Feedback], Mapping[str, Any]] = MappingProxyType(
    {
        ("personal", "explicit"): {},
        ("personal", "implicit"): {
            "rate": 1.0,
            "encoder_rate": 0.03,
            "dropout": 0.2,
            "output_decay": 0.001,
            "rounds": 300,
        },
        ("fedavg", "explicit"): {"read_published": False, "compress": False},
        ("fedavg", "implicit"): {
            "rate": 1.0,
            "read_published": False,
            "dropout": 0.2,
            "output_decay": 0.001,
            "rounds": 300,
            "compress": False,
        },
        ("joint", "explicit"): {"rate": 0.1, "read_published": False, "local_epochs": 1, "compress": False},
        ("joint", "implicit"): {
            "rate": 2.0,
            "read_published": False,
            "dropout": 0.0,
            "output_decay": 0.001,
            "rounds": 300,
            "local_epochs": 1,
            "compress": False,
        },
    }
)
"""By mode and feedback, where defaults differ from those of ratings in the first mode.

Tuned, the references like the method, on a tenth of every user held out of the train parts of ML-100K and ML-1M. What
they reach there: `python -m benchmarks.personalfr explicit --validation`, and `implicit` likewise.
"""


class PersonalFRConfig(SystemConfig):
    """Settings of PersonalFR; the defaults are for ratings, those of `OWN_DEFAULTS` for what has none."""

    mode: Annotated[
        Literal["personal", "fedavg", "joint"],
        Field(
            description="What the server aggregates: the decoder, and encoders stay private; the whole model (fedavg); "
            "or the gradient of the whole model, one step of SGD on pooled data per round (joint)."
        ),
    ] = "personal"
    feedback: Annotated[
        Literal["auto", "explicit", "implicit"],
        Field(description="Whether to predict ratings or what is touched next; auto goes by what the clients hold."),
    ] = "auto"
    hidden: Annotated[int, Field(ge=2, description="Width of the hidden layers.")] = 256
    code: Annotated[int, Field(ge=2, description="Width of the code.")] = 128
    dropout: Annotated[float, Field(ge=0, lt=1, description="Part of the code dropped in each local step.")] = 0.5
    rounds: Annotated[int, Field(ge=1, description="Rounds of communication.")] = 400
    participation: Annotated[float, Field(gt=0, le=1, description="Part of the clients in each round.")] = 0.1
    local_epochs: Annotated[int, Field(ge=1, description="A client's steps in a round, each over all its data.")] = 5
    rate: Annotated[float, Field(gt=0, description="A client's SGD rate; falls to 0 by a cosine.")] = 0.03
    encoder_rate: Annotated[float, Field(gt=0, description="An encoder's rate, times that of the decoder.")] = 1.0
    read_published: Annotated[
        bool,
        Field(description="Whether encoders read a history through the decoder's last layer too, as it is published."),
    ] = True
    clip: Annotated[float, Field(gt=0, description="Norm to which a client's gradient is clipped.")] = 1.0
    server_momentum: Annotated[float, Field(ge=0, lt=1, description="Momentum of the server's steps.")] = 0.9
    output_decay: Annotated[
        float, Field(ge=0, lt=1, description="Part of the last layer that the server takes away in each round.")
    ] = 0.01
    output_scale: Annotated[float, Field(gt=0, description="Deviation of the last layer's start, times Xavier's.")] = (
        0.1
    )
    negatives: Annotated[
        int, Field(ge=1, description="Implicit: untouched items drawn for each touched one in a round.")
    ] = 1
    compress: Annotated[
        bool, Field(description="Whether clients fetch and send active rows only; the model is the same.")
    ] = True
    lowest: Annotated[float | None, Field(description="Explicit: the scale's lower end; found unless given.")] = None
    highest: Annotated[float | None, Field(description="Explicit: its upper end; found unless given.")] = None
    min_support: Annotated[
        int, Field(ge=0, description="Explicit: items with fewer ratings are recommended after all others.")
    ] = 5
    join_steps: Annotated[
        int, Field(ge=0, description="Steps against the frozen decoder that give who joins later an encoder.")
    ] = 20
    unlearn_part: Annotated[
        float, Field(ge=0, le=1, description="fedavg, joint: rounds after an erasure, as a part of those of training.")
    ] = 0.08
    unlearn_rate: Annotated[
        float, Field(gt=0, description="Rate of further rounds, times that of training; falls likewise.")
    ] = 0.6

    @model_validator(mode="after")
    def _scale_goes_up(self) -> PersonalFRConfig:
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            raise ConfigError(f"lowest is {self.lowest:g} and highest {self.highest:g}: a scale goes up")
        return self

    @property
    def widths(self) -> Widths:
        """Of the autoencoder."""
        return Widths(self.hidden, self.code)

    def resolved(self, feedback: Feedback) -> PersonalFRConfig:
        """The same settings for one kind of feedback, its own defaults where nothing was given."""
        given = {**self.model_dump(include=self.model_fields_set), "feedback": feedback}
        return PersonalFRConfig.model_validate({**OWN_DEFAULTS[self.mode, feedback], **given})
