"""What systems have in common that keep everything that is shared on the server: there are no devices to speak of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from retract.federation import Arrays, ClientTask, Kept, TaskSpec
from retract.models.recommender import DotProduct, OrPopular, Recommender
from retract.systems.base import Checkpoint, Published, SystemConfig, new_run
from retract.systems.checks import require_own_checkpoint


class CentralDevice:
    """A device that does nothing for the server, and reads the tables that it publishes (a `DeviceSide`)."""

    def __init__(self, config: SystemConfig) -> None:
        self.config, self.tasks = config, dict[str, Callable[[TaskSpec], ClientTask]]()

    def reader(self, model: Published, kept: Kept) -> Recommender:
        """What the server itself recommends by."""
        return recommender_of(model.tables)

    def views(self, model: Published, kept: Kept) -> Mapping[str, Recommender]:
        """Nothing beyond what the server has: devices keep nothing."""
        return {}


def recommender_of(tables: Arrays) -> Recommender:
    """Inner products of `users` and `items`; for users whose row is zero the `popularity`, where it is published."""
    inner = DotProduct(tables["users"], tables["items"])
    if "popularity" not in tables:
        return inner
    return OrPopular(inner, tables["users"].any(axis=1), tables["popularity"])


def begun(system: str, config: SystemConfig, seed: int, resume_from: Checkpoint | None) -> Checkpoint:
    """The training that was interrupted, or a new one of which nothing is done.

    Raises
    ------
    ConfigError
        If what was interrupted is another training.
    """
    if resume_from is None:
        return Checkpoint(system, config.model_dump(mode="json"), seed, new_run(), "training", 0, {})
    require_own_checkpoint(resume_from, system, config, seed)
    return resume_from
