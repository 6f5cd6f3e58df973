"""A trained folder's model as one file for clients, and what they do with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retract.atomic import write_atomically
from retract.errors import ConfigError, FolderError
from retract.stores.folder import TrainedFolder
from retract.stores.measuring import Metrics, measure
from retract.stores.reading import Recommended
from retract.systems.exact.shipping import ShippedModel, ship


@dataclass(frozen=True)
class ShipReport:
    """What `ship_folder` wrote: the file, its size, and its accuracy beside the whole model's."""

    file: str
    bytes: int
    epsilon: float | None
    metrics: Metrics
    metrics_whole: Metrics


def ship_folder(
    path: Path, out: Path, *, max_bytes: int, epsilon: float | None = None, delta: float = 1e-6
) -> ShipReport:
    """Write a model of Exact as one file for clients. Settings as in `retract.systems.exact.shipping.ship`.

    Raises
    ------
    ConfigError
        If the folder is of another system, or the settings allow no model.
    FolderError
        If `out` is a folder.
    """
    if out.is_dir():
        raise FolderError(f"{out} is a folder: give a file for the shipped model")
    held = TrainedFolder(path).load()
    if held.trained.system != "exact":
        raise ConfigError(
            f"{path} holds {held.trained.system}, whose clients keep a state of their own: only exact ships"
        )
    if not held.trained.model:
        raise ConfigError(f"the model of {path} knows nothing, for nothing is shared: there is nothing to ship")
    content = ship(held.trained, max_bytes=max_bytes, epsilon=epsilon, delta=delta)
    write_atomically(out, content)
    history = held.interactions
    metrics = measure(ShippedModel.from_bytes(content), history, held.test)
    return ShipReport(str(out), len(content), epsilon, metrics, measure(held.recommender(), history, held.test))


def recommend_shipped(
    path: Path, items: Callable[[Sequence[str]], Sequence[str]], k: int | None = None
) -> list[Recommended]:
    """The best items beside those that somebody has, from a shipped file alone; `k` as in `Opened.lists`.

    Parameters
    ----------
    items
        Called with all item ids of the file: those that somebody has.

    Raises
    ------
    UnknownIdError
        If an item is unknown; the message names the nearest known ids.
    ConfigError
        If k lies outside [1, number of items].
    FolderError
        If the file is no shipped model, or damaged.
    """
    model = ShippedModel.load(path)
    return [Recommended(*line) for line in model.recommend(items(model.item_ids.tolist()), k)]
