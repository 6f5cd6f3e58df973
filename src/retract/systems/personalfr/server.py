"""PersonalFR's server: train, unlearn and take in new users. It reads no interaction, shared or private."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from retract.data import Interactions
from retract.errors import DataError
from retract.federation import Engine
from retract.models.recommender import HistoryReader, Recommender
from retract.systems.abilities import Learnt
from retract.systems.base import (
    Checkpoint,
    Keep,
    Kind,
    Progress,
    ServerSide,
    Stopwatch,
    Trained,
    Withdrawal,
    keep_nothing,
    no_progress,
    require_same_system,
)
from retract.systems.checks import require_same_form, require_several
from retract.systems.personalfr.asking import census, require_reachable
from retract.systems.personalfr.config import NAME, PersonalFRConfig
from retract.systems.personalfr.facts import with_scale_of
from retract.systems.personalfr.reading import recommender_of
from retract.systems.personalfr.rounds import Training


def half_of(config: PersonalFRConfig) -> ServerSide:
    """The server's half of the form that is set."""
    if config.form == "paper":
        from retract.systems.personalfr.paper import PaperServer

        return PaperServer(config)
    return PersonalFRServer(config)


class PersonalFRServer:
    """Private encoders and one federated decoder (after Le et al., Asilomar 2022, arXiv 2212.08779), in closed form.

    The clients find the decoder together, in rounds of which each is a sum over them, and every client solves for its
    own encoder's answer. What is ratings they fit in a few rounds more. The server reads no interaction, shared or
    private. The closed form is ours; the paper's is `PaperServer`.

    Parameters
    ----------
    config
        Settings.
    """

    fixed_items: Literal[True] = True

    def __init__(self, config: PersonalFRConfig) -> None:
        self.config = config

    def train(
        self,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        resume_from: Checkpoint | None = None,
        keep: Keep = keep_nothing,
        progress: Progress = no_progress,
    ) -> Trained:
        """The census, the start, and for ratings the rounds after it.

        Raises
        ------
        DataError
            If fewer than two users hold an interaction, or what they hold is not what the settings ask for.
        ConfigError
            If `resume_from` is of another training.
        FederationError
            If not all devices answer to the census, or none in any round.
        """
        require_several(NAME, engine)
        return Training(shared, self.config, seed, resume_from, keep, progress).trained(engine)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Forget, as the oracle would have it, bit for bit.

        After "unshare" the model stays: clients still hold what they no longer share, and nothing that is shared was
        ever read. After "erase" all is trained anew on what is left, with the seed that it was trained with, mean and
        ends of the scale too; training is short.

        Raises
        ------
        ConfigError
            If the model is of another system, or in another form than this half.
        FederationError
            If an erasure reaches no device; nothing is changed then.
        """
        config, watch, rounds = self.config_of(trained), Stopwatch(), 0
        shared, after = trained.shared - withdrawal.forget, trained
        if withdrawal.kind == "erase":
            require_reachable(engine)
            after = Training(shared, config, trained.seed, progress=progress).trained(engine)
            rounds = len(after.log)
        record = {"stage": "unlearn", "request": withdrawal.request_id, "rounds": rounds}
        record |= {"seconds": round(watch.seconds, 4)}
        return replace(after, shared=shared, log=(*trained.log, record))

    def extend(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Take in new users, and more of known ones: the model stays, and reads them as it reads everybody.

        Raises
        ------
        DataError
            If there are new items, of which the decoder knows nothing, or the new data is not of the kind or the scale
            that the model was trained on.
        FederationError
            If not all devices answer to the census.
        """
        watch, config, held = Stopwatch(), self.config_of(trained), trained.shared
        if new := shared.n_items - held.n_items:
            raise DataError(f"{NAME} takes in new users, and {new:,} items are new: leave them out, or train again")
        require_reachable(engine)
        census(engine, with_scale_of(config, trained.model), shared.n_items, trained.run, seed)
        progress("extending", 1, 1)
        record = {"stage": "extend", "seconds": round(watch.seconds, 4)}
        return replace(trained, shared=held.over(shared.catalog) | shared, log=(*trained.log, record))

    def learnt(self, kind: Kind) -> Learnt:
        """All that is held, and what is only unshared is still held."""
        return "everything" if kind == "erase" else "nothing"

    def recommender(self, trained: Trained) -> Recommender:
        """What a device has too: it takes a history and what is published."""
        return recommender_of(trained.model, self.config_of(trained))

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """The decoder, read by solving, and its items by themselves."""
        return {"decoder": self.recommender(trained), "items": HistoryReader(trained.model["items"])}

    def config_of(self, trained: Trained) -> PersonalFRConfig:
        """The settings that a model was trained with, resolved for its feedback; errors as of `unlearn`."""
        require_same_system(NAME, trained)
        config = trained.config
        assert isinstance(config, PersonalFRConfig)
        require_same_form(config.form, self.config.form)
        return config
