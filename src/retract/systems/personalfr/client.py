"""PersonalFR beside the user's data: the recommendations, and what a device can do for the server.

What takes gradients is imported where it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from retract.federation import ClientTask, Kept, TaskMakers, TaskSpec
from retract.models.recommender import Recommender
from retract.systems.base import Published
from retract.systems.checks import require_extra
from retract.systems.personalfr import PERSONALFR
from retract.systems.personalfr.config import (
    CENSUS,
    LOCAL_TRAINING,
    NAME,
    PULL,
    RATING_STEP,
    SILO_TRAINING,
    PersonalFRConfig,
)
from retract.systems.personalfr.reading import recommender_of
from retract.systems.spectral.config import PROJECTION

_TASKS: Mapping[str, str] = {
    CENSUS: "retract.systems.personalfr.census:Census",
    PROJECTION: "retract.systems.spectral.projection:Projection",
    RATING_STEP: "retract.systems.personalfr.rating_step:RatingStep",
    LOCAL_TRAINING: "retract.systems.personalfr.local_training:LocalTraining",
    SILO_TRAINING: "retract.systems.personalfr.silo:SiloTraining",
    PULL: "retract.systems.personalfr.pull:Pull",
}


class PersonalFRDevice:
    """A device reads its history by the published decoder, and by an encoder of its own (a `DeviceSide`)."""

    def __init__(self, config: PersonalFRConfig) -> None:
        self.config = config

    @property
    def tasks(self) -> TaskMakers:
        """The census, the rounds of the start and of ratings, and those of the paper's form."""
        return {name: partial(_made, path) for name, path in _TASKS.items()}

    def reader(self, model: Published, kept: Kept) -> Recommender:
        """The published decoder, read by solving; in the paper's form by an own encoder, or one made of the history."""
        config = model.config
        assert isinstance(config, PersonalFRConfig)
        if config.form == "closed":
            return recommender_of(model.tables, config)
        require_extra(NAME, "learn", "torch")
        from retract.systems.personalfr import paper_reading

        return paper_reading.recommender_of(model.tables, config, model.seed, kept)

    def views(self, model: Published, kept: Kept) -> Mapping[str, Recommender]:
        """Nothing beyond its recommendations: there is no other use for an encoder."""
        return {}


def _made(path: str, spec: TaskSpec) -> ClientTask:
    """A task, of a module that is loaded only where the task is asked for."""
    task: ClientTask = PERSONALFR.load(path)(spec)
    return task
