"""Exact's server: train, unlearn and extend, each to the closed form of what is then held."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import scipy.sparse as sp

from retract.data import Interactions
from retract.errors import DataError, FederationError
from retract.federation import Broadcast, Engine
from retract.models.ease import regularised_inverse
from retract.models.recommender import Recommender
from retract.systems.abilities import Learnt
from retract.systems.base import (
    Checkpoint,
    Keep,
    Kind,
    Memory,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    keep_nothing,
    new_run,
    no_progress,
    require_same_system,
    task_spec,
)
from retract.systems.checks import require_one_user_each
from retract.systems.exact.closed_form import Solved, solve
from retract.systems.exact.config import TERM, ExactConfig, require_memory, term_update
from retract.systems.exact.reading import recommender_of
from retract.systems.exact.settling import settled
from retract.systems.exact.tables import Tables, form_of
from retract.systems.exact.unlearning import resolve

NAME = "exact"
AWAITED = "left out until it is made anew"
"""What the log says of a subspace that is not served, for it would still know what was withdrawn."""


class ExactServer:
    """Closed forms of sums over users: the leading subspace with a graph filter beside it, the filter alone, or EASE.

    To forget is to subtract, or for the subspace to make it anew: after every withdrawal the model is, to
    floating-point error, the one that training without the data gives. What the server keeps for it is the shared data
    alone.

    Parameters
    ----------
    config
        Settings; what they leave open is settled by what is shared.
    """

    def __init__(self, config: ExactConfig) -> None:
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
        """Settle what the settings leave open, sum over users, and solve.

        The model holds the settled settings; whatever it becomes later, and its oracle, has the same. `seed` draws who
        judges them, and nothing else.

        Raises
        ------
        DataError
            If nothing is shared, and private interactions do not count either.
        ConfigError
            If the machine has no room for EASE, or a client has more than one user.
        """
        require_one_user_each(NAME, engine)
        watch = Stopwatch()
        progress("training", 0, 1)
        config, settling, known = settled(shared, self.config, seed)
        if config.count_private:
            solved = _solve_through_clients(shared.n_items, config, engine, seed)
        elif len(shared):
            solved = solve(shared, config, known=known)
        else:
            raise DataError("nothing is shared: share something, or set count_private=true for sums over clients")
        progress("training", 1, 1)
        return _trained(solved, config, shared, seed, (), {"stage": "train", **settling}, watch)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Subtract. The result is the model of what is retained.

        With `count_private`, what is unshared still counts as private, so the model stays; an erasure sums anew.
        """
        watch, config = Stopwatch(), _config_of(trained)
        retained = cache(lambda: trained.shared - withdrawal.forget)
        progress("unlearning", 0, 1)
        if not config.count_private:
            own = trained.shared.of_users(withdrawal.forget.active_users())
            solved = resolve(trained.model, own, own - withdrawal.forget, retained, config)
        elif withdrawal.kind == "unshare":
            solved = Solved(trained.model, {"method": "nothing to change", "why": "private interactions count too"})
        else:
            solved = _solve_through_clients(trained.shared.n_items, config, engine, seed)
        progress("unlearning", 1, 1)
        record = {"stage": "unlearn", "request": withdrawal.request_id, **self._awaited(trained)}
        return _trained(solved, config, retained(), trained.seed, trained.log, record, watch)

    def at_once(self, trained: Trained, withdrawal: Withdrawal) -> Trained | None:
        """The filter alone, where the subspace takes long to make anew: what it is made of has changed in milliseconds.

        The model says that it is a filter, and so does its log; it is what training gives with `form=filter`.
        """
        if not len(withdrawal.forget) or form_of(trained.model) != "spectral":
            return None
        watch, config = Stopwatch(), _config_of(trained)
        if not config.blend or config.seconds_for(trained.shared) <= config.wait_seconds:
            return None
        config, known = config.model_copy(update={"form": "filter"}), Tables.of(trained.model)
        alone = Tables(known.gram, {"degrees": known["degrees"]}, known.retained)
        own = trained.shared.of_users(withdrawal.forget.active_users())
        retained = cache(lambda: trained.shared - withdrawal.forget)
        solved = resolve(alone, own, own - withdrawal.forget, retained, config)
        record = {"stage": "unlearn", "request": withdrawal.request_id, "subspace": AWAITED}
        return _trained(solved, config, retained(), trained.seed, trained.log, record, watch)

    def awaits(self, trained: Trained) -> bool:
        """Whether the subspace is still to be made."""
        return bool(self._awaited(trained))

    def refresh(self, trained: Trained) -> Trained:
        """The spectral form of what is shared now."""
        watch, config = Stopwatch(), _config_of(trained).model_copy(update={"form": "spectral"})
        solved = solve(trained.shared, config, "refresh", Tables.of(trained.model))
        return _trained(solved, config, trained.shared, trained.seed, trained.log, {"stage": "refresh"}, watch)

    def _awaited(self, trained: Trained) -> dict[str, object]:
        """What the log says where a subspace is still to be made."""
        return {"subspace": AWAITED} if trained.log and trained.log[-1].get("subspace") == AWAITED else {}

    def extend(
        self,
        trained: Trained,
        shared: Interactions,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """Add newly shared interactions, those of new users and of new items included.

        Parameters
        ----------
        shared
            What is new, over the catalog of `trained` or over one that appends to it.
        engine
            Reaches the clients as they are now.
        """
        watch, config = Stopwatch(), _config_of(trained)
        progress("extending", 0, 1)
        before = trained.shared.over(shared.catalog)
        after = before | shared
        if config.count_private:
            solved = _solve_through_clients(after.n_items, config, engine, seed)
        else:
            users = (shared - before).active_users()
            solved = resolve(trained.model, before.of_users(users), after.of_users(users), lambda: after, config)
        progress("extending", 1, 1)
        return _trained(
            solved, config, after, trained.seed, trained.log, {"stage": "extend", **self._awaited(trained)}, watch
        )

    def learnt(self, kind: Kind) -> Learnt:
        """What is shared; with `count_private` all that is held, and what is only unshared is still held."""
        if not self.config.count_private:
            return "shared"
        return "everything" if kind == "erase" else "nothing"

    def recommender(self, trained: Trained) -> Recommender:
        """The one reading of the one table, through what is shared."""
        return recommender_of(trained.model, _config_of(trained))

    def views(self, trained: Trained) -> Mapping[str, Recommender]:
        """The one reading of the one table: devices keep nothing."""
        return {"items": self.recommender(trained)}


def _config_of(trained: Trained) -> ExactConfig:
    """The settings that a model was trained with."""
    require_same_system(NAME, trained)
    assert isinstance(trained.config, ExactConfig)
    return trained.config


def _solve_through_clients(n_items: int, config: ExactConfig, engine: Engine, seed: int) -> Solved:
    require_memory(n_items)
    spec = task_spec(config, NAME, TERM, new_run(), term_update(n_items))
    found = engine.run(spec, Broadcast(0, {}), engine.users, seed=seed)
    if len(found.missing):
        raise FederationError(
            f"{len(found.missing):,} of {len(engine.users):,} users' devices did not answer, and the sum must be over "
            "all of them: run it again"
        )
    inverse = regularised_inverse(sp.csr_matrix(found.update.tensors["gram"]), config.ridge)
    return Solved({"inverse": inverse}, {"form": "ease", "method": "closed form of a sum over clients"})


def _trained(
    solved: Solved,
    config: ExactConfig,
    shared: Interactions,
    seed: int,
    log: tuple[Any, ...],
    record: Mapping[str, object],
    watch: Stopwatch,
) -> Trained:
    record = {**record, **solved.how, "seconds": round(watch.seconds, 6)}
    # Devices keep nothing of Exact, so any run will do.
    return Trained(NAME, config, seed, new_run(), solved.model, Memory({}), shared, (*log, record))
