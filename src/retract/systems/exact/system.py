"""Exact as a system: train, unlearn and extend, each to the closed form of what is then held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from retract.data import Interactions
from retract.errors import ConfigError, DataError
from retract.federation import Broadcast, Clients, Engine
from retract.models.ease import regularised_inverse
from retract.models.recommender import Recommender
from retract.systems.base import (
    Kind,
    Learnt,
    Memory,
    Progress,
    Stopwatch,
    Trained,
    Withdrawal,
    no_progress,
    require_one_user_each,
)
from retract.systems.exact.client import Term, recommender_of
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.server import Solved, solve
from retract.systems.exact.unlearning import resolve


class Exact:
    """Closed forms of sums over users: EASE where memory suffices for it, the graph filter beyond, or both.

    To forget is to subtract: after every withdrawal the model is, to floating-point error, the one that training
    without the data gives. What the server keeps for it is the shared data alone.

    Parameters
    ----------
    config
        Settings; the defaults fit MovieLens and Gowalla.
    """

    name = "exact"

    def __init__(self, config: ExactConfig | None = None) -> None:
        self.config = config if config is not None else ExactConfig()

    def train(self, shared: Interactions, engine: Engine, *, seed: int, progress: Progress = no_progress) -> Trained:
        """Sum over users and solve; nothing is drawn at random, so `seed` plays no part.

        Raises
        ------
        DataError
            If nothing is shared, and private interactions do not count either.
        ConfigError
            If private interactions are to count in a catalog too large for EASE, or a client has more than one user.
        """
        require_one_user_each(self.name, engine)
        watch = Stopwatch()
        engine.reset()
        progress("training", 0, 1)
        if self.config.count_private:
            solved = self._solve_through_clients(shared.n_items, engine, seed)
        elif len(shared):
            solved = solve(shared, self.config)
        else:
            raise DataError("nothing is shared: share something, or set count_private=true for sums over clients")
        progress("training", 1, 1)
        return self._trained(solved, shared, seed, (), {"stage": "train"}, watch)

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
        watch, retained = Stopwatch(), trained.shared - withdrawal.forget
        progress("unlearning", 0, 1)
        if not self.config.count_private:
            users = np.unique(withdrawal.forget.users)
            solved = resolve(trained.model, trained.shared, retained, users, self.config)
        elif withdrawal.kind == "unshare":
            solved = Solved(trained.model, {"method": "nothing to change", "why": "private interactions count too"})
        else:
            solved = self._solve_through_clients(retained.n_items, engine, seed)
        progress("unlearning", 1, 1)
        record: dict[str, object] = {"stage": "unlearn", "request": withdrawal.request_id}
        return self._trained(solved, retained, trained.seed, trained.log, record, watch)

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
        watch = Stopwatch()
        progress("extending", 0, 1)
        before = trained.shared.over(shared.catalog)
        after = before | shared
        if self.config.count_private:
            solved = self._solve_through_clients(after.n_items, engine, seed)
        else:
            solved = resolve(trained.model, before, after, np.unique((shared - before).users), self.config)
        progress("extending", 1, 1)
        return self._trained(solved, after, trained.seed, trained.log, {"stage": "extend"}, watch)

    def learnt(self, kind: Kind) -> Learnt:
        """What is shared; with `count_private` all that is held, and what is only unshared is still held."""
        if not self.config.count_private:
            return "shared"
        return "everything" if kind == "erase" else "nothing"

    def recommender(self, trained: Trained, clients: Clients) -> Recommender:
        """Each client reads the rows of its own items."""
        return recommender_of(trained.model, self.config)

    def views(self, trained: Trained, clients: Clients | None) -> Mapping[str, Recommender]:
        """The one reading of the one table: clients keep nothing."""
        return {"items": recommender_of(trained.model, self.config)}

    def _solve_through_clients(self, n_items: int, engine: Engine, seed: int) -> Solved:
        if self.config.form_for(n_items) != "ease":
            raise ConfigError(
                f"count_private sums dense matrices, and {n_items:,} items are too many for EASE: "
                "raise memory_gb, or leave count_private off"
            )
        update = engine.run(Term(self.config.ease_exponent), Broadcast(0, {}), engine.users, seed=seed)
        inverse = regularised_inverse(sp.csr_matrix(update.tensors["gram"].numpy()), self.config.ridge)
        return Solved({"inverse": inverse}, {"form": "ease", "method": "closed form of a sum over clients"})

    def _trained(
        self,
        solved: Solved,
        shared: Interactions,
        seed: int,
        log: tuple[Any, ...],
        record: dict[str, object],
        watch: Stopwatch,
    ) -> Trained:
        record = {**record, **solved.how, "seconds": round(watch.seconds, 6)}
        return Trained(self.name, self.config, seed, solved.model, Memory({}), shared, (*log, record))
